"""A client's host in the sandbox: the gateway program in a namespace on the underlay, as on a real host."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from engine.errors import ShardwrightError
from providers.sandbox import netns

_READY_SECONDS, _END_SECONDS = 30.0, 5.0


class GatewayProcess:
    """Ends with ``close``, or with the namespace. ``folder`` gets its configuration, its key and its log."""

    def __init__(self, namespace: str, configuration: str, folder: Path) -> None:
        """Returns once it is on the overlay. Raises ShardwrightError with what it said last."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / "gateway.json"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(configuration)
        command = [sys.executable, "-m", "agent.gateway", "--config", str(file)]
        with (folder / "gateway.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net={netns.NAMESPACES / namespace}", "--", *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(said,), daemon=True).start()
        try:
            ready = said.get(timeout=_READY_SECONDS) == "ready\n"
        except queue.Empty:
            ready = False
        if not ready:
            self.close()
            last = (folder / "gateway.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise ShardwrightError("the client's host does not get onto the overlay", why=" | ".join(last))

    def _read(self, said: "queue.Queue[str]") -> None:
        if self._process.stdout is not None:
            said.put(self._process.stdout.readline())

    def close(self) -> None:
        """Ended already = success."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_END_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()

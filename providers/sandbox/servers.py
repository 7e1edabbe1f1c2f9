"""The provider servers: their processes, and the calls of the /_sandbox contract."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import ValidationError

from engine.errors import ProviderAnswerInvalid, ProviderUnavailable, ShardwrightError, UsageError
from engine.model.value import Value
from providers.sandbox.certificates import TlsFiles
from providers.sandbox.contract import (
    INSTANCES,
    NOTICES,
    PRICES,
    Fault,
    Message,
    PriceChange,
    ReclaimOrder,
    SandboxInstance,
    SandboxNotice,
)
from providers.sandbox.info import ProviderSpec
from providers.sandbox.processes import MARKER

SECRET_VARIABLES = ("SHARDWRIGHT_SANDBOX_SECRET", "OPEN_CAPACITY_TOKEN")
"""Where the servers look for what a caller must know."""
_READY_SECONDS = 60.0
_LAST_LINES = 12
Parsed = TypeVar("Parsed")


class ServerFailed(ShardwrightError):
    """A provider server did not come up."""


class ServerCommand(Value):
    """What one server is told; the secret goes through its environment."""

    spec: ProviderSpec
    seed: int
    meter_speed: Decimal
    port: int = 0
    tls: TlsFiles | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    def argv(self) -> list[str]:
        spec = self.spec
        argv = [sys.executable, "-m", spec.module, "--port", str(self.port), "--account", spec.account]
        argv += ["--regions", ",".join(spec.regions), "--seed", str(self.seed)]
        argv += ["--meter-speed", str(self.meter_speed), "--name", spec.name]
        if spec.tls and self.tls is not None:
            argv += ["--tls-cert", str(self.tls.certificate), "--tls-key", str(self.tls.key)]
        return argv


class PluginCommand(Value):
    """A stand-in for the Pulumi plugin of that name; it prints the bare port, as Pulumi's plugins do."""

    name: str
    ca_file: Path | None = None
    """The authority it trusts; None: the system's."""

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "providers.sandbox.plugins", self.name]


class ServerProcess:
    """One server or plugin as a child process. Its stderr goes to a log file."""

    def __init__(self, command: ServerCommand | PluginCommand, *, tag: str, secret: str, log: Path) -> None:
        self.name, self._log = command.name, log
        self._lines: queue.Queue[str] = queue.Queue()
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {MARKER: tag} | dict.fromkeys(SECRET_VARIABLES, secret)
        if isinstance(command, PluginCommand) and command.ca_file is not None:
            environment["SSL_CERT_FILE"] = str(command.ca_file)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command.argv(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
                text=True,
            )
        threading.Thread(target=self._read, name=f"stdout-{self.name}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self, stop: threading.Event, *, timeout_seconds: float = _READY_SECONDS) -> int:
        """The port, once the server says that it serves. Raises ServerFailed with the end of its log."""
        waited = 0.0
        while waited < timeout_seconds and not stop.is_set():
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                waited += 0.1
                continue
            port = line.strip().removeprefix("ready ")
            if port.isdigit():
                return int(port)
            if not line:
                raise self._failed("it ended before it was ready")
        raise self._failed("stopped" if stop.is_set() else f"not ready after {timeout_seconds:.0f} s")

    def end(self) -> None:
        """Ask it to go; the teardown makes sure."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def _read(self) -> None:
        stdout = self.process.stdout
        if stdout is None:
            return
        with stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put("")

    def _failed(self, why: str) -> ServerFailed:
        try:
            tail = " | ".join(self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        except OSError:
            tail = ""
        return ServerFailed(
            f"the sandbox server {self.name!r} did not start", why="; ".join(part for part in (why, tail) if part)
        )


class ServerClient:
    """The /_sandbox routes of one server. Loopback, so one short time-out and no retries: pollers come again."""

    def __init__(self, name: str, endpoint: str, *, ca_file: str | None = None, timeout_seconds: float = 3.0) -> None:
        self.name, self.endpoint = name, endpoint
        verify = httpx.create_ssl_context(verify=ca_file) if ca_file else False
        self._http = httpx.Client(base_url=endpoint, timeout=timeout_seconds, verify=verify, trust_env=False)

    def instances(self) -> list[SandboxInstance]:
        return self._parsed(INSTANCES.validate_json, "/_sandbox/instances")

    def notices(self) -> list[SandboxNotice]:
        return self._parsed(NOTICES.validate_json, "/_sandbox/notices")

    def prices(self) -> list[PriceChange]:
        """What the server asks now."""
        return self._parsed(PRICES.validate_json, "/_sandbox/prices")

    def reclaim(self, order: ReclaimOrder) -> None:
        self._post("/_sandbox/reclaim", order)

    def change_price(self, change: PriceChange) -> None:
        self._post("/_sandbox/price", change)

    def set_fault(self, fault: Fault) -> None:
        self._post("/_sandbox/fault", fault)

    def service_account_key(self) -> str:
        """A service account key file, as text, from a server that hands them out."""
        return self._call("GET", "/_sandbox/service-account").text

    def close(self) -> None:
        self._http.close()

    def _parsed(self, parse: Callable[[bytes], Parsed], path: str) -> Parsed:
        answer = self._call("GET", path)
        try:
            return parse(answer.content)
        except ValidationError as error:
            raise ProviderAnswerInvalid(f"{self.name}: {path} answered something else", why=str(error)) from error

    def _post(self, path: str, body: Message) -> None:
        self._call("POST", path, body.model_dump_json())

    def _call(self, method: str, path: str, body: str | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            answer = self._http.request(method, path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise ProviderUnavailable(f"{self.name}: no answer at {path}", why=type(error).__name__) from error
        if answer.status_code in (404, 422):
            raise UsageError(f"{self.name} refuses {path}", why=answer.text[:500])
        if answer.is_error:
            raise ProviderAnswerInvalid(f"{self.name}: {path} answered {answer.status_code}", why=answer.text[:200])
        return answer

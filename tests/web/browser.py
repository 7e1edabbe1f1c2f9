"""A headless Chromium behind its own WebDriver server: loads pages, runs scripts, tells what was asked."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

READY_SECONDS = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """One session; ``folder`` takes its profile and log."""

    def __init__(self, chromium: str, driver: str, folder: Path) -> None:
        self._chromium, self._driver, self._folder = chromium, driver, folder
        self._http = httpx.Client(timeout=READY_SECONDS, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None
        self._session = ""

    def __enter__(self) -> "Browser":
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        try:
            if self._session:
                self._http.delete(self._session)
        finally:
            if self._process is not None:
                os.killpg(self._process.pid, signal.SIGTERM)
                self._process.wait(10)
            self._http.close()

    def open(self, url: str) -> None:
        """Returns when the page has loaded and its deferred scripts have run."""
        self._send("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The body of a function; what it returns, as JSON values."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait_for(self, script: str, seconds: float = 10.0) -> None:
        """Until the script returns something true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {script}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """One key, as a person would."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def show(self, *, width: int = 1280, height: int = 900, scheme: str = "light", medium: str = "screen") -> None:
        """Size of the view in CSS pixels, preferred colour scheme (light, dark), medium (screen, print)."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", media=medium, features=[scheme_feature])

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: Path) -> Path:
        """The whole page, not only what is in view."""
        picture = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))
        return path

    def console(self) -> list[str]:
        """Warnings and errors since the last call."""
        return [f"{line['level']}: {line['message']}" for line in self._log("browser")]

    def requested(self) -> list[str]:
        """Every address that the page asked for since the last call, whether or not it was reached."""
        events = (json.loads(line["message"])["message"] for line in self._log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = self._send("POST", "/se/log", {"type": kind})
        return lines

    def _send(self, method: str, path: str, body: dict[str, Any]) -> Any:
        answer = self._http.request(method, self._session + path, json=body)
        value = answer.json()["value"]
        if answer.is_error:
            raise AssertionError(f"{method} {path}: {value['error']}: {value['message']}")
        return value

    def _start(self) -> None:
        log = self._folder / "driver.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [self._driver, "--port=0", "--allowed-ips=127.0.0.1"],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder / "config"),
                     "XDG_CACHE_HOME": str(self._folder / "cache")},
            )  # fmt: skip
        base = f"http://127.0.0.1:{self._port(log)}"
        options = {"binary": self._chromium, "args": [*FLAGS, f"--user-data-dir={self._folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self._session = f"{base}/session"
        try:
            session = self._send("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._session = ""
            raise
        self._session = f"{base}/session/{session}"
        # Away from the browser's own first page: what that still asks for would be taken for what a test's page asks.
        self.open("about:blank")

    def _port(self, log: Path) -> int:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            found = re.search(r"started successfully on port (\d+)", log.read_text(errors="replace"))
            if found:
                return int(found[1])
            time.sleep(0.05)
        raise AssertionError(f"the WebDriver server did not start: {log.read_text(errors='replace')[-500:]}")

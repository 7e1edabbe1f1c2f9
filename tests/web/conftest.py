"""A real server on loopback, and a real browser in front of it."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.api.app import control_app
from engine.api.view import ControlView
from tests.sample_view import EmptyView, SampleView
from tests.web.browser import Browser


class Recorded:
    """An application, and every path that it was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self.paths = app, []  # type: ASGIApp, list[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self._app(scope, receive, send)


class Served:
    """Where a view is served and what was asked of it."""

    def __init__(self, url: str, asked: list[str]) -> None:
        self.url, self.asked = url, asked


@contextmanager
def serving(view: ControlView) -> Iterator[Served]:
    app = Recorded(control_app(view))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended before it was ready"
        assert time.monotonic() < deadline, "the server was not ready within 30 s"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", app.paths)
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("NO BROWSER: the web pages are not tested; install chromium and chromium-driver to have it")
    with Browser(chromium, driver, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="session")
def full() -> Iterator[Served]:
    with serving(SampleView()) as served:
        yield served


@pytest.fixture(scope="session")
def empty() -> Iterator[Served]:
    with serving(EmptyView()) as served:
        yield served

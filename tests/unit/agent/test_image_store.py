"""Image files from a folder and from an https server of the test's own."""

import asyncio
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from threading import Event, Thread

import pytest

from agent import image_store
from agent.image_store import ImageStore
from engine.clock import SystemClock
from engine.errors import MissingPart, UsageError
from engine.fleet.certificates import CertificateAuthority, ControlCredentials
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage

UP = ReadyCheck(console="up")
Answer = tuple[int, bytes]


def file(content: bytes, source: str = "kernel") -> ImageFile:
    return ImageFile(source=source, sha256=hashlib.sha256(content).hexdigest())


def image(kernel: ImageFile, disk: ImageFile | None = None) -> WorkloadImage:
    return WorkloadImage(name="mine", kernel=kernel, disk=disk, ready=UP)


def got(store: ImageStore, wanted: WorkloadImage, *, disk: bool = True, seconds: float = 20.0) -> Path:
    return Path(asyncio.run(store.get(wanted, disk=disk, seconds=seconds)).kernel)


def test_a_file_of_the_folder_is_kept_under_its_digest(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"kernel")
    kept = got(ImageStore(tmp_path), image(file(b"kernel")))
    assert (kept.read_bytes(), kept.name) == (b"kernel", hashlib.sha256(b"kernel").hexdigest())
    (tmp_path / "kernel").write_bytes(b"another")  # it is had once
    assert got(ImageStore(tmp_path), image(file(b"kernel"))) == kept


def test_a_disk_stays_sparse_and_is_not_had_for_a_move(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"kernel")
    content = b"boot" + bytes(8 << 20) + b"end" + bytes(3 << 20)
    wanted = image(file(b"kernel"), file(content, "disk"))
    assert asyncio.run(ImageStore(tmp_path).get(wanted, disk=False, seconds=20)).disk == ""
    (tmp_path / "disk").write_bytes(content)
    kept = Path(asyncio.run(ImageStore(tmp_path).get(wanted, disk=True, seconds=20)).disk)
    assert kept.read_bytes() == content
    assert kept.stat().st_blocks * 512 < len(content) / 2


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"other", "not what was asked"), (b"", "not what was asked")],
)
def test_another_content_is_not_used(tmp_path: Path, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / "kernel").write_bytes(content)
    with pytest.raises(MissingPart, match=why):
        got(ImageStore(tmp_path), image(file(b"kernel")))
    assert list(tmp_path.glob("files/*")) == list(tmp_path.glob("files/.*")) == []


def test_a_link_out_of_the_folder_helps_nobody_who_lacks_the_digest(tmp_path: Path) -> None:
    (tmp_path / "kernel").symlink_to("/etc/hostname")
    with pytest.raises(MissingPart, match="not what was asked for"):
        got(ImageStore(tmp_path), image(file(b"kernel")))


def test_a_disk_must_be_raw(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"QFI\xfb and more")
    with pytest.raises(UsageError, match="qcow2"):
        got(ImageStore(tmp_path), image(file(b"QFI\xfb and more")))


def test_what_fits_nowhere_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_store, "LARGEST_BYTES", 5)
    (tmp_path / "kernel").write_bytes(b"kernel")
    with pytest.raises(MissingPart, match="too large"):
        got(ImageStore(tmp_path), image(file(b"kernel")))


class Server:
    """Answers in turn, the last one for ever."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[Answer] = []
        self.asked: list[str] = []
        self.pause, self.sent = 0.0, 0
        """Between two bytes; how many were sent so."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                status, content = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if server.pause:
                    server.drip(content, self.wfile)
                else:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        authority = CertificateAuthority.load_or_create(folder, SystemClock())
        mine = ControlCredentials(authority, folder, SystemClock(), hosts=("127.0.0.1",))
        mine.current()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(mine.certificate_file, mine.key_file)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.http.server_address[1]}"
        self.believed = ssl.create_default_context(cadata=authority.ca_pem)

    def drip(self, content: bytes, target: BufferedIOBase) -> None:
        with suppress(OSError):
            for self.sent in range(1, len(content) + 1):
                target.write(content[self.sent - 1 : self.sent])
                time.sleep(self.pause)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    serving = Server(tmp_path_factory.mktemp("tls"))
    Thread(target=serving.http.serve_forever, args=(0.05,), daemon=True).start()
    yield serving
    serving.http.shutdown()
    serving.http.server_close()


@pytest.fixture
def fetched(server: Server, tmp_path: Path) -> Callable[[], Path]:
    store = ImageStore(tmp_path, server.believed, pause_seconds=0)
    return lambda: got(store, image(file(b"kernel", f"{server.url}/k?key=hidden")))


def test_a_file_is_fetched_once_and_checked(server: Server, fetched: Callable[[], Path]) -> None:
    server.answers = [(200, b"kernel")]
    assert fetched().read_bytes() == b"kernel"
    fetched()
    assert server.asked == ["/k?key=hidden"]


def test_what_passes_is_tried_again(server: Server, fetched: Callable[[], Path]) -> None:
    server.answers = [(503, b""), (500, b""), (200, b"kernel")]
    assert fetched().read_bytes() == b"kernel"


@pytest.mark.parametrize(
    ("answers", "why", "tries"),
    [
        ([(404, b"")], "status 404", 1),
        ([(503, b"")], "status 503", 3),
        ([(200, b"kernel?")], "not what was asked", 1),
        ([(302, b"")], "status 302", 1),
    ],
)
def test_a_server_that_has_it_not_is_named_without_what_its_url_hides(
    server: Server, fetched: Callable[[], Path], answers: list[Answer], why: str, tries: int, tmp_path: Path
) -> None:
    server.answers = answers
    with pytest.raises(MissingPart, match=why) as failure:
        fetched()
    assert len(server.asked) == tries
    assert "hidden" not in str(failure.value)
    assert list(tmp_path.glob("files/*")) == []


def test_a_server_without_a_certificate_that_is_believed_is_not_asked(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, b"kernel")]
    with pytest.raises(MissingPart, match="cannot be fetched"):
        got(ImageStore(tmp_path, pause_seconds=0), image(file(b"kernel", f"{server.url}/k")))
    assert server.asked == []


def test_what_takes_long_goes_on_coming(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, b"kernel")]
    wanted = image(file(b"kernel", f"{server.url}/k"))

    async def run() -> Path:
        store = ImageStore(tmp_path, server.believed)
        with pytest.raises(MissingPart, match="not here yet"):
            await store.get(wanted, disk=True, seconds=0)
        return Path((await store.get(wanted, disk=True, seconds=20)).kernel)

    assert asyncio.run(run()).read_bytes() == b"kernel"
    assert len(server.asked) == 1


def test_a_server_that_drips_is_given_up_in_time(
    server: Server, fetched: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "_TOTAL_SECONDS", 0.1)
    server.answers, server.pause = [(200, bytes(200))], 0.02
    with pytest.raises(MissingPart, match="too slowly"):
        fetched()
    assert server.sent < 200


def test_slow_servers_hold_nobody_else_up_and_are_given_up_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    over = Event()

    def drip(_store: ImageStore, _file: ImageFile) -> Iterator[bytes]:
        while not over.wait(0.01):
            yield b"x"

    monkeypatch.setattr(ImageStore, "_fetched", drip)
    (tmp_path / "kernel").write_bytes(b"kernel")
    store, local = ImageStore(tmp_path), image(file(b"kernel"))

    async def go() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        try:
            for name in ("a", "b", "c"):
                slow = image(file(name.encode(), f"https://slow.example/{name}"))
                with pytest.raises(MissingPart, match="not here yet"):
                    await store.get(slow, disk=True, seconds=0)
            first = await store.get(local, disk=True, seconds=10)
            assert await store.get(local, disk=True, seconds=0) == first
            store.close()
            while list((tmp_path / "files").glob(".*")):
                await asyncio.sleep(0.01)
        finally:
            over.set()

    asyncio.run(asyncio.wait_for(go(), 20))
    assert "never retrieved" not in caplog.text
    assert [path.name for path in (tmp_path / "files").iterdir()] == [file(b"kernel").sha256]


def test_what_a_killed_agent_left_half_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "files").mkdir()
    for pid in (gone.pid, os.getppid()):
        (tmp_path / "files" / f".{'a' * 64}.{pid}").write_bytes(b"half")
    (tmp_path / "kernel").write_bytes(b"kernel")
    got(ImageStore(tmp_path), image(file(b"kernel")))
    assert [path.name for path in (tmp_path / "files").glob(".*")] == [f".{'a' * 64}.{os.getppid()}"]


SILENT = """
import asyncio, pathlib, sys, threading
from agent.image_store import ImageStore
from engine.errors import MissingPart
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage

kernel = ImageFile(source=sys.argv[1], sha256="a" * 64)
store = ImageStore(pathlib.Path(sys.argv[2]))

async def go():
    try:
        await store.get(WorkloadImage(name="mine", kernel=kernel, ready=ReadyCheck(console="up")), disk=True, seconds=0)
    except MissingPart:
        pass
    await asyncio.to_thread(sys.stdin.readline)  # until it is connected
    store.close()

asyncio.run(go())
"""


def test_an_agent_ends_at_once_while_a_server_keeps_it_waiting(tmp_path: Path) -> None:
    """As when it is told to end: the server takes the connection and never says a word, for which it has 30 seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/k"
        line = [sys.executable, "-c", SILENT, url, str(tmp_path)]
        with subprocess.Popen(line, stdin=subprocess.PIPE, text=True) as fetching, listener.accept()[0]:
            began = time.monotonic()
            fetching.communicate("go\n", timeout=60)
            assert time.monotonic() - began < 10
    assert fetching.returncode == 0

import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.errors import ProviderAnswerInvalid, ProviderUnavailable, UsageError
from providers.sandbox.certificates import TlsFiles
from providers.sandbox.contract import Fault, FaultMode
from providers.sandbox.info import SPECS
from providers.sandbox.servers import ServerClient, ServerCommand, ServerFailed, ServerProcess
from providers.sandbox.teardown import new_tag


class Odd(BaseHTTPRequestHandler):
    """Answers ``status`` and ``body`` to everything."""

    status, body = 200, b"[]"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[type[Odd]]:
    class Handler(Odd):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        Handler.endpoint = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        yield Handler
        server.shutdown()


def client(odd: type[Odd]) -> ServerClient:
    return ServerClient("cloud", odd.endpoint)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"<html>", ProviderAnswerInvalid),
        (200, b'[{"instance_id": 1}]', ProviderAnswerInvalid),
        (500, b"", ProviderAnswerInvalid),
        (404, b"unknown", UsageError),
    ],
)
def test_odd_answers_are_named_errors(odd: type[Odd], status: int, body: bytes, error: type[Exception]) -> None:
    odd.status, odd.body = status, body
    with pytest.raises(error):
        client(odd).instances()


def test_a_proper_answer_is_parsed_and_an_order_needs_none(odd: type[Odd]) -> None:
    assert client(odd).instances() == client(odd).notices() == client(odd).prices() == []
    odd.status, odd.body = 204, b""
    client(odd).set_fault(Fault(mode=FaultMode.DOWN, seconds=1))


def test_a_server_that_is_gone_is_unavailable() -> None:
    with pytest.raises(ProviderUnavailable, match="cloud: no answer"):
        ServerClient("cloud", "http://127.0.0.1:9").instances()


def command(module: str, **changes: object) -> ServerCommand:
    spec = SPECS["harbor"].model_copy(update={"module": module, **changes})
    return ServerCommand(spec=spec, seed=7, meter_speed=Decimal("3600"))


def test_the_command_line_is_the_contracts_and_holds_no_secret(tmp_path: Path) -> None:
    argv = command("providers.sandbox.networks").argv()
    assert argv[1:] == [
        "-m", "providers.sandbox.networks", "--port", "0", "--account", "shardwright", "--regions", "harbor-eu",
        "--seed", "7", "--meter-speed", "3600", "--name", "harbor",
    ]  # fmt: skip
    tls = TlsFiles(ca=tmp_path / "ca", certificate=tmp_path / "cert", key=tmp_path / "key")
    azure = ServerCommand(spec=SPECS["azure"], seed=1, meter_speed=Decimal(1), tls=tls)
    assert azure.argv()[-4:] == ["--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key")]


@pytest.mark.parametrize("module", ["no.such.module", "this"])
def test_a_server_that_ends_or_babbles_did_not_start(tmp_path: Path, module: str) -> None:
    process = ServerProcess(command(module), tag=new_tag(), secret="s", log=tmp_path / "logs/x.log")
    with pytest.raises(ServerFailed, match="it ended before it was ready"):
        process.wait_ready(threading.Event())
    process.process.wait(timeout=5)


def test_waiting_ends_when_told_to_stop(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    process = ServerProcess(command("providers.sandbox.networks"), tag=new_tag(), secret="s", log=tmp_path / "x.log")
    with pytest.raises(ServerFailed, match="stopped"):
        process.wait_ready(stop)
    process.end()
    process.process.wait(timeout=5)

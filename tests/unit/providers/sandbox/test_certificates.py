import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.clock import ManualClock, SystemClock
from providers.sandbox.certificates import TlsFiles, make_tls_files


def handshake(files: TlsFiles, name: str, ca: Path) -> str | None:
    """What the client says about the server's certificate: None when it is satisfied."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(files.certificate, files.key)
    client_context = ssl.create_default_context(cafile=ca)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    client_side, server_side = socket.socketpair()

    def serve() -> None:
        try:
            server_context.wrap_socket(server_side, server_side=True).close()
        except (ssl.SSLError, OSError):
            server_side.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client_context.wrap_socket(client_side, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        client_side.close()
        return error.verify_message
    finally:
        thread.join()
    return None


def test_the_certificate_is_good_for_loopback_and_for_nothing_else(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path / "tls", SystemClock())
    other = make_tls_files(tmp_path / "other", SystemClock())
    assert handshake(files, "127.0.0.1", files.ca) is None
    assert handshake(files, "localhost", files.ca) is None
    assert "mismatch" in str(handshake(files, "127.0.0.2", files.ca))
    assert handshake(files, "127.0.0.1", other.ca) is not None


def test_it_runs_out_and_its_key_is_its_owners(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path / "tls", ManualClock(datetime(2020, 1, 1, tzinfo=UTC)))
    assert "expired" in str(handshake(files, "127.0.0.1", files.ca))
    assert files.key.stat().st_mode & 0o077 == 0
    assert b"PRIVATE KEY" not in files.ca.read_bytes() + files.certificate.read_bytes()


@pytest.mark.parametrize("times", [1, 2])
def test_making_it_again_replaces_it(tmp_path: Path, times: int) -> None:
    for _ in range(times):
        files = make_tls_files(tmp_path / "tls", SystemClock())
    assert handshake(files, "127.0.0.1", files.ca) is None

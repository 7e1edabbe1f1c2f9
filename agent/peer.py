"""Who is at the other end of a mutual-TLS connection, for servers run by uvicorn."""

import socket
import ssl
from asyncio import Transport
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_SCOPE_KEY, _CERTIFICATE_KEY = "shardwright.peer", "shardwright.certificate"


class PeerProtocol(H11Protocol):
    """Puts the client's verified certificate, and the URI in it, into the request's scope."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this only for sockets made with IPPROTO_TCP spelled out. Without it every answer waits 40 ms for
        # the other side's delayed acknowledgement: head and body are two writes.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, inner = transport.get_extra_info("ssl_object"), self.app
        peer, certificate = _uri(connection), connection.getpeercert(binary_form=True) if connection else None

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope[_SCOPE_KEY], scope[_CERTIFICATE_KEY] = peer, certificate
            await inner(scope, receive, send)

        self.app = with_peer


def peer_of(scope: Any) -> str | None:
    """The peer's identity (``spiffe://…``), or None where it showed no certificate."""
    found = scope.get(_SCOPE_KEY)
    return found if isinstance(found, str) else None


def certificate_of(scope: Any) -> bytes | None:
    """The peer's certificate (DER), or None where it showed none."""
    found = scope.get(_CERTIFICATE_KEY)
    return found if isinstance(found, bytes) else None


def server_context(*, certificate: Path, key: Path, ca: Path, client_certificate: bool) -> ssl.SSLContext:
    """TLS 1.3 only. ``client_certificate`` False still verifies one that is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(*, ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Trusts this authority only; shows a certificate where one is given."""
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def _uri(connection: ssl.SSLObject | None) -> str | None:
    if connection is None:
        return None
    names: Any = (connection.getpeercert() or {}).get("subjectAltName", ())
    return next((str(value) for kind, value in names if kind == "URI"), None)

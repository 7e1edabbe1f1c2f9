"""Where a node's agent answers, as the node itself says: ``https://HOST:PORT`` and no more.

A gateway has no agent that answers, and names its host.

The control plane calls it in every loop that goes over the nodes. What is no address is refused when it is said, so
that no caller has to ask itself what one node's may do to the others'.
"""

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")


def _checked(text: str) -> str:
    """Raises ValueError."""
    if text.lower().removesuffix("/") != _as_read(text):
        raise ValueError("not https://HOST:PORT")
    return text


def _as_read(text: str) -> str | None:
    """What a reader of URLs finds in it, written again; None: no host, or a port that is none."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if port == 0 or not _is_host(host):
        return None
    written = f"https://[{host}]" if ":" in host else f"https://{host}"
    return written if port is None else f"{written}:{port}"


def _is_host(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return _HOST_NAME.fullmatch(host) is not None
    return True


AgentUrl = Annotated[str, Field(max_length=255), AfterValidator(_checked)]

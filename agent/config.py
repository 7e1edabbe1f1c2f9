"""The agent's configuration file, as the node's user data writes it (mode 0600: it may hold a join token)."""

import json
import os
import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError

from agent.overlay_wire import UNDERLAY_MTU, Endpoint
from agent.wire import (
    NAME,
)
from engine.errors import ConfigurationError
from engine.model.capacity import Resources
from engine.model.ids import NodeId
from engine.model.value import Value

DEFAULT_PORT = 7443
DEFAULT_OVERLAY_PORT = 51820


class MetadataFlavour(StrEnum):
    """How this kind of provider announces that it takes an instance back."""

    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"
    NETWORK = "network"


def _https(url: str) -> str:
    if urlsplit(url).scheme != "https":
        raise ValueError("must be an https URL")
    return url.rstrip("/")


class AgentConfig(Value):
    control_url: Annotated[str, AfterValidator(_https)]
    node: Annotated[NodeId, NAME]
    join_token: SecretStr | None = None
    """None: the provider vouches for the instance, by what it signs at the metadata address."""
    control_ca_pem: str
    capacity: Resources
    """What shards may be carved from in all."""
    work_dir: Annotated[str, Field(min_length=1)]
    """Where a file leaves it out, the folder of the file itself."""
    listen_host: str | None = None
    """None: the underlay address."""
    listen_port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    underlay_address: str | None = None
    """None: the address that this host uses to reach the control plane."""
    overlay_port: Annotated[int, Field(ge=1, le=65535)] = DEFAULT_OVERLAY_PORT
    """UDP, for WireGuard."""
    overlay_endpoint: Endpoint | None = None
    """ADDRESS:PORT where other nodes reach the tunnel; None: the underlay address, ``overlay_port``."""
    underlay_mtu: Annotated[int, Field(ge=1280, le=9216)] = UNDERLAY_MTU
    """What the ways between nodes carry: the same on every node of a fleet, since a guest keeps its own in a move."""
    image_dir: str | None = None
    """Where guest images are built and kept; None: the user's cache folder."""
    metadata_url: str | None = None
    """None: the well-known address of the flavour."""
    metadata_flavour: MetadataFlavour = MetadataFlavour.NETWORK
    run_lease_seconds: Annotated[float, Field(gt=0)] | None = None
    """How long shards run on without the control plane's word; None: for ever."""

    @property
    def underlay(self) -> str:
        return self.underlay_address or outgoing_address(self.control_url)

    @property
    def endpoint(self) -> str:
        """Of the tunnel."""
        return self.overlay_endpoint or f"{self.underlay}:{self.overlay_port}"

    @property
    def work(self) -> Path:
        return Path(self.work_dir)


class AgentFile(AgentConfig):
    """The configuration as it is written; ``load`` completes it on the node."""

    work_dir: str = ""

    def as_text(self) -> str:
        """JSON, a join token in clear."""
        fields = self.model_dump(mode="json", exclude_none=True, exclude={"work_dir"} if not self.work_dir else set())
        token = {} if self.join_token is None else {"join_token": self.join_token.get_secret_value()}
        return json.dumps(fields | token, indent=2)

    def completed(self, path: Path, environment: Mapping[str, str]) -> AgentConfig:
        given = {name: getattr(self, name) for name in AgentConfig.model_fields}
        given["work_dir"] = self.work_dir or str(path.resolve().parent)
        for name, variable in _FROM_ENVIRONMENT.items():
            given[name] = environment.get(variable) or given[name]
        return AgentConfig(**given)


_FROM_ENVIRONMENT = {
    "underlay_address": "SHARDWRIGHT_UNDERLAY_ADDRESS",
    "metadata_url": "SHARDWRIGHT_METADATA_URL",
    "overlay_endpoint": "SHARDWRIGHT_OVERLAY_ENDPOINT",
}


def load(path: Path, environment: Mapping[str, str] = os.environ) -> AgentConfig:
    """Raises ConfigurationError with every problem of the file, without any value of it.

    SHARDWRIGHT_UNDERLAY_ADDRESS, SHARDWRIGHT_OVERLAY_ENDPOINT and SHARDWRIGHT_METADATA_URL, where set, go before what
    the file says: the host knows its own address, whoever wrote the user data does not.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path} can be read by others", next_step=f"chmod 600 {path}")
        return AgentFile.model_validate_json(path.read_bytes()).completed(path, environment)
    except OSError as problem:
        raise ConfigurationError(f"cannot read {path}", why=problem.strerror or "") from problem
    except ValidationError as problem:
        errors = problem.errors(include_input=False)
        wrong = "; ".join(".".join(map(str, one["loc"])) + ": " + one["msg"] for one in errors)
        raise ConfigurationError(f"{path} is not an agent configuration", why=wrong) from None


def outgoing_address(url: str) -> str:
    """This host's address on the way to ``url``; nothing is sent."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "", parts.port or 443))
        return str(probe.getsockname()[0])

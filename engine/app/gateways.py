"""Gateways: hosts outside the fleet that get an address on the overlay of one namespace."""

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pydantic import SecretStr

from engine.config import Configuration
from engine.errors import ConfigurationError, UsageError
from engine.model.ids import NodeId
from engine.namespace.names import SCHEME, parse_query

if TYPE_CHECKING:
    from engine.clock import Clock
    from engine.store.opened import Store


def add_gateway(configuration: Configuration, store: "Store", name: str, namespace: str, clock: "Clock") -> str:
    """Enter it; the configuration file that it joins with, once. The same again voids the file that was made before.

    Raises UsageError, or ConfigurationError where the control plane has no address of its own to be found at.
    """
    from engine.fleet.certificates import CertificateAuthority, is_control_name
    from engine.fleet.gateways import render_gateway
    from engine.fleet.join import join_secret
    from engine.store.join_tokens import JoinTokens

    control, fleet = configuration.control, configuration.state.directory / "fleet"
    advertised = control.advertise or (f"{control.listen}:{control.port}" if control.port else None)
    if advertised is None:
        raise ConfigurationError(
            "a gateway must know where the control plane listens",
            why="control.port is 0: another port at every start",
            next_step="set control.port, and control.advertise where it differs",
        )
    if control.advertise is None and _names_no_host(control.listen):
        raise ConfigurationError(
            "a gateway must know where the control plane listens",
            why=f"it would be told {advertised}, which is every address of a host and no host",
            next_step="set control.advertise to HOST:PORT as the gateway sees it",
        )
    parse_query(f"{SCHEME}{namespace}/w/c")  # the namespace must be one that a name can have
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UsageError(
            f"{name!r} cannot be a gateway's name", why="letters, digits, dots, dashes, underscores; 64 at most"
        )
    if is_control_name(name):
        raise UsageError(
            f"{name!r} cannot be a gateway's name",
            why="it is the control plane's, and its host could pose as the control plane",
            next_step="choose another name",
        )
    gateway = store.overlay.add_gateway(NodeId(name), namespace)
    token = JoinTokens(store.database, clock, join_secret(fleet)).replace(gateway.name)
    return render_gateway(
        gateway.name,
        SecretStr(token),
        control_url=f"https://{advertised}",
        control_ca_pem=CertificateAuthority.load_or_create(fleet, clock).ca_pem,
        underlay_mtu=control.underlay_mtu,
    )


def _names_no_host(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False

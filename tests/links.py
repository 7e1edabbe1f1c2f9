"""Faults of a fleet's links: slow ones and cut ones, on the underlay's own cables. Each may be repeated, and healed."""

import subprocess
from collections.abc import Iterable

from providers.sandbox import netns
from tests.small_fleet import SmallFleet

CONTROL = "control"
"""Stands for the control plane among the ends of a cut link."""
_SECONDS = 10


def slow(fleet: SmallFleet, node: str, mbps: float) -> None:
    """Both ways."""
    bucket = f"root tbf rate {mbps}mbit burst 256kb latency 50ms"
    _tc(fleet.attachments[node].namespace, f"qdisc replace dev eth0 {bucket}")
    _tc(fleet.underlay.namespace, f"qdisc replace dev {fleet.underlay.link(node)} {bucket}")


def free(fleet: SmallFleet, node: str) -> None:
    """Not slow any more; was not = success."""
    for namespace, link in (
        (fleet.attachments[node].namespace, "eth0"),
        (fleet.underlay.namespace, fleet.underlay.link(node)),
    ):
        command = ["tc", "-n", namespace, "qdisc", "del", "dev", link, "root"]
        subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)


def cut(fleet: SmallFleet, ends: Iterable[str]) -> None:
    """No frame goes between any two of ``ends`` (nodes, or CONTROL); everybody else still reaches each of them."""
    _isolate(fleet, ends, "on")


def heal(fleet: SmallFleet) -> None:
    """Every cut of the fleet."""
    _isolate(fleet, (CONTROL, *fleet.names), "off")


def _isolate(fleet: SmallFleet, ends: Iterable[str], how: str) -> None:
    # Isolated ports of a bridge speak to those only that are not.
    links = ("r0" if end == CONTROL else fleet.underlay.link(end) for end in ends)
    netns.batch(
        "ip", [f"link set dev {link} type bridge_slave isolated {how}" for link in links],
        namespace=fleet.underlay.namespace,
    )  # fmt: skip


def _tc(namespace: str, line: str) -> None:
    subprocess.run(["tc", "-n", namespace, *line.split()], capture_output=True, timeout=_SECONDS, check=True)

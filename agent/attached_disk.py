"""A guest's second disk, which is a storage shard's elsewhere: its names in QEMU, and QEMU's arguments for it.

The device sits on a filter, the filter on the NBD client. So the client underneath can be changed for one with a fresh
certificate, or another address, without the guest noticing. Both ends of a move name the same device at the same slot.
"""

import json
from pathlib import Path
from typing import Any

from agent.wire import AttachedDisk

ATTACHED_TLS = "tls-disk"
"""In a guest's folder: key and certificate for its attached disk."""
FILTER, DEVICE, GROUP = "a0", "vd1", "tg-attached"
EXPORT = "disk"
TLS_PRIORITY = "NORMAL:-AES-256-GCM:-AES-128-GCM:-AES-128-CCM"
"""As moves have it: GnuTLS's AES-GCM makes QEMU crash after 16 M records."""
_SLOT = "0x10"
_RECONNECT_SECONDS = 60
"""How long a request waits for a lost connection before the guest is told of an error."""
_OPEN_SECONDS = 5


def client_name(number: int) -> str:
    """Of the NBD client underneath: each is made once, and the next takes its place."""
    return f"remote-{number}"


def tls_name(number: int) -> str:
    return f"tls-remote-{number}"


def tls_options(number: int) -> dict[str, Any]:
    return {
        "qom-type": "tls-creds-x509",
        "id": tls_name(number),
        "dir": f"../{ATTACHED_TLS}",
        "endpoint": "client",
        "verify-peer": True,
        "priority": TLS_PRIORITY,
    }


def client_options(disk: AttachedDisk, number: int) -> dict[str, Any]:
    return {
        "driver": "nbd",
        "node-name": client_name(number),
        "server": {"type": "inet", "host": disk.host, "port": str(disk.port)},
        "export": EXPORT,
        "tls-creds": tls_name(number),
        "tls-hostname": disk.node,
        "reconnect-delay": _RECONNECT_SECONDS,
        "open-timeout": _OPEN_SECONDS,
    }


def filter_options(number: int) -> dict[str, Any]:
    """A throttle without limits: the disk's own node keeps those."""
    return {"driver": "throttle", "node-name": FILTER, "throttle-group": GROUP, "file": client_name(number)}


def group_options() -> dict[str, Any]:
    return {"qom-type": "throttle-group", "id": GROUP}


def device_options() -> dict[str, Any]:
    return {"driver": "virtio-blk-pci", "drive": FILTER, "id": DEVICE, "addr": _SLOT}


def disk_arguments(disk: AttachedDisk) -> list[str]:
    """For a guest that starts with the disk attached."""
    return [
        *("-object", json.dumps(tls_options(0))),
        *("-object", json.dumps(group_options())),
        *("-blockdev", json.dumps(client_options(disk, 0))),
        *("-blockdev", json.dumps(filter_options(0))),
        *("-device", json.dumps(device_options())),
    ]


def written_at(tls: Path) -> int:
    """When the node's certificate was last written, in ns."""
    return (tls / "node.pem").stat().st_mtime_ns

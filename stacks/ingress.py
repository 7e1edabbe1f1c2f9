"""What may reach a node from outside: the agent, which asks for a client certificate; moves and disks between agents.

Administration ports (22, 3389) are closed; the policy pack refuses an update that opens them to the internet.
"""

from typing import NamedTuple


class Ingress(NamedTuple):
    first_port: int
    last_port: int
    protocol: str
    source: str
    why: str


# Agents take any free port for the memory and the disk of a move, and for a disk that they lend: Linux's range of such.
NODE_INGRESS = (
    Ingress(7443, 7443, "tcp", "0.0.0.0/0", "agent API over mutual TLS"),
    Ingress(32768, 60999, "tcp", "0.0.0.0/0", "moves and attached disks between agents over mutual TLS"),
    Ingress(51820, 51820, "udp", "0.0.0.0/0", "the overlay between nodes, over WireGuard"),
)

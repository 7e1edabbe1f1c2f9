"""What a gateway is given to join with: the configuration file of ``python -m agent.gateway``."""

from pydantic import SecretStr

from agent.config import AgentFile
from engine.model.capacity import Resources
from engine.model.ids import NodeId


def render_gateway(
    name: NodeId, join_token: SecretStr, *, control_url: str, control_ca_pem: str, underlay_mtu: int
) -> str:
    """A secret: the join token is in it, in clear. To be kept in a file that only its owner reads."""
    config = AgentFile(
        control_url=control_url,
        node=name,
        join_token=join_token,
        control_ca_pem=control_ca_pem,
        capacity=Resources(vcpus=0, memory_gib=0),
        underlay_mtu=underlay_mtu,
    )
    return config.as_text()

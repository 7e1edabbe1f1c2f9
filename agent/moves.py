"""A node's halves of a live move. The controller decides; these act, and each may be repeated.

Source:       mirror -> precopy -> switchover (guest pauses, mirror ends, rest goes) -> proceed -> (then released)
Destination:  reserve -> prepare -> (patch ->) commit, or restart where the memory never comes

Either side:  resume (run on here, the store says so) | abort (kill what the move left here)

Everything after ``switchover`` carries a new epoch, whether the move was committed or given up: the store has raised it
by then, so nothing of the old one is obeyed, however late it comes. What is allowed at all is in agent.fences.
"""

from agent.config import AgentConfig
from agent.move_destination import MoveDestination
from agent.move_source import MoveSource
from agent.shards import ShardHost


class MoveAgent:
    """The move half of the agent's API: this node as the one that a shard leaves, and as the one that it comes to."""

    def __init__(self, host: ShardHost, config: AgentConfig) -> None:
        self.source = MoveSource(host, config)
        self.destination = MoveDestination(host, config)

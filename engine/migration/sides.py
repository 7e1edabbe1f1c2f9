"""What every part of one move works with: its two agents, whom it tells how it stands, whether it is still wanted."""

from engine.errors import MoveCancelled
from engine.fleet.agent_client import AgentClient
from engine.migration.base import MoveContext
from engine.model.ids import ShardId
from engine.model.move import MovePhase, MoveProgress, MoveRequest


class Sides:
    """The two ends of a move, seen from the control plane."""

    def __init__(self, context: MoveContext, request: MoveRequest) -> None:
        self._context, self._request = context, request

    @property
    def _shard(self) -> ShardId:
        return self._request.shard

    @property
    def _source(self) -> AgentClient:
        return self._context.agents(self._request.source)

    @property
    def _destination(self) -> AgentClient:
        return self._context.agents(self._request.destination)

    def _enter(self, phase: MovePhase) -> None:
        self._context.observer(self._request.id, phase)
        self._context.progress(MoveProgress(request=self._request, phase=phase, at=self._context.clock.now()))

    def _tell(self, phase: MovePhase, *, strategy: str, bytes_left: int, bytes_per_second: float) -> None:
        """How much is left to copy, for whoever watches."""
        self._context.progress(
            MoveProgress(
                request=self._request,
                phase=phase,
                at=self._context.clock.now(),
                strategy=strategy,
                bytes_left=bytes_left,
                bytes_per_second=bytes_per_second,
            )
        )

    def _require_wanted(self) -> None:
        """Before the commit point, between two acts. Raises MoveCancelled."""
        if self._context.cancelled(self._request.id):
            raise MoveCancelled(f"move {self._request.id} was cancelled")

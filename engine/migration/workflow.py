"""A move as a DBOS workflow: recorded step by step; a control plane that dies in it finishes it when it is back.

DBOS wants workflows registered at import, so they are module-level functions; what they work with is handed in once:

    configure(MoveContext(agents=…, shards=…, clock=…))      # before DBOS.launch(), which resumes interrupted moves
    report = DurableMover().move(request)                    # workflow id = move id

Inputs and outputs are JSON texts of our own values: what is recorded can be read by any later version.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from dbos import DBOS, SetWorkflowID, WorkflowHandle

from agent.wire import Landing
from engine.errors import MoveFailed, ShardwrightError
from engine.migration.base import MoveContext, MovePlan, Transfer
from engine.migration.qemu import QemuMove
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveReport, MoveRequest

T = TypeVar("T")
_contexts: list[MoveContext] = []


def configure(context: MoveContext) -> None:
    """Set what every move of this process works with. The last call counts."""
    _contexts[:] = [context]


class DurableMover:
    """The Mover of a running control plane; DBOS must be launched."""

    def move(self, request: MoveRequest) -> MoveReport:
        """Blocks until the move has ended."""
        return self.result(self.start(request))

    def start(self, request: MoveRequest) -> WorkflowHandle[str]:
        """Begin, or find the move of that id."""
        with SetWorkflowID(request.id):
            return DBOS.start_workflow(move_shard, request.model_dump_json())

    def find(self, move: MoveId) -> WorkflowHandle[str]:
        return DBOS.retrieve_workflow(move)

    def result(self, handle: WorkflowHandle[str]) -> MoveReport:
        return MoveReport.model_validate_json(handle.get_result())


@DBOS.workflow(name="shardwright.move")
def move_shard(request_json: str) -> str:
    """MoveRequest in, MoveReport out, both as JSON. Every failure that is ours ends in a report."""
    request = MoveRequest.model_validate_json(request_json)
    plan: MovePlan | None = None
    landing: Landing | None = None
    try:
        plan = MovePlan.model_validate_json(_begin(request_json))
        planned = plan.model_dump_json()
        _reserve(planned)
        landing = Landing.model_validate_json(_prepare(planned))
        landed = landing.model_dump_json()
        _mirror(planned, landed)
        transfer = Transfer.model_validate_json(_transfer(planned, landed))
    except ShardwrightError as problem:
        epoch = plan.epoch if plan else 0
        transfer = Transfer(phase=MovePhase.ROLLING_BACK, epoch_after=epoch, error=str(problem))
    if plan is None:
        return _report(request, None, transfer.model_copy(update={"phase": MovePhase.ABORTED}), _now())
    ended = Transfer.model_validate_json(_end(plan.model_dump_json(), transfer.model_dump_json()))
    return _report(request, plan, ended, _now())


@DBOS.step(name="begin")
def _begin(request_json: str) -> str:
    request = MoveRequest.model_validate_json(request_json)
    return _ours(lambda: QemuMove(_context(), request).begin()).model_dump_json()


@DBOS.step(name="reserve")
def _reserve(planned: str) -> None:
    plan = MovePlan.model_validate_json(planned)
    _ours(lambda: QemuMove(_context(), plan.request).reserve(plan))


@DBOS.step(name="prepare")
def _prepare(planned: str) -> str:
    plan = MovePlan.model_validate_json(planned)
    return _ours(lambda: QemuMove(_context(), plan.request).prepare(plan)).model_dump_json()


@DBOS.step(name="mirror")
def _mirror(planned: str, landed: str) -> None:
    plan, landing = MovePlan.model_validate_json(planned), Landing.model_validate_json(landed)
    _ours(lambda: QemuMove(_context(), plan.request).mirror(plan, landing))


@DBOS.step(name="transfer")
def _transfer(planned: str, landed: str) -> str:
    # One step for pre-copy and switchover: a record written between them would be downtime.
    plan, landing = MovePlan.model_validate_json(planned), Landing.model_validate_json(landed)
    return _ours(lambda: QemuMove(_context(), plan.request).transfer(plan, landing)).model_dump_json()


@DBOS.step(name="end")
def _end(planned: str, transferred: str) -> str:
    """Clean the losing side; a side that cannot be reached is named in the error and left to the next sweep."""
    plan, transfer = MovePlan.model_validate_json(planned), Transfer.model_validate_json(transferred)
    move = QemuMove(_context(), plan.request)
    try:
        if transfer.phase is MovePhase.ROLLING_BACK:
            move.roll_back(plan)
        else:
            move.clean(plan, transfer)
    except ShardwrightError as problem:
        error = "; ".join(part for part in (transfer.error, str(problem)) if part)
        transfer = transfer.model_copy(update={"error": error})
    else:
        if transfer.phase is MovePhase.COMMITTED:
            transfer = transfer.model_copy(update={"phase": MovePhase.CLEANED})
    if transfer.phase is MovePhase.ROLLING_BACK:
        transfer = transfer.model_copy(update={"phase": MovePhase.ABORTED})
    return transfer.model_dump_json()


@DBOS.step(name="now")
def _now() -> str:
    return _context().clock.now().isoformat()


def _report(request: MoveRequest, plan: MovePlan | None, transfer: Transfer, finished: str) -> str:
    fields = transfer.model_dump(exclude={"epoch_after"}) | {
        "epoch_before": plan.epoch if plan else transfer.epoch_after,
        "epoch_after": transfer.epoch_after,
    }
    at = datetime.fromisoformat(finished)
    return MoveReport(
        request=request, started_at=plan.started_at if plan else at, finished_at=at, **fields
    ).model_dump_json()


def _ours(step: Callable[[], T]) -> T:
    """Any failure of a step, the store's too, as an error that the workflow knows how to roll back from."""
    try:
        return step()
    except ShardwrightError:
        raise
    except Exception as problem:
        raise MoveFailed("a step of the move failed", why=f"{type(problem).__name__}: {problem}") from problem


def _context() -> MoveContext:
    if not _contexts:
        raise MoveFailed("moves are not configured", next_step="call engine.migration.workflow.configure at start-up")
    return _contexts[0]

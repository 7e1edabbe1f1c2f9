"""A move as a DBOS workflow: recorded step by step; a control plane that dies in it finishes it when it is back.

DBOS wants workflows registered at import, so they are module-level functions; what they work with is handed in once:

    configure(MoveContext(agents=…, shards=…, clock=…))      # before DBOS.launch(), which resumes interrupted moves
    report = DurableMover().move(request)                    # workflow id = move id

Inputs and outputs are JSON texts of our own values: what is recorded can be read by any later version.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from dbos import DBOS, SetWorkflowID, WorkflowHandle, WorkflowStatus

from agent.wire import Landing
from engine.durable import UNFINISHED, WORKFLOW_VERSION, goes_on
from engine.errors import MoveFailed, ShardwrightError
from engine.migration.abandoned import Carried
from engine.migration.base import MoveContext, MoveInDoubt, MovePlan, Transfer
from engine.migration.decisions import LEADS_TO, Step, next_step
from engine.migration.qemu import QemuMove
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveReport, MoveRequest

NAME, _BEGIN = "shardwright.move", "begin"
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

    def report(self, move: MoveId) -> MoveReport:
        """Of a move that has ended."""
        return self.result(self.find(move))

    def carried(self, move: MoveId) -> Carried:
        """How far its workflow has come. What an older version has begun goes on no more."""
        status = DBOS.get_workflow_status(move)
        if status is None:
            return Carried.NEVER_BEGUN
        if status.status == "SUCCESS":
            return Carried.ENDED
        return Carried.GOES_ON if goes_on(move) else Carried.BROKE_OFF

    def looked(self, request: MoveRequest) -> MoveInDoubt | None:
        """What a move found when it began, as far as it takes to settle it; None: it has done nothing yet."""
        for step in DBOS.list_workflow_steps(request.id):
            if step["function_name"] == _BEGIN and step["output"] is not None:
                plan = json.loads(step["output"])  # not as a MovePlan: an older version may have written it
                began = datetime.fromisoformat(plan["started_at"])
                return MoveInDoubt(request=request, epoch=plan["epoch"], started_at=began)
        return None

    def under_way(self) -> tuple[MoveRequest, ...]:
        """Begun and not ended, whoever began them; what an older version has left is carried out by nobody."""
        found = DBOS.list_workflows(name=NAME, status=list(UNFINISHED), app_version=WORKFLOW_VERSION, load_output=False)
        return tuple(_request_of(one) for one in found)

    def result(self, handle: WorkflowHandle[str]) -> MoveReport:
        return MoveReport.model_validate_json(handle.get_result())


def _request_of(workflow: WorkflowStatus) -> MoveRequest:
    assert workflow.input is not None
    return MoveRequest.model_validate_json(workflow.input["args"][0])


@DBOS.workflow(name=NAME)
def move_shard(request_json: str) -> str:
    """MoveRequest in, MoveReport out, both as JSON. Every failure that is ours ends in a report.

    Only carries out what engine.migration.decisions says; after a crash it goes on behind the last recorded step.
    """
    request = MoveRequest.model_validate_json(request_json)
    try:
        plan = MovePlan.model_validate_json(_begin(request_json))
    except ShardwrightError as problem:
        return _report(request, None, Transfer(phase=MovePhase.ABORTED, epoch_after=0, error=str(problem)), _now())
    landed = ""
    standing = Transfer(phase=MovePhase.REQUESTED, epoch_after=plan.epoch)
    tried: frozenset[Step] = frozenset()
    while (step := next_step(standing.phase, tried)) is not None:
        tried |= {step}
        standing, landed = _advance(step, plan.model_dump_json(), landed, standing)
    return _report(request, plan, standing, _now())


def _advance(step: Step, planned: str, landed: str, standing: Transfer) -> tuple[Transfer, str]:
    """Where the move stands after the step, and where the destination waits for it."""
    if step is Step.END:
        return Transfer.model_validate_json(_end(planned, standing.model_dump_json())), landed
    try:
        if step is Step.TRANSFER:
            return Transfer.model_validate_json(_transfer(planned, landed)), landed
        if step is Step.RESERVE:
            _reserve(planned)
        elif step is Step.PREPARE:
            landed = _prepare(planned)
        else:
            _mirror(planned, landed)
    except ShardwrightError as problem:
        return standing.model_copy(update={"phase": MovePhase.ROLLING_BACK, "error": str(problem)}), landed
    return standing.model_copy(update={"phase": LEADS_TO[standing.phase][0]}), landed


@DBOS.step(name=_BEGIN)
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
    """Clean the losing side; where that cannot be done now, the phase stays as it is and the sweep goes on."""
    plan, transfer = MovePlan.model_validate_json(planned), Transfer.model_validate_json(transferred)
    return QemuMove(_context(), plan.request).end(plan.epoch, transfer).model_dump_json()


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

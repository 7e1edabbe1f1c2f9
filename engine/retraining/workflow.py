"""A retraining as a DBOS workflow: take the usage, decide, train, compare, conclude.

Each step is recorded: a process that is killed anywhere goes on after its last recorded step, with the same training
set (by key) and the same network (by fingerprint), so nothing is trained or registered twice.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dbos import DBOS, SetWorkflowID, WorkflowHandle

from engine.durable import next_id
from engine.errors import BadUsageData, ShardwrightError
from engine.events import Event, Observe, unseen
from engine.metrics import observe_retraining
from engine.retraining.base import Candidate, RetrainingReport, RetrainingSteps, UsageTaken

P = ParamSpec("P")
R = TypeVar("R")

NAME = "retrain"
_served: list[tuple[RetrainingSteps, Observe]] = []


def serve(steps: RetrainingSteps, observe: Observe = unseen) -> None:
    """Say which steps the workflow uses; before DBOS is launched. The last call counts."""
    _served[:] = [(steps, observe)]


def start_retraining(key: str, *, asked: bool = False) -> WorkflowHandle[RetrainingReport]:
    """Begin, or find the retraining of that key; it runs in a thread of its own."""
    with SetWorkflowID(key):
        return DBOS.start_workflow(retrain, key, asked)


def next_key(name: str) -> str:
    return next_id(NAME, f"{name}-retrain-")


@DBOS.workflow(name=NAME)
def retrain(key: str, asked: bool) -> RetrainingReport:
    """The workflow id is the key. Raises BadUsageData where there is no usage to take."""
    steps, _ = _serving()
    try:
        report = _run(steps, key, asked=asked)
    except Exception as problem:
        _say(f"retraining {key} failed: {problem}")
        _step("leave", steps.leave, key)
        raise
    _step("leave", steps.leave, key)
    return report


def _run(steps: RetrainingSteps, key: str, *, asked: bool) -> RetrainingReport:
    taken = _step("take", steps.take, key)
    verdict = _step("decide", steps.decide, taken, asked)
    if verdict.cause is None:
        _say(f"not now: {verdict.why}")
        return RetrainingReport(key=key, verdict=verdict)
    _say(f"{verdict.cause}: {verdict.why}; {taken.series} series of {taken.metric}")
    record = _step("conclude", steps.conclude, taken, verdict, _candidate(steps, taken))
    observe_retraining(record)
    _say(f"version {record.version} is {'promoted' if record.promoted else 'not promoted'}: {record.outcome}")
    return RetrainingReport(key=key, verdict=verdict, record=record)


def _candidate(steps: RetrainingSteps, taken: UsageTaken) -> Candidate:
    """Usage that cannot be trained on is a result too: it is recorded, and not tried again at every round."""
    try:
        model = _step("train", steps.train, taken)
        return Candidate(model=model, comparison=_step("evaluate", steps.evaluate, taken, model))
    except BadUsageData as problem:
        return Candidate(model="", comparison=None, failure=str(problem))


def _step(name: str, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return DBOS.run_step({"name": name}, act, *args, **kwargs)


def _say(text: str) -> None:
    _, observe = _serving()
    observe(Event(step="retraining", text=text))


def _serving() -> tuple[RetrainingSteps, Observe]:
    if not _served:
        raise ShardwrightError("retrainings are not configured in this process", why="serve() was not called")
    return _served[0]

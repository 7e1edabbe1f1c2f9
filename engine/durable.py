"""Durable workflows: DBOS on the control store's own database server, started once per process.

Recovery takes up workflows of the same application version only; the version is the store's schema generation, so an
edit of the source does not orphan a round that was under way, and a change of the workflows' steps must raise it.
"""

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from dbos import DBOS, DBOSConfig, WorkflowStatus, error

WORKFLOW_VERSION = "6"
"""Raise when the order or meaning of a workflow's recorded steps changes."""


def workflow_database_url(state_directory: Path, database_url: str) -> str:
    """SQLite keeps workflows in a file of their own; on PostgreSQL they share the server."""
    if database_url.startswith("sqlite"):
        return f"sqlite:///{(state_directory / 'workflows.sqlite').resolve()}"
    return database_url


UNFINISHED = ("PENDING", "ENQUEUED")
_ENDED_BADLY = ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
MAY_HAVE_BROKEN_OFF = (*UNFINISHED, *_ENDED_BADLY)
_ENDED = ("SUCCESS", "CANCELLED", *_ENDED_BADLY)
_AT_ONCE = 10
"""Workflows that one transaction deletes: a round's steps are megabytes, and SQLite lets nobody write meanwhile."""


@contextmanager
def durable_workflows(name: str, url: str) -> Iterator[None]:
    """Launch: workflows that a killed process left behind go on at once, in background threads.

    Every workflow must be registered (its module imported) and served before this is entered.
    """
    os.environ.setdefault("DBOS__APPVERSION", WORKFLOW_VERSION)
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
    config: DBOSConfig = {
        "name": f"shardwright-{name}",
        "system_database_url": url,
        "application_version": WORKFLOW_VERSION,
        "executor_id": "control",
        "log_level": "CRITICAL",
        "notification_listener_polling_interval_sec": 0.1,
        "enable_otlp": False,
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=2)


def unfinished(kind: str) -> list[str]:
    """Ids, oldest first. Those of another version of the workflows never go on, so nobody waits for them."""
    found = DBOS.list_workflows(
        name=kind,
        status=list(UNFINISHED),
        app_version=WORKFLOW_VERSION,
        load_input=False,
        load_output=False,
    )
    return [one.workflow_id for one in sorted(found, key=lambda one: one.created_at or 0)]


def broke_off(status: WorkflowStatus) -> bool:
    """Whether it ended in an error, or an older version has begun it and not ended it: nobody carries it out any more.

    One that was cancelled did not break off: nothing here cancels workflows, so an operator has, and means it.
    """
    left_behind = status.status in UNFINISHED and status.app_version != WORKFLOW_VERSION
    return left_behind or status.status in _ENDED_BADLY


def why(problem: BaseException) -> str:
    """What broke a workflow off; where one step was tried several times, what it met at last."""
    if isinstance(problem, error.DBOSMaxStepRetriesExceeded) and problem.errors:
        return f"{problem.step_name}: {problem.errors[-1]}"
    return str(problem)


def goes_on(workflow_id: str) -> bool:
    """Whether somebody carries it out: begun, not ended, and of this version."""
    status = DBOS.get_workflow_status(workflow_id)
    return status is not None and status.status in UNFINISHED and status.app_version == WORKFLOW_VERSION


def next_id(kind: str, prefix: str) -> str:
    """``prefix`` and one more than the newest has: they cannot be counted, since old ones are forgotten."""
    found = DBOS.list_workflows(
        name=kind, workflow_id_prefix=prefix, limit=1, sort_desc=True, load_input=False, load_output=False
    )
    numbers = [one.workflow_id.removeprefix(prefix) for one in found]
    number = max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
    while DBOS.get_workflow_status(f"{prefix}{number}") is not None:  # the host's clock was set back
        number += 1
    return f"{prefix}{number}"


def ended(kind: str, *, before: datetime, most: int) -> list[WorkflowStatus]:
    """Those that ended earlier, however they did, in the order in which they were begun; without their outputs."""
    return DBOS.list_workflows(
        name=kind, status=list(_ENDED), completed_before=before.isoformat(), limit=most, load_output=False
    )


def forget_ended(kind: str, *, before: datetime, most: int, but: Collection[str] = ()) -> int:
    """Delete those that ended earlier, with their steps; how many.

    Besides ``but`` the newest stays, from which the next id is told, and what was begun by a workflow that has not
    ended: that one asks for its outcome again when it goes on.
    """
    newest = DBOS.list_workflows(name=kind, limit=1, sort_desc=True, load_input=False, load_output=False)
    going_on = DBOS.list_workflows(status=list(UNFINISHED), load_input=False, load_output=False)
    parents = {one.workflow_id for one in going_on}
    kept = {*but, *(one.workflow_id for one in newest)}
    return forget(
        [
            one.workflow_id
            for one in ended(kind, before=before, most=most)
            if one.workflow_id not in kept and one.parent_workflow_id not in parents
        ]
    )


def forget(workflows: Collection[str]) -> int:
    ids = list(workflows)
    for first in range(0, len(ids), _AT_ONCE):
        DBOS.delete_workflows(ids[first : first + _AT_ONCE])
    return len(ids)

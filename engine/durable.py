"""Durable workflows: DBOS on the control store's own database server, started once per process.

Recovery takes up workflows of the same application version only; the version is the store's schema generation, so an
edit of the source does not orphan a round that was under way, and a change of the workflows' steps must raise it.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dbos import DBOS, DBOSConfig

WORKFLOW_VERSION = "4"
"""Raise when the order or meaning of a workflow's recorded steps changes."""


def workflow_database_url(state_directory: Path, database_url: str) -> str:
    """SQLite keeps workflows in a file of their own; on PostgreSQL they share the server."""
    if database_url.startswith("sqlite"):
        return f"sqlite:///{(state_directory / 'workflows.sqlite').resolve()}"
    return database_url


UNFINISHED = ("PENDING", "ENQUEUED")


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

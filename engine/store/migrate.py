"""Bring a control store to this version's schema. Costs one query when it is there already."""

from pathlib import Path

from sqlalchemy import inspect, text

from engine.errors import ShardwrightError
from engine.store.database import Database

HEAD = "0011"
"""The newest revision in ``migrations/versions``."""

_MIGRATION_LOCK = 0x5348_5744
_SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> bool:
    """True when something was changed. Raises ShardwrightError on a store that a newer version has written.

    Several processes may start at once: whoever comes second finds the work done.
    """
    current = revision(database)
    if current == HEAD:
        return False
    from alembic import command  # slow to import, and needed once per version only
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    try:
        with database.transaction() as connection:
            if database.engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise ShardwrightError(
            f"the control store is at schema {current}, this version knows {HEAD}",
            why=str(error),
            next_step="use the version of shardwright that wrote it, or a newer one",
        ) from error
    return True


def revision(database: Database) -> str | None:
    """None for an empty store."""
    with database.engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

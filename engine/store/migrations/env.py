"""Alembic's entry: runs the migrations on the connection that ``engine.store.migrate`` hands over."""

from alembic import context

from engine.store import all_tables  # noqa: F401 - registers every table
from engine.store.database import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()

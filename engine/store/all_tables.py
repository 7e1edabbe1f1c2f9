"""Importing this registers every table on ``engine.store.database.metadata``."""

from engine.store import (
    attachments,
    attested_instances,
    holds,
    join_tokens,
    ledger,
    market_memory,
    moves,
    orders,
    overlay_tables,
    plans,
    provider_keys,
    round_records,
    run_leases,
    shard_health,
    shard_tables,
)

MODULES = (
    attachments,
    attested_instances,
    holds,
    join_tokens,
    ledger,
    market_memory,
    moves,
    orders,
    overlay_tables,
    plans,
    provider_keys,
    round_records,
    run_leases,
    shard_health,
    shard_tables,
)

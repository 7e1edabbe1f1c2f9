"""Importing this registers every table on ``engine.store.database.metadata``."""

from engine.store import (
    attested_instances,
    holds,
    join_tokens,
    ledger,
    market_memory,
    moves,
    overlay_tables,
    plans,
    provider_keys,
    round_records,
    run_leases,
    shard_tables,
)

MODULES = (
    attested_instances,
    holds,
    join_tokens,
    ledger,
    market_memory,
    moves,
    overlay_tables,
    plans,
    provider_keys,
    round_records,
    run_leases,
    shard_tables,
)

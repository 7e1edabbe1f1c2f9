"""Importing this registers every table on ``engine.store.database.metadata``."""

from engine.store import (
    holds,
    join_tokens,
    ledger,
    market_memory,
    moves,
    plans,
    provider_keys,
    round_records,
    shard_tables,
)

MODULES = (holds, join_tokens, ledger, market_memory, moves, plans, provider_keys, round_records, shard_tables)

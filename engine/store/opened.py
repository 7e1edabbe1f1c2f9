"""The control store, opened: one database, brought to this version's schema, and what is kept in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.clock import Clock
from engine.store.attachments import Attachments
from engine.store.database import Database
from engine.store.ledger import SqlLedger
from engine.store.market_memory import MarketMemory
from engine.store.migrate import upgrade
from engine.store.moves import MoveHistory
from engine.store.orders import Orders
from engine.store.overlay_map import OverlayMap
from engine.store.plans import PlanStore
from engine.store.provider_keys import ProviderKeys
from engine.store.round_records import RoundRecords
from engine.store.shard_health import HealthBook
from engine.store.shard_map import ShardMap


@dataclass(frozen=True)
class Store:
    database: Database
    shard_map: ShardMap
    plans: PlanStore
    records: RoundRecords
    moves: MoveHistory
    orders: Orders
    ledger: SqlLedger
    market: MarketMemory
    provider_keys: ProviderKeys
    health: HealthBook
    attachments: Attachments
    overlay: OverlayMap


@contextmanager
def opened_store(url: str, clock: Clock) -> Iterator[Store]:
    """Creates or upgrades the schema where needed."""
    database = Database(url)
    try:
        upgrade(database)
        yield Store(
            database=database,
            shard_map=ShardMap(database, clock),
            plans=PlanStore(database),
            records=RoundRecords(database),
            moves=MoveHistory(database),
            orders=Orders(database),
            ledger=SqlLedger(database),
            market=MarketMemory(database),
            provider_keys=ProviderKeys(database, clock),
            health=HealthBook(database, clock),
            attachments=Attachments(database),
            overlay=OverlayMap(database),
        )
    finally:
        database.dispose()

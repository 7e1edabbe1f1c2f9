from datetime import UTC, datetime
from decimal import Decimal

import pytest

from engine.clock import ManualClock
from providers.sandbox.gcp.catalog import MACHINE_TYPES, MachineType, all_skus, change_price, post_prices, skus_of
from providers.sandbox.prices import PriceBoard

REGIONS = ("us-central1", "europe-west1")


@pytest.fixture
def board() -> PriceBoard:
    made = PriceBoard(ManualClock(datetime(2026, 11, 23, tzinfo=UTC)))
    post_prices(made, REGIONS, 1)
    return made


def price(board: PriceBoard, machine_type: MachineType, *, spot: bool) -> Decimal:
    skus = skus_of("us-central1", machine_type, spot=spot)
    return sum((board.now(sku.key) * sku.units(machine_type) for sku in skus), Decimal(0))


def test_every_sku_has_a_price_and_an_id_of_its_own(board: PriceBoard) -> None:
    skus = all_skus(REGIONS)
    assert len({sku.sku_id for sku in skus}) == len(skus) == 24
    assert all(board.now(sku.key) > 0 for sku in skus)


@pytest.mark.parametrize("spot", [False, True])
def test_a_changed_price_moves_the_whole_family(board: PriceBoard, spot: bool) -> None:
    wanted, neighbour = MACHINE_TYPES["n2-highmem-4"], MACHINE_TYPES["n2-highcpu-2"]
    before = price(board, neighbour, spot=spot)
    target = price(board, wanted, spot=spot) + Decimal("0.0137")
    change_price(board, "us-central1", wanted, spot=spot, price=target)
    assert price(board, wanted, spot=spot) == target
    assert price(board, neighbour, spot=spot) > before


def test_shared_core_types_cost_part_of_their_cores(board: PriceBoard) -> None:
    assert MACHINE_TYPES["e2-medium"].shared_core
    assert price(board, MACHINE_TYPES["e2-medium"], spot=False) == Decimal("0.02181159") + 4 * Decimal("0.00292353")

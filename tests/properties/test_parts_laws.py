"""Laws of dividing a need, on random markets."""

from decimal import Decimal
from itertools import product

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.model.capacity import Resources, ShardType
from engine.model.ids import PoolId
from engine.model.market import Quote
from engine.planner.inventory import Inventory
from engine.planner.parts import cheapest_cover, divide
from engine.planner.policy import PlanPolicy
from tests.unit.engine.planner.cases import CELLS, NOW, certain, offer, pool, quote

WEB = PoolId("web")
units = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 6))
sizes = st.tuples(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4, 8, 32]), st.integers(1, 99))
fast = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@fast
@given(st.lists(units, max_size=4), st.integers(0, 9))
def test_a_cover_is_the_cheapest_of_all_choices(supply: list[tuple[int, int, int]], wanted: int) -> None:
    choices = product(*(range(number + 1) for _, _, number in supply))
    prices = [
        sum(taken * price for taken, (_, price, _) in zip(choice, supply, strict=True))
        for choice in choices
        if sum(taken * slots for taken, (slots, _, _) in zip(choice, supply, strict=True)) >= wanted
    ]
    found = cheapest_cover([(slots, Decimal(price), number) for slots, price, number in supply], wanted)
    assert found == (Decimal(min(prices)) if prices else None)


def market(offers: list[tuple[int, int, int]]) -> list[Quote]:
    return [
        quote(
            offer(
                f"o{number}", str(Decimal(cents) / 100), cell=CELLS[number % len(CELLS)], vcpus=vcpus, memory=memory,
                instance_type=f"t{number}",
            )
        )
        for number, (vcpus, memory, cents) in enumerate(offers)
    ]  # fmt: skip


@fast
@given(st.lists(sizes, min_size=1, max_size=6), st.integers(1, 4), st.sampled_from([2, 6, 12]), st.integers(1, 6))
def test_parts_hold_the_need_and_are_never_dearer_than_what_holds_it_whole(
    offers: list[tuple[int, int, int]], shards: int, vcpus: int, most: int
) -> None:
    kind = ShardType(name="cpu.any", resources=Resources(vcpus=vcpus, memory_gib=vcpus / 2))
    target = certain(pool("web", kind), shards)
    quotes = market(offers)

    def price(parts: int) -> Decimal | None:
        slots = ((one.offer.resources.holds(kind.part(parts).resources), one) for one in quotes)
        return cheapest_cover([(n, one.unit_price.amount, one.quantity) for n, one in slots], shards * parts)

    found = divide(PlanPolicy(), [target], quotes, Inventory(), {WEB: most}, cells=CELLS, now=NOW)
    parts, (made,) = found.of(WEB), found.targets
    part = made.pool.shard_type.resources
    assert 1 <= parts <= most
    assert made.desired == shards * parts
    assert part.vcpus * made.desired >= vcpus * shards * (1 - 1e-9)
    assert part.memory_gib * made.desired >= kind.resources.memory_gib * shards
    entire, chosen = price(1), price(parts)
    if entire is not None:
        assert chosen is not None
        assert chosen <= entire
        assert parts == 1 or chosen < entire
    assert all(chosen <= other for n in range(1, most + 1) if chosen is not None and (other := price(n)) is not None)

"""Cost by provider and workload. Pure; sums are exact: every charge is split over the lines without a remainder."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal

from engine.model.billing import Charge, ChargeCategory
from engine.model.ids import NodeId
from engine.model.money import Money
from engine.model.value import Value

NODE_TAG = "shardwright-node"
UNALLOCATED = "(not allocated)"
ROUNDING = "(rounding)"
_QUANTUM = Decimal("1e-12")

Shares = Mapping[NodeId, Sequence[tuple[str, int]]]
"""Node -> (``namespace/workload``, how many of the node's shards serve it)."""


class CostLine(Value):
    provider: str
    workload: str
    """``namespace/workload``; "(not allocated)": capacity that serves no workload; "(rounding)": invoice cents."""
    billed: Money
    effective: Money
    list_cost: Money
    rows: int
    """Charges that are wholly or partly in this line."""


class CostReport(Value):
    lines: tuple[CostLine, ...]
    currency: str

    @property
    def total(self) -> Money:
        return Money.total((line.billed for line in self.lines), self.currency)

    def total_of(self, provider: str) -> Money:
        return Money.total((line.billed for line in self.lines if line.provider == provider), self.currency)


def cost_report(charges: Iterable[Charge], shares: Shares, *, currency: str = "USD") -> CostReport:
    """Lines by provider, then by falling cost. A node's charge is split over its workloads by their shards."""
    sums: dict[tuple[str, str], tuple[Decimal, ...]] = defaultdict(lambda: (Decimal(0), Decimal(0), Decimal(0)))
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for charge in charges:
        if charge.billing_currency != currency:
            raise ValueError(f"a charge in {charge.billing_currency} cannot go into a report in {currency}")
        weights = _weights(charge, shares)
        costs = [split(cost, [w for _, w in weights]) for cost in _costs(charge)]
        for position, (workload, _) in enumerate(weights):
            key = (charge.provider_name, workload)
            sums[key] = tuple(known + parts[position] for known, parts in zip(sums[key], costs, strict=True))
            counts[key] += 1
    lines = [
        CostLine(
            provider=provider,
            workload=workload,
            billed=Money(amount=costs[0], currency=currency),
            effective=Money(amount=costs[1], currency=currency),
            list_cost=Money(amount=costs[2], currency=currency),
            rows=counts[provider, workload],
        )
        for (provider, workload), costs in sums.items()
    ]
    lines.sort(key=lambda line: (line.provider, -line.billed.amount, line.workload))
    return CostReport(lines=tuple(lines), currency=currency)


def split(amount: Decimal, weights: Sequence[int]) -> list[Decimal]:
    """Parts in proportion to the weights that sum to the amount exactly; what does not divide goes to the first."""
    whole = sum(weights)
    parts = [(amount * weight / whole).quantize(_QUANTUM, rounding=ROUND_DOWN) for weight in weights]
    parts[0] += amount - sum(parts)
    return parts


def _costs(charge: Charge) -> tuple[Decimal, Decimal, Decimal]:
    return charge.billed_cost, charge.effective_cost, charge.list_cost


def _weights(charge: Charge, shares: Shares) -> Sequence[tuple[str, int]]:
    if charge.charge_category is ChargeCategory.ADJUSTMENT:
        return ((ROUNDING, 1),)
    node = dict(charge.tags).get(NODE_TAG, "")
    return shares.get(NodeId(node)) or ((UNALLOCATED, 1),)

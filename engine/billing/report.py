"""Cost by provider, currency and workload. Pure, and exact: every sum is split over the lines without a remainder."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal, localcontext

from engine.billing.sums import DIGITS
from engine.model.billing import ChargeSum
from engine.model.ids import NodeId
from engine.model.money import Money
from engine.model.value import Value

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

    @property
    def totals(self) -> tuple[Money, ...]:
        """One per currency: nothing is converted."""
        return Money.totals(line.billed for line in self.lines)

    @property
    def by_provider(self) -> tuple[tuple[str, Money], ...]:
        """What each provider's lines come to, one sum per currency."""
        of: dict[str, list[Money]] = defaultdict(list)
        for line in self.lines:
            of[line.provider].append(line.billed)
        return tuple((provider, total) for provider, billed in of.items() for total in Money.totals(billed))


def cost_report(sums: Iterable[ChargeSum], shares: Shares) -> CostReport:
    """By provider and currency, then by falling cost. A node's cost is split over its workloads by their shards."""
    costs: dict[tuple[str, str, str], tuple[Decimal, ...]] = defaultdict(lambda: (Decimal(0), Decimal(0), Decimal(0)))
    rows: dict[tuple[str, str, str], int] = defaultdict(int)
    for one in sums:
        weights = _weights(one, shares)
        parts = [split(cost, [w for _, w in weights]) for cost in (one.billed, one.effective, one.list_cost)]
        for position, (workload, _) in enumerate(weights):
            key = (one.provider_name, one.currency, workload)
            with localcontext(prec=DIGITS):
                costs[key] = tuple(known + part[position] for known, part in zip(costs[key], parts, strict=True))
            rows[key] += one.rows
    lines = [_line(*key, costs[key], number) for key, number in rows.items()]
    lines.sort(key=lambda line: (line.provider, line.billed.currency, -line.billed.amount, line.workload))
    return CostReport(lines=tuple(lines))


def _line(provider: str, currency: str, workload: str, costs: tuple[Decimal, ...], rows: int) -> CostLine:
    billed, effective, list_cost = (Money(amount=cost, currency=currency) for cost in costs)
    return CostLine(
        provider=provider, workload=workload, billed=billed, effective=effective, list_cost=list_cost, rows=rows
    )


def split(amount: Decimal, weights: Sequence[int]) -> list[Decimal]:
    """Parts in proportion to the weights that sum to the amount exactly; what does not divide goes to the first."""
    whole = sum(weights)
    with localcontext(prec=DIGITS):
        parts = [(amount * weight / whole).quantize(_QUANTUM, rounding=ROUND_DOWN) for weight in weights]
        parts[0] += amount - sum(parts)
    return parts


def _weights(one: ChargeSum, shares: Shares) -> Sequence[tuple[str, int]]:
    if one.adjustment:
        return ((ROUNDING, 1),)
    return shares.get(NodeId(one.node)) or ((UNALLOCATED, 1),)

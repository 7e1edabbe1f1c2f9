"""The comparison with quantile sizing is at equal risk."""

from dataclasses import replace

from benchmarks.lab_policy import LEVELS, Quantiles, Row, against_quantiles, at_level, cheaper, quantiles_on_demand
from tests.unit.lab.cases import case_of, document, offer, pool
from tests.unit.lab.generated import generated

ROW = Row(
    case="s1-business-vms",
    cost=25.0,
    cost_to_bound=1.0,
    sizing=0.0,
    market=0.0,
    shortfall=0.0,
    shortfall_by_class={},
    keeps_risk=True,
    unanswered=0,
    init_seconds=0.0,
    decision_p50_ms=0.0,
    decision_p95_ms=0.0,
    quantiles=Quantiles(hosted=100.0, fair=50.0, level=0.9),
)


def test_the_level_is_the_lowest_that_keeps_the_risk() -> None:
    case = generated(steps=24)
    found = quantiles_on_demand(case)
    assert found is not None
    level = round(found.level * LEVELS)
    assert level > 0
    assert at_level(case, level).keeps_risk
    assert float(at_level(case, level).cost) == found.fair
    assert not at_level(case, level - 1).keeps_risk


def test_where_no_level_keeps_the_risk_there_is_nothing_to_compare_with() -> None:
    jump = case_of(document([pool("a", "gold", [3, 99, 3], [3] * 72)], [offer("A", "on_demand")]))
    assert quantiles_on_demand(jump) is None
    assert cheaper([replace(ROW, quantiles=None)]) == "no case where quantile sizing keeps the risk"


def test_means_are_geometric_and_cases_with_much_spot_are_told_apart() -> None:
    assert cheaper([ROW]) == "75.0% cheaper as hosted, 50.0% at equal risk"
    told = against_quantiles([ROW, replace(ROW, case="s4-spot-rich", cost=6.25)])
    assert told[-2] == "all 2 cases: 87.5% cheaper as hosted, 75.0% at equal risk"
    assert told[-1] == "where spot is rich (s4-spot-rich): 93.8% cheaper as hosted, 87.5% at equal risk"

"""A target's fan and sentence."""

from datetime import timedelta

import numpy as np
import pytest

from engine.model.capacity import CapacityTarget, TargetStep
from engine.web.outlook import fan_chart, outlook, sentence
from forecasting.target import sentence as told
from forecasting.target import telling_need
from tests.sample_view import NOW, WEB, target


class Paths:
    """A forecast that is its sample paths, in shards."""

    series_id, start, freq, forecaster = "s", NOW, timedelta(minutes=30), "given"

    def __init__(self, paths: tuple[tuple[int, ...], ...]) -> None:
        self._paths = np.array(paths, dtype=float)
        self.horizon = self._paths.shape[1]

    def sample_paths(self, n: int) -> np.ndarray:
        return self._paths


@pytest.mark.parametrize(("current", "scale"), [(3, 4.0), (1, 1.2), (0, 40.0), (50, 4.0), (2, 3.0)])
def test_the_page_says_what_the_command_says(current: int, scale: float) -> None:
    shown = target(WEB, current=current, scale=scale)
    for hours in (1, 5):
        within = timedelta(hours=hours)
        need = telling_need(Paths(shown.demand_paths), 1.0, current, within)  # type: ignore[arg-type]
        if need.probability:
            assert sentence(shown, within) == told(need, "cpu.small")
        else:
            assert sentence(shown, within).startswith("no more cpu.small shards needed within the next")


def small(*steps: tuple[tuple[float, int], ...]) -> CapacityTarget:
    quantiles = tuple(
        TargetStep(start=NOW + n * timedelta(hours=2), shards_by_quantile=step) for n, step in enumerate(steps)
    )
    return target(WEB, current=1, scale=1.0).model_copy(
        update={"step": timedelta(hours=2), "steps": quantiles, "demand_paths": ((1, 9), (2, 9))}
    )


def test_a_long_step_counts_whole_and_says_so() -> None:
    given = small(((0.5, 1),), ((0.5, 9),))
    assert sentence(given) == "50 % probability of needing 1 more cpu.small shard within the next 2 hours"


def test_the_sentence_reaches_no_further_than_the_target() -> None:
    short = small(((0.5, 1),), ((0.5, 9),)).model_copy(update={"step": timedelta(minutes=2)})
    assert sentence(short).endswith("within the next 4 minutes")


def test_lines_carry_the_quantiles_that_the_target_has() -> None:
    chart = fan_chart(small(((0.1, 1), (0.5, 2), (0.9, 4)), ((0.1, 2), (0.5, 3), (0.9, 6))))
    assert [(line.quantile, line.shards) for line in chart.lines] == [
        (0.1, (1, 2, 2)),
        (0.5, (2, 3, 3)),
        (0.9, (4, 6, 6)),
    ]
    assert chart.times == (NOW, NOW + timedelta(hours=2), NOW + timedelta(hours=4))
    assert chart.rows == ((NOW, (1, 2, 4)), (NOW + timedelta(hours=2), (2, 3, 6)))


def test_a_target_without_steps_or_paths_is_still_told() -> None:
    bare = small().model_copy(update={"demand_paths": ()})
    shown = outlook(bare)
    assert (shown.sentence, shown.chart) == ("", None)


def test_the_page_is_told_where_the_usage_ends() -> None:
    assert outlook(small().model_copy(update={"history_end": NOW})).history_end == NOW
    assert outlook(small()).history_end is None

from pathlib import Path

import pytest

from engine.errors import UsageError
from lab.policies.registry import BASELINES, names, policy_of


@pytest.mark.parametrize("name", names())
def test_each_name_makes_a_fresh_policy(name: str) -> None:
    assert policy_of(name) is not policy_of(name)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'greedy-spot'"):
        policy_of("greedy-spt")


@pytest.mark.parametrize("where", BASELINES.values())
def test_each_baseline_says_whose_rule_it_is(where: str) -> None:
    path = Path(*where.split(":")[0].split(".")).with_suffix(".py")
    assert (Path(__file__).parents[4] / path).read_text(encoding="utf-8").startswith('"""')

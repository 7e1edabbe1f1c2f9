import pickle

import pytest

from engine import errors
from engine.errors import ExitCode, ShardwrightError


def every_error(kind: type[ShardwrightError] = ShardwrightError) -> list[type[ShardwrightError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in every_error(child))]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree_and_survives_a_recorded_step(kind: type[ShardwrightError]) -> None:
    if kind.__module__ == errors.__name__:
        assert kind.__name__ in (errors.__doc__ or "")
    again = pickle.loads(pickle.dumps(kind("what", why="why", next_step="next")))
    assert (type(again), again.what, again.why, again.next_step) == (kind, "what", "why", "next")


def test_exit_codes_are_the_documented_ones() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "ERROR": 1,
        "USAGE": 2,
        "AUTHENTICATION": 3,
        "PROVIDER": 4,
        "BLOCKED": 5,
        "BILL": 6,
        "CANCELLED": 130,
    }
    assert errors.PolicyViolation.exit_code == ExitCode.BLOCKED
    assert errors.NoOfferFits.exit_code == ExitCode.BLOCKED
    assert errors.AuthenticationFailed.exit_code == ExitCode.AUTHENTICATION


def test_what_could_not_be_had_survives_a_recorded_step() -> None:
    again = pickle.loads(pickle.dumps(errors.InsufficientCapacity("none left", nodes=("n1", "n2"))))
    assert again.nodes == ("n1", "n2")

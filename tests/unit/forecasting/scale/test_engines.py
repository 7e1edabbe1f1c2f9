import argparse
import sys

import pytest

from engine.errors import MissingPart, ScaleOutFailed, UsageError
from forecasting.scale.engines import Engine, add_options, spread_over
from forecasting.scale.spread import InProcess


def test_local_works_in_this_process() -> None:
    with spread_over(Engine.LOCAL) as spread:
        assert isinstance(spread, InProcess)


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        (Engine.LOCAL, {"workers": 2}, "--workers needs --engine ray"),
        (Engine.LOCAL, {"ray_address": "127.0.0.1:6379"}, "--ray-address needs --engine ray"),
        (Engine.RAY, {"workers": 2, "ray_address": "127.0.0.1:6379"}, "do not go together"),
        (Engine.RAY, {"workers": 0}, "at least one worker"),
        (Engine.RAY, {"ray_address": "ray://head:10001"}, "cannot be read"),
        (Engine.RAY, {"ray_address": "auto"}, "cannot be read"),
    ],
)
def test_options_that_do_not_go_together_are_refused(engine: Engine, options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused, spread_over(engine, **options):  # type: ignore[arg-type]
        pass
    assert refused.value.next_step


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(ScaleOutFailed, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        spread_over(Engine.RAY, ray_address="127.0.0.1:1").__enter__()


def test_without_ray_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPart, match="not installed") as missing:
        spread_over(Engine.RAY, workers=2).__enter__()
    assert "requirements/ray.txt" in missing.value.next_step


def test_another_command_gets_the_same_options() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert parser.parse_args([]).engine is Engine.LOCAL
    given = parser.parse_args(["--engine", "ray", "--workers", "3"])
    assert (given.engine, given.workers, given.ray_address) == (Engine.RAY, 3, None)
    with pytest.raises(SystemExit):
        parser.parse_args(["--engine", "spark"])

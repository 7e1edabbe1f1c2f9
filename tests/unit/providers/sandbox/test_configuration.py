"""What the sandbox writes can be read, and treats usage that it is given as a recording."""

from pathlib import Path

import pytest

from engine.config import load_configuration
from providers.sandbox.configuration import PoolChoice, write_configuration
from tests.unit.providers.sandbox.test_info import INFO

POOL = PoolChoice(id="web", component="api", risk_class="bronze", peak_shards=1, providers=("gcp",))


@pytest.mark.parametrize("given", [True, False])
def test_usage_is_a_recording_and_nothing_is_retrained_on_it(tmp_path: Path, given: bool) -> None:
    usage = tmp_path / "usage.csv" if given else None
    path = write_configuration(
        INFO, tmp_path / "c" / "shardwright.toml", name="sw", state_directory=tmp_path / "s", control_port=1,
        pools=(POOL,), usage=usage,
    )  # fmt: skip
    table = load_configuration(path).forecast
    assert (table.usage, table.replay, table.retraining.enabled) == (usage, given, not given)
    assert table.budget_seconds == 20

from datetime import timedelta
from pathlib import Path

from engine.clock import ManualClock
from forecasting.promotions import Promotions
from forecasting.rnn.trained import TrainedRnn
from tests.retraining_cases import record

HOUR = timedelta(hours=1)


def test_versions_count_up_and_the_first_record_of_a_usage_stays(tmp_path: Path) -> None:
    promotions = Promotions(tmp_path)
    first = promotions.add(record(0, fingerprint="a"))
    second = promotions.add(record(0, fingerprint="b", promoted=False))
    again = promotions.add(record(0, fingerprint="a", promoted=False))
    assert (first.version, second.version, again) == (1, 2, first)
    assert promotions.all() == (first, second)
    assert promotions.promoted() == (first,)
    assert promotions.of("memory_gib", HOUR) == ()


def test_a_damaged_record_is_left_out(tmp_path: Path) -> None:
    promotions = Promotions(tmp_path)
    promotions.add(record(0, fingerprint="a"))
    (tmp_path / "retrainings" / "b.json").write_text("{}")
    assert [one.fingerprint for one in promotions.all()] == ["a"]


def test_the_newest_promoted_network_stands(tmp_path: Path, trained: TrainedRnn, still: ManualClock) -> None:
    promotions = Promotions(tmp_path)
    assert promotions.standing("cpu_cores", HOUR, 12) is None
    promotions.registry.save("m", trained, series=3, now=still.now())
    promotions.add(record(0, fingerprint="a"))
    promotions.add(record(0, fingerprint="b", promoted=False))
    found = promotions.standing("cpu_cores", HOUR, 12)
    assert found is not None
    assert found.rnn is not None
    assert found.rnn.digest() == trained.digest()
    assert (found.name, found.loaded) == ("version 1", True)
    assert promotions.standing("memory_gib", HOUR, 12) is None


def test_the_shipped_one_stands_where_none_was_better_or_the_promoted_one_is_gone(tmp_path: Path) -> None:
    promotions = Promotions(tmp_path)
    promotions.add(record(0, fingerprint="a", promoted=False))
    promotions.add(record(0, fingerprint="b"))  # its network was never saved
    found = promotions.standing("cpu_cores", HOUR, 12)
    assert found is not None
    assert found.origin == "shipped, as it is: version 2 was no better"
    assert promotions.standing("cpu_cores", HOUR, 500) is None  # no shipped network reaches so far

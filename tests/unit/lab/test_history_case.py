"""A case from a user's own history: aligned, honest about what it lacks, and played like any other."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from engine.errors import UsageError
from lab.case import SpotOffer, read_case
from lab.experiment import run_lab
from lab.history_case import Built, Market, Need, case_from_history
from tests.unit.lab import market_tables as tables


def build(folder: Path, suffix: str = "parquet", days: int = 3, seed: int = 0, **market: Path) -> Built:
    need = Need(usage=tables.usage(folder / f"usage.{suffix}"))
    found = {
        "offers": tables.offers(folder / f"offers.{suffix}"),
        "spot": tables.spot(folder / f"spot.{suffix}"),
        "availability": tables.availability(folder / f"availability.{suffix}"),
        **market,
    }
    return case_from_history(need, Market(**found), risk=0.01, days=days, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_last_days_are_the_game_and_the_rest_is_history(tmp_path: Path, suffix: str) -> None:
    case = build(tmp_path, suffix).case
    assert (case.steps, case.step_minutes) == (72, 60)
    assert case.start == tables.END - timedelta(days=3)
    web = next(pool for pool in case.pools if pool.id == "web")
    assert (len(web.history), len(web.demand)) == (7 * 24, 72)
    assert web.demand[:6] == (10, 11, 11, 11, 11, 12)  # whole shards, rounded up
    assert case.risk_classes["stated"].max_shortfall == case.max_shortfall == 0.01


def test_bad_offers_are_left_out_by_reason(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert {offer.instance_type for offer in built.case.offers} == {
        "m5.large",
        "m5.xlarge",
        "n2-standard-4",
        "Standard_D4s_v5",
    }
    for reason in (
        "3 rows left out: no price, or an absurd one",
        "1 rows left out: has an accelerator",
        "1 rows left out: no provider, region or type",
        "1 rows left out: no size",
        "1 rows left out: too small for a shard",
    ):
        assert f"offers: {reason}" in built.notes
    gcp = next(offer for offer in built.case.offers if offer.instance_type == "n2-standard-4")
    assert gcp.on_demand_price == Decimal("0.19")


def test_a_series_without_any_value_is_left_out_by_name(tmp_path: Path) -> None:
    usage = tables.usage(tmp_path / "usage.csv")
    silent = [f"silent,{moment.isoformat(' ')},\n" for moment in tables.moments(tables.STEPS)]
    usage.write_text(usage.read_text() + "".join(silent))
    market = Market(offers=tables.offers(tmp_path / "offers.csv"))
    built = case_from_history(Need(usage=usage), market, risk=0.01, days=2, seed=0)
    assert {pool.id for pool in built.case.pools} == {"web", "db"}
    assert "usage: silent holds no value and is left out" in built.notes


def spot_of(built: Built, kind: str) -> SpotOffer:
    return next(o for o in built.case.offers if isinstance(o, SpotOffer) and o.instance_type == kind)


def test_prices_follow_the_calendar(tmp_path: Path) -> None:
    prices = dict(spot_of(build(tmp_path), "m5.xlarge").prices)
    assert prices[0] == Decimal("0.069")  # the tenth of twelve days
    assert prices[24] == Decimal("0.07")


def test_a_record_of_another_time_ends_with_the_replay_and_is_told(tmp_path: Path) -> None:
    late = tables.END + timedelta(days=400)
    built = build(tmp_path, spot=tables.spot(tmp_path / "late.parquet", late))
    assert any("their price record is of another time" in note for note in built.notes)
    assert max(step for step, _ in spot_of(built, "m5.xlarge").prices) < built.case.steps


def test_depth_is_the_least_of_each_step_from_the_records_own_region(tmp_path: Path) -> None:
    built = build(tmp_path)
    own = spot_of(built, "m5.xlarge")
    none_left = [step for step, units in own.available if units == 0]
    # Every twentieth hour nothing could be had, counted from the start of a record of 480 hours.
    assert none_left == [step for step in range(72) if (480 - 72 + step) % 20 == 0]
    assert any("borrowed from another place" in note for note in built.notes)


def test_without_a_record_of_availability_there_is_no_spot(tmp_path: Path) -> None:
    need = Need(usage=tables.usage(tmp_path / "usage.csv"))
    market = Market(offers=tables.offers(tmp_path / "offers.csv"))
    built = case_from_history(need, market, risk=0.01, days=2, seed=0)
    assert {offer.option for offer in built.case.offers} == {"on_demand"}
    assert any("--availability" in note for note in built.notes)


def test_the_same_seed_builds_the_same_case(tmp_path: Path) -> None:
    assert build(tmp_path).case.fingerprint == build(tmp_path).case.fingerprint


def test_a_built_case_is_written_and_played_like_any_other(tmp_path: Path) -> None:
    built = build(tmp_path)
    built.write(tmp_path / "case.json.gz")
    case = read_case(tmp_path / "case.json.gz")
    assert case == built.case
    report = run_lab([case], ["reactive", "greedy-spot"])
    assert all(played.cost_to_bound >= 1 for played in report.cases[0].played if played.result.keeps_risk)


def test_what_cannot_be_built_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too short to replay 60 days"):
        build(tmp_path, days=60)
    with pytest.raises(UsageError, match="lacks provider"):
        build(tmp_path, offers=tables.usage(tmp_path / "other.csv"))
    with pytest.raises(UsageError, match="cannot be read"):
        build(tmp_path, offers=tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(UsageError, match="cannot be read"):
        build(tmp_path, spot=tmp_path / "broken.parquet")
    need = Need(usage=tables.usage(tmp_path / "usage.csv"), vcpus=500)
    with pytest.raises(UsageError, match="nothing that carries a shard"):
        case_from_history(need, Market(offers=tables.offers(tmp_path / "offers.csv")), risk=0.01, days=2, seed=0)
    with pytest.raises(UsageError, match="needs offers"):
        case_from_history(need, Market(offers=None), risk=0.01, days=2, seed=0)

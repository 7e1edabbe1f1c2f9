"""``shardwright run``: what it tells of each round, and when."""

import gc
import json
import weakref
from collections.abc import Callable, Generator, Iterable
from datetime import timedelta

import pytest

from engine.app import embedded
from engine.errors import ExitCode, ProviderUnavailable
from engine.model.ids import OfferId, RoundId
from engine.model.plan import OfferRejection
from engine.round_record import RoundRecord
from tests.command import InProcess
from tests.unit.engine.planner.cases import NOW, certain, demo_market, plan_of, pool

HOSTILE = ("[/x]", "cpu[web]", "shop:key:x", "[red]red[/]", "\x1b[2Jgone", "\x9b2Jgone", "\u202etxt.exe")
Rounds = Callable[[Iterable[RoundRecord]], None]


def record(number: int, *names: str) -> RoundRecord:
    made = plan_of([certain(pool(), 3)], demo_market())
    refused = tuple(OfferRejection(offer=OfferId(name), provider=name, reason=f"stale: {name}") for name in names)
    decisions = tuple(
        one.model_copy(update={"reason": name})
        for one, name in zip(made.decisions, names or ["dearer"] * len(made.decisions), strict=False)
    )
    return RoundRecord(
        id=RoundId(f"r-{number}"),
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=1),
        targets=(),
        offers_seen=len(decisions),
        quotes=(),
        plan=made.model_copy(update={"rejections": refused, "decisions": decisions}),
        outcomes=(),
        failures=(),
        shards=(),
        moves=(),
    )


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    def replace(records: Iterable[RoundRecord]) -> None:
        def made(*_: object, **__: object) -> Generator[RoundRecord, None, None]:
            yield from records

        monkeypatch.setattr(embedded, "run_rounds", made)

    return replace


def test_what_providers_call_things_is_shown_as_it_is_and_steers_nothing(command: InProcess, rounds: Rounds) -> None:
    rounds([record(1, *HOSTILE)])
    told = command("run")
    assert told.code == ExitCode.OK, told.err
    for name in ("[/x]", "cpu[web]", "shop:key:x", "[red]red[/]", "stale: [/x]"):
        assert name in told.out
    for steering in ("\x1b", "\x9b", "\u202e"):
        assert steering not in told.out
    assert "�[2Jgone" in told.out


def test_a_round_is_told_when_it_ends_and_json_is_one_document(
    command: InProcess, rounds: Rounds, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def made() -> Generator[RoundRecord, None, None]:
        for number in (1, 2):
            yield record(number)
            seen.append(capfd.readouterr().out)

    rounds(made())
    told = command("run", "--rounds", 2, "--output", "json")
    assert ['"r-1"' in seen[0], '"r-2"' in seen[1]] == [True, True]
    document = json.loads("".join(seen) + told.out)
    assert (document["schema_version"], document["kind"]) == (1, "rounds")
    assert [one["id"] for one in document["data"]] == ["r-1", "r-2"]


def test_json_of_rounds_that_break_off_is_complete(command: InProcess, rounds: Rounds) -> None:
    def made() -> Generator[RoundRecord, None, None]:
        yield record(1)
        raise ProviderUnavailable("the market is shut")

    rounds(made())
    told = command("run", "--rounds", 2, "--output", "json")
    assert told.code == ExitCode.PROVIDER
    assert [one["id"] for one in told.data] == ["r-1"]


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_run_that_goes_on_for_weeks_keeps_no_rounds(command: InProcess, rounds: Rounds, output: str) -> None:
    left: list[weakref.ref[RoundRecord]] = []

    def made() -> Generator[RoundRecord, None, None]:
        for number in range(3):
            gc.collect()
            assert sum(one() is not None for one in left) <= 1  # the last, which the command asks about
            new = record(number)
            left.append(weakref.ref(new))
            yield new
            del new

    rounds(made())
    assert command("run", "--rounds", 3, "--output", output).code == ExitCode.OK

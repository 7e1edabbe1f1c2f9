"""``shardwright offers``: what can be used, what cannot, and why."""

import json
from decimal import Decimal

import pytest

from engine.app import configured
from engine.errors import ExitCode
from engine.market.discovery import MarketView, ProviderFailure
from engine.model.ids import OfferId
from engine.model.market import DepthBelief, OwnHistory, Reliability
from engine.model.plan import OfferRejection
from tests.command import InProcess
from tests.unit.engine.market.counterparties import NOW, an_offer


def _refused(name: str, reason: str) -> OfferRejection:
    return OfferRejection(offer=OfferId(name), provider="p", reason=reason)


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> MarketView:
    view = MarketView(
        offers=(an_offer("dear", price="0.2"), an_offer("cheap")),
        rejections=(
            *(_refused(f"stale-{index}", f"stale price: stated {index} days ago") for index in range(50)),
            _refused("odd", "currency ZZZ is not known here"),
            _refused("liar", "forged: price is not what was signed"),
        ),
        failures=(ProviderFailure(provider="q", kind="TimedOut", reason="no answer in 20 s"),),
        made_at=NOW,
    )
    monkeypatch.setattr(configured, "discover_offers", lambda *_, **__: view)
    monkeypatch.setattr(configured, "load", lambda _: type("Configuration", (), {"providers": (1, 2)})())
    return view


def test_the_table_has_a_tick_or_a_reason_for_every_kind(command: InProcess, market: MarketView) -> None:
    told = command("offers", "--limit", 5)
    assert told.code == ExitCode.OK, told.err
    lines = told.out.splitlines()
    assert ["✔" in line for line in lines if "t.small" in line] == [True, True]
    assert told.out.index("0.10000 USD") < told.out.index("0.20000 USD")
    assert "52 offers refused, 5 shown" in told.out
    for reason in ("stale price: stated 0 days ago", "currency ZZZ", "forged: price is not what was signed"):
        assert any("✘" in line and reason in line for line in lines), reason
    assert told.err.strip() == "q: no answer in 20 s"


def test_a_part_of_a_vcpu_is_ranked_by_what_a_whole_one_would_cost(
    command: InProcess, market: MarketView, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = market.offers[0]
    half = whole.resources.model_copy(update={"vcpus": whole.resources.vcpus / 8})
    none = half.model_copy(update={"vcpus": 0.0})
    part = whole.model_copy(update={"id": OfferId("part"), "resources": half, "price": whole.price * Decimal("0.5")})
    disk = part.model_copy(update={"id": OfferId("disk"), "resources": none})
    view = market.model_copy(update={"offers": (disk, part, *market.offers)})
    monkeypatch.setattr(configured, "discover_offers", lambda *_, **__: view)
    document = json.loads(command("offers", "--output", "json").out)
    assert [offer["id"] for offer in document["data"]] == ["cheap", "dear", "part", "disk"]


def test_json_has_the_refused_ones_beside_the_offers(command: InProcess, market: MarketView) -> None:

    told = command("offers", "--output", "json")
    document = json.loads(told.out)
    assert [offer["id"] for offer in document["data"]] == ["cheap", "dear"]
    assert len(document["refused"]) == len(market.rejections)
    assert document["refused"][-1] == {
        "offer": "liar",
        "provider": "p",
        "reason": "forged: price is not what was signed",
    }
    assert document["failures"][0]["kind"] == "TimedOut"


def test_what_earlier_rounds_taught_is_told(
    command: InProcess, market: MarketView, monkeypatch: pytest.MonkeyPatch
) -> None:
    belief = DepthBelief(depth=1, advertised=4, told="denied 2 of 3 at 10:40")
    own = OwnHistory(reclaims=2, node_hours=310.0)
    offers = (
        an_offer("left", available=1, belief=belief, zone="left"),
        an_offer("shaky", zone="shaky", reliability=Reliability(correlation_group="g", own=own)),
        an_offer("none", available=0, belief=belief, zone="none"),
    )
    learned = market.model_copy(update={"offers": offers, "rejections": (_refused("none", f"exhausted: {belief}"),)})
    monkeypatch.setattr(configured, "discover_offers", lambda *_, **__: learned)
    lines = command("offers").out.splitlines()
    assert any("✔" in line and "left" in line and "denied 2 of 3 at 10:40; believed depth 1" in line for line in lines)
    assert any("✔" in line and "shaky" in line and "2 taken back in 310 node-hours" in line for line in lines)
    assert any("✘" in line and "exhausted: denied 2 of 3 at 10:40" in line for line in lines)
    data = json.loads(command("offers", "--output", "json").out)["data"]
    assert [offer["id"] for offer in data] == ["left", "shaky"]
    assert data[0]["belief"] == {"depth": 1, "ours": 0, "advertised": 4, "told": "denied 2 of 3 at 10:40"}
    assert data[1]["reliability"]["own"] == {"reclaims": 2, "node_hours": 310.0}

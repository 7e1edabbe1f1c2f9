"""The pages as a reader without scripts gets them."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from engine.api.app import control_app
from engine.api.view import BillView
from engine.billing.report import CostReport
from engine.model.money import Money, usd
from engine.web.pages import chosen_first
from tests.sample_view import SampleView


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(control_app(SampleView()), base_url="http://127.0.0.1") as opened:
        yield opened


def test_text_from_the_market_stays_text() -> None:
    """Third-party networks write the reasons and names that the pages show."""
    view = SampleView(reason="<script>alert(1)</script>' onload='x")
    with TestClient(control_app(view), base_url="http://127.0.0.1") as client:
        page = client.get("/plan").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_chosen_rows_come_first_and_then_by_price() -> None:
    plan = SampleView().plan()
    assert plan is not None
    assert [row.verdict for row in plan.decisions] != [row.verdict for row in chosen_first(plan.decisions)]
    ordered = [(row.verdict.value, row.price_per_shard_hour) for row in chosen_first(plan.decisions)]
    assert [verdict for verdict, _ in ordered] == ["chosen"] * 5 + ["why_not"] * 5
    prices = [price.amount for verdict, price in ordered if verdict == "chosen" and price]
    assert prices == sorted(prices)
    priceless = plan.decisions[0].model_copy(update={"price_per_shard_hour": None})
    assert chosen_first([priceless, *plan.decisions])[-1] == priceless


def test_the_gate_is_a_sum_that_adds_up(client: TestClient) -> None:
    page = client.get("/").text
    card = re.search(r'<table class="sum">(.*?)</table>', page, re.DOTALL)
    assert card
    figures = [float(text) for text in re.findall(r'<td class="n">(-?[\d.]+)', card[1])]
    saving, *costs, left = figures
    assert len(costs) == 5
    assert saving - sum(costs) == pytest.approx(left, abs=0.0003)
    assert "passes the gate" in card[1]


def test_the_overview_counts_every_move_and_not_only_those_it_shows(client: TestClient) -> None:
    assert "<span>Moves</span><b>1002</b>" in client.get("/").text


def test_every_moment_is_readable_by_programs(client: TestClient) -> None:
    page = client.get("/").text
    assert '<time datetime="2026-11-23T12:03:09Z"><span>2026-11-23</span> <span>12:03:09 UTC</span></time>' in page


def test_a_bill_in_two_currencies_has_a_sum_of_each() -> None:
    class Abroad(SampleView):
        def bills(self) -> BillView:
            bills = super().bills()
            first, *others = bills.report.lines
            euros = first.model_copy(update={"billed": Money(amount=usd("7").amount, currency="EUR")})
            return bills.model_copy(update={"report": CostReport(lines=(euros, *others))})

    with TestClient(control_app(Abroad()), base_url="http://127.0.0.1") as client:
        page = client.get("/bills").text
    totals = re.findall(r'<span>Ledger total</span><b>([\d.]+) <span class="unit">(\w+)</span>', page)
    assert totals[0] == ("7.00", "EUR")
    assert [currency for _, currency in totals] == ["EUR", "USD"]
    assert page.count('<th scope="row">Total</th>') == 2


def test_files_are_named_and_nothing_else_is_served(client: TestClient) -> None:
    assert client.get("/static/style.css").headers["content-type"].startswith("text/css")
    assert client.get("/static/icon.svg").headers["content-type"] == "image/svg+xml"
    assert client.get("/static/plotly.js").headers["content-type"].startswith("text/javascript")
    for name in ("..%2fpages.py", "pages.py", "%2e%2e/pages.py"):
        assert client.get(f"/static/{name}").status_code == 404

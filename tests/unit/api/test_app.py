"""The HTTP face over a view: every fact's route, problems, operations."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from engine.api.app import control_app
from engine.api.problems import PROBLEM_JSON
from engine.api.view import ALL_SHARDS, BillView, ShardView
from engine.clock import ManualClock
from engine.composition.membership import Standing
from engine.errors import ProviderUnavailable, ShardwrightError
from engine.model.capacity import CapacityTarget
from engine.model.composite import HealthState
from engine.model.move import MoveReport, MoveUnderWay
from engine.model.placement import Node, ShardQuery
from engine.model.plan import Plan
from tests.sample_view import EmptyView, SampleView

HTML = {"accept": "text/html"}


def client_of(view: SampleView | EmptyView) -> TestClient:
    return TestClient(control_app(view), base_url="http://127.0.0.1")


@pytest.fixture
def client() -> Iterator[TestClient]:
    with client_of(SampleView()) as opened:
        yield opened


@pytest.fixture
def empty() -> Iterator[TestClient]:
    with client_of(EmptyView()) as opened:
        yield opened


def test_lists_come_back_as_the_values_that_went_out(client: TestClient) -> None:
    view = SampleView()
    kinds = {
        "nodes": Node,
        "shards": ShardView,
        "targets": CapacityTarget,
        "moves": MoveReport,
        "moves/under-way": MoveUnderWay,
    }
    for name, kind in kinds.items():
        answer = client.get(f"/v1/{name}")
        assert answer.status_code == 200
        asked = getattr(view, name.replace("/", "_").replace("-", "_"))
        assert [kind.model_validate_json(json.dumps(item)) for item in answer.json()] == list(asked())


def test_shards_are_searched_by_what_is_given(client: TestClient) -> None:
    everything = client.get("/v1/shards").json()
    states = {row["shard"]["state"] for row in everything}
    for state in states:
        found = client.get("/v1/shards", params={"state": state}).json()
        assert found == [row for row in everything if row["shard"]["state"] == state]
    assert client.get("/v1/shards", params={"vcpus": 10_000}).json() == []
    for wrong in ({"state": "lost"}, {"vcpus": -1}, {"colour": "red"}, {"vcpus": "inf"}, {"memory_gib": "nan"}):
        assert client.get("/v1/shards", params=wrong).status_code == 400


def test_the_plan_and_the_bill_come_back_as_they_went_out(client: TestClient) -> None:
    view = SampleView()
    assert Plan.model_validate_json(client.get("/v1/plan").text) == view.plan()
    assert BillView.model_validate_json(client.get("/v1/bills").text) == view.bills()


def test_money_stays_exact_text(client: TestClient) -> None:
    assert client.get("/v1/nodes").json()[0]["hourly_price"] == {"amount": "0.0712", "currency": "USD"}


def test_before_the_first_round_there_is_nothing_and_no_error(empty: TestClient) -> None:
    for name in ("nodes", "shards", "targets", "moves", "moves/under-way"):
        assert empty.get(f"/v1/{name}").json() == []
    assert empty.get("/v1/plan").json() is None
    assert empty.get("/v1/bills").json()["reconciliation"]["verdicts"] == []


def test_a_name_resolves_to_its_shard_and_place(client: TestClient) -> None:
    found = client.get("/v1/resolve", params={"name": "shard://shop/shop/web/1"}).json()
    assert found["shard"]["id"] == "s-0002"
    assert found["node"]["id"] == "sw-gcp-1"
    first = client.get("/v1/resolve", params={"name": "shard://shop/shop/db"}).json()
    assert first["component"]["index"] == 0


class DrainedView(SampleView):
    """Every shard is on its way out."""

    def shards(self, query: ShardQuery = ALL_SHARDS) -> Sequence[ShardView]:
        leaving = Standing(serves=False, health=HealthState.HEALTHY, reason="drained until 12:05:00 UTC")
        return [row.model_copy(update={"standing": leaving}) for row in super().shards(query)]


def test_a_name_without_a_number_never_leads_to_a_replica_that_is_drained() -> None:
    """As DNS does; a number names its replica all the same, and all are listed."""
    with client_of(DrainedView()) as client:
        answer = client.get("/v1/resolve", params={"name": "shard://shop/shop/db"})
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_JSON)
        assert answer.json()["detail"] == "its last replicas are being drained"
        assert client.get("/v1/resolve", params={"name": "shard://shop/shop/db/0"}).status_code == 200
        assert len(client.get("/v1/replicas", params={"name": "shard://shop/shop/db"}).json()) == 1


def test_an_unknown_name_is_a_404_problem(client: TestClient) -> None:
    answer = client.get("/v1/resolve", params={"name": "shard://shop/shop/web/77"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_JSON)
    assert answer.json()["title"] == "shard://shop/shop/web/77 is not bound to a shard"
    assert answer.json()["status"] == 404


@pytest.mark.parametrize("name", ["shop/web", "shard://shop", "shard://Shop/x/y", "shard://a/b/c/-1", ""])
def test_a_bad_name_is_a_400_problem_that_says_how_names_look(client: TestClient, name: str) -> None:
    answer = client.get("/v1/resolve", params={"name": name})
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM_JSON)
    assert "shard://NAMESPACE/WORKLOAD/COMPONENT" in answer.json()["next_step"]
    assert answer.json()["detail"]


def test_a_missing_parameter_is_a_400_problem_that_names_it(client: TestClient) -> None:
    answer = client.get("/v1/resolve")
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM_JSON)
    assert "query.name" in answer.json()["detail"]


def test_an_unknown_path_is_a_problem_for_programs_and_a_page_for_people(client: TestClient) -> None:
    answer = client.get("/v1/nothing", headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_JSON)
    page = client.get("/nothing<b>", headers=HTML)
    assert page.status_code == 404
    assert "There is nothing at /nothing" in page.text
    assert "<b>" not in page.text


def test_a_wrong_method_says_which_are_allowed(client: TestClient) -> None:
    answer = client.post("/v1/nodes")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert answer.json()["status"] == 405


@pytest.mark.parametrize(
    ("error", "status"),
    [(ProviderUnavailable("harbor is down", why="timeout"), 502), (ShardwrightError("broken"), 500)],
)
def test_other_errors_of_the_vocabulary_are_problems_too(error: ShardwrightError, status: int) -> None:
    class Failing(SampleView):
        def nodes(self) -> list[Node]:
            raise error

    with client_of(Failing()) as client:
        answer = client.get("/v1/nodes")
        assert (answer.status_code, answer.json()["title"]) == (status, error.what)
        page = client.get("/", headers=HTML)
        assert page.status_code == status
        assert error.what in page.text


def test_healthz(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok"


def test_metrics_can_be_parsed_and_show_the_fleet_as_it_is_now(client: TestClient, empty: TestClient) -> None:
    def samples(of: TestClient) -> dict[tuple[str, ...], float]:
        answer = of.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    full = samples(client)
    assert full["shardwright_shards", "bound"] == 4
    assert full["shardwright_nodes", "aws", "reclaiming"] == 1
    none = samples(empty)
    assert none["shardwright_shards", "bound"] == 0
    assert ("shardwright_nodes", "aws", "reclaiming") not in none


def test_metrics_tell_the_bills_and_read_the_ledger_once_a_minute() -> None:
    class Counting(SampleView):
        read = 0

        def bills(self) -> BillView:
            self.read += 1
            return super().bills()

    view, clock = Counting(), ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC))
    with TestClient(control_app(view, clock=clock), base_url="http://127.0.0.1") as client:
        for seconds, read in ((0, 1), (59, 1), (1, 2)):
            clock.sleep(seconds)
            text = client.get("/metrics").text
            assert view.read == read
            assert 'shardwright_cost_currency_units{currency="USD",provider="aws"} 0.21' in text
            assert "shardwright_invoices_not_reconciled 1.0" in text


def test_a_defect_is_a_problem_as_well_and_its_traceback_is_for_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(EmptyView):
        def nodes(self) -> Sequence[Node]:
            raise KeyError("secret")

        def plan(self) -> Plan | None:
            raise KeyError("secret")

    with client_of(Broken()) as client:
        answer, page = client.get("/v1/nodes"), client.get("/plan", headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (500, PROBLEM_JSON)
    assert answer.json()["title"] == "Unexpected KeyError"
    assert (page.status_code, "Unexpected KeyError" in page.text) == (500, True)
    for one in (answer, page):
        assert "secret" not in one.text
        assert "Content-Security-Policy" in one.headers
    assert "KeyError: 'secret'" in caplog.text


@pytest.mark.parametrize("problem", [ValueError("cannot combine USD and EUR"), ShardwrightError("the ledger is torn")])
def test_bills_that_cannot_be_told_hide_nothing_else_and_are_not_read_at_each_scrape(
    problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Torn(SampleView):
        read = 0

        def bills(self) -> BillView:
            self.read += 1
            raise problem

    view, clock = Torn(), ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC))
    with TestClient(control_app(view, clock=clock), base_url="http://127.0.0.1") as client:
        answers = [client.get("/metrics") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert all('shardwright_shards{state="bound"} 4.0' in answer.text for answer in answers)
    assert view.read == 1
    assert str(problem) in caplog.text


def test_openapi_describes_every_fact_and_the_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    facts = {"nodes", "shards", "plan", "targets", "moves", "moves/under-way", "bills", "resolve"}
    assert {f"/v1/{name}" for name in facts} <= set(document["paths"])
    resolve = document["paths"]["/v1/resolve"]["get"]
    assert {"200", "400", "404"} <= set(resolve["responses"])
    assert "/" not in document["paths"]
    assert client.get("/docs").status_code == 404, "those pages load scripts from elsewhere"


def test_the_bill_downloads_as_focus_csv(client: TestClient) -> None:
    answer = client.get("/bills.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 10
    assert rows[0]["BilledCost"] == "0.2136"
    assert rows[0]["ProviderName"] == "aws"


def test_another_sites_name_for_this_address_gets_nothing(client: TestClient) -> None:
    assert client.get("/v1/bills", headers={"host": "rebound.example"}).status_code == 400
    assert client.get("/v1/bills", headers={"host": "localhost:8080"}).status_code == 200


def test_pages_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/plan", "/bills", "/v1/nodes"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"

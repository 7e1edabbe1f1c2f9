from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from providers.sandbox.azure.monitoring import Monitoring
from providers.sandbox.azure.wire import ArmError, error_response

SITE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/api"


@pytest.fixture
def client() -> TestClient:
    async def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, ArmError)
        return error_response(error.status, error.message, error.code)

    client = TestClient(Starlette(routes=Monitoring().routes(), exception_handlers={ArmError: failed}))
    for minute, low, high in ((0, 1.0, 3.0), (30, 2.0, 6.0)):
        bundle = {"min": low, "max": high, "sum": low + high, "count": 2}
        data = {"baseData": {"metric": "Cores", "namespace": "Shop", "series": [bundle]}}
        body = {"time": f"2026-03-02T00:{minute:02}:00Z", "data": data}
        assert client.post(f"{SITE}/metrics", json=body).status_code == 200
    return client


def read(client: TestClient, resource: str = SITE, **asked: str) -> Any:
    given = {"metricnames": "cores", "timespan": "2026-03-02T00:00:00Z/2026-03-02T02:00:00Z", "interval": "PT1H"}
    return client.get(f"{resource}/providers/Microsoft.Insights/metrics", params={**given, **asked})


def test_every_step_is_there_and_only_measured_ones_have_values(client: TestClient) -> None:
    answer = read(client, aggregation="Average,Total,Maximum,Minimum,Count").json()
    first, second = answer["value"][0]["timeseries"][0]["data"]
    stamp = {"timeStamp": "2026-03-02T00:00:00Z"}
    assert first == {**stamp, "average": 3.0, "total": 12.0, "maximum": 6.0, "minimum": 1.0, "count": 4}
    assert second == {"timeStamp": "2026-03-02T01:00:00Z"}
    assert answer["value"][0]["name"]["value"] == "Cores"


def test_resource_ids_are_the_same_whatever_their_case(client: TestClient) -> None:
    assert read(client, SITE.upper().replace("/SUBSCRIPTIONS", "/subscriptions")).status_code == 200


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"metricnames": "memory"}, "Valid metrics: Cores"),
        ({"timespan": "yesterday"}, "START/END"),
        ({"timespan": "2026-03-02T02:00:00Z/2026-03-02T00:00:00Z"}, "empty"),
        ({"interval": "PT2H"}, "time grain"),
        ({"aggregation": "Median"}, "Invalid aggregation"),
    ],
)
def test_bad_requests_are_named(client: TestClient, asked: dict[str, str], says: str) -> None:
    answer = read(client, **asked)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_rubbish_and_unknown_resources(client: TestClient) -> None:
    assert client.post(f"{SITE}/metrics", content=b"[").status_code == 400
    assert read(client, SITE + "x").status_code == 404

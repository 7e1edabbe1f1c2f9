from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from providers.sandbox.gcp.monitoring import Monitoring
from providers.sandbox.gcp.wire import GoogleError, error_response

URL = "/v3/projects/p/timeSeries"
CPU = 'metric.type = "custom/cpu"'


@pytest.fixture
def client() -> TestClient:
    async def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, GoogleError)
        return error_response(error.code, error.message, error.reason)

    return TestClient(Starlette(routes=Monitoring("p").routes(), exception_handlers={GoogleError: failed}))


def write(client: TestClient, minute: int, value: float, app: str = "api") -> Any:
    series = {
        "metric": {"type": "custom/cpu", "labels": {"app": app}},
        "resource": {"type": "global"},
        "points": [
            {"interval": {"endTime": f"2026-03-02T00:{minute:02}:00Z"}, "value": {"doubleValue": value}},
        ],
    }
    return client.post(URL, json={"timeSeries": [series]})


def listed(client: TestClient, **asked: str) -> Any:
    span = {"interval.startTime": "2026-03-02T00:00:00Z", "interval.endTime": "2026-03-02T00:30:00Z"}
    return client.get(URL, params={"filter": CPU, **span, **asked})


@pytest.mark.parametrize(
    ("aligner", "expected"),
    [("ALIGN_MEAN", [5.0, 2.0]), ("ALIGN_SUM", [5.0, 4.0]), ("ALIGN_MAX", [5.0, 3.0]), ("ALIGN_COUNT", [1.0, 2.0])],
)
def test_points_are_aligned_to_periods_that_end_at_the_end(
    client: TestClient, aligner: str, expected: list[float]
) -> None:
    for minute, value in ((0, 100.0), (5, 1.0), (10, 3.0), (11, 5.0)):  # the start does not belong to the interval
        assert write(client, minute, value).status_code == 200
    asked = {"aggregation.alignmentPeriod": "600s", "aggregation.perSeriesAligner": aligner}
    (series,) = listed(client, **asked).json()["timeSeries"]
    assert [point["value"]["doubleValue"] for point in series["points"]] == expected
    assert series["points"][0]["interval"]["endTime"].startswith("2026-03-02T00:20:00")


def test_series_are_filtered_and_pages_end_within_them(client: TestClient) -> None:
    for minute in (5, 10):
        write(client, minute, 1.0)
        write(client, minute, 2.0, app="db")
    assert len(listed(client).json()["timeSeries"]) == 2
    assert len(listed(client, filter=f'{CPU} AND metric.labels.app = "db"').json()["timeSeries"]) == 1
    page = listed(client, pageSize="3").json()
    assert [len(series["points"]) for series in page["timeSeries"]] == [2, 1]
    (rest,) = listed(client, pageSize="3", pageToken=page["nextPageToken"]).json()["timeSeries"]
    assert (len(rest["points"]), rest["metric"]["labels"]) == (1, {"app": "db"})


def test_points_out_of_order_are_refused(client: TestClient) -> None:
    write(client, 10, 1.0)
    assert write(client, 10, 2.0).status_code == 400


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"filter": "resource.type = x"}, "metric.type"),
        ({"interval.endTime": "soon"}, "RFC 3339"),
        ({"aggregation.perSeriesAligner": "ALIGN_MEAN"}, "alignmentPeriod"),
        ({"aggregation.perSeriesAligner": "ALIGN_ODD", "aggregation.alignmentPeriod": "60s"}, "perSeriesAligner"),
    ],
)
def test_bad_requests_are_named(client: TestClient, asked: dict[str, str], says: str) -> None:
    write(client, 5, 1.0)
    answer = listed(client, **asked)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_rubbish_and_other_projects(client: TestClient) -> None:
    assert client.post(URL, content=b"{").status_code == 400
    assert client.get("/v3/projects/q/timeSeries").status_code == 404

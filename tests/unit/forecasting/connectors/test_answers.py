"""What the connectors make of answers that no real server gives when asked to."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pandas as pd
import pytest
from pydantic import BaseModel

from engine.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
    ShardwrightError,
)
from forecasting.connectors.azure_monitor import AzureMonitorConnector
from forecasting.connectors.base import Connector
from forecasting.connectors.cloudwatch import CloudWatchConnector
from forecasting.connectors.google_monitoring import GoogleMonitoringConnector
from forecasting.connectors.prometheus import PrometheusConnector

W = TypeVar("W", bound=BaseModel)
HOUR = timedelta(hours=1)
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)


class Prometheus:
    """Of each series the value at t is t's hour; at most so many samples are answered at once."""

    def __init__(self, *labels: dict[str, str], most: int = 1000, value: str | None = None) -> None:
        self.labels, self.most, self.value, self.asked = labels, most, value, 0

    def __call__(self, answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
        self.asked += 1
        start, end = (datetime.fromisoformat(str(params[key])) for key in ("start", "end"))
        moments = [start + i * HOUR for i in range((end - start) // HOUR + 1)]
        if len(moments) * len(self.labels) > self.most:
            why = "execution: query processing would load too many samples into memory in query execution"
            raise ProviderError("prom refused GET /api/v1/query_range", why=why)
        values = [(moment.timestamp(), self.value or str(moment.hour)) for moment in moments]
        result = [{"metric": metric, "values": values} for metric in self.labels]
        return answer.model_validate(
            {"status": "success", "data": {"resultType": "matrix", "result": result}}, strict=False
        )


def prometheus(server: Prometheus, *labels: str) -> Connector:
    return PrometheusConnector(server, name="prom", query="q", step=HOUR, back=4 * HOUR, labels=labels)


def pulled(connector: Connector) -> pd.DataFrame:
    return pd.concat([batch.rows for batch in connector.batches(None, NOW)], ignore_index=True)


def test_a_point_of_prometheus_stands_for_the_step_that_ends_there() -> None:
    rows = pulled(prometheus(Prometheus({"app": "api"}), "app"))
    assert rows["timestamp"].tolist() == [NOW - lead * HOUR for lead in (4, 3, 2, 1)]
    assert rows["value"].tolist() == [5, 6, 7, 8]


def test_series_without_the_chosen_label_are_told_apart_by_their_others() -> None:
    rows = pulled(prometheus(Prometheus({"app": "api"}, {"job": "x"}, {}), "app"))
    assert list(rows["series_id"].unique()) == ["api", "job=x", "prom"]


def test_a_pull_of_too_many_samples_comes_in_pieces_each_with_its_cursor() -> None:
    server = Prometheus({"app": "a"}, {"app": "b"}, most=2)
    batches = list(prometheus(server, "app").batches(None, NOW))
    assert [batch.cursor for batch in batches] == [f"2026-03-02T0{hour}:00:00Z" for hour in (5, 6, 7, 8)]
    assert [len(batch.rows) for batch in batches] == [2, 2, 2, 2]


def test_another_refusal_of_prometheus_is_not_asked_again() -> None:
    class Refusing(Prometheus):
        def __call__(self, answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
            self.asked += 1
            raise ProviderError("prom refused GET /api/v1/query_range", why="bad_data: parse error")

    server = Refusing({})
    with pytest.raises(ProviderError, match="parse error"):
        pulled(prometheus(server))
    assert server.asked == 1


def test_a_sample_of_prometheus_that_is_no_number_is_told() -> None:
    with pytest.raises(ProviderAnswerInvalid, match="'many'"):
        pulled(prometheus(Prometheus({}, value="many")))


def google(value: dict[str, str]) -> Connector:
    def get(answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
        point = {"interval": {"endTime": "2026-03-02T08:00:00Z"}, "value": value}
        series = {"metric": {"type": "m"}, "resource": {"type": "global"}, "points": [point]}
        return answer.model_validate({"timeSeries": [series]}, strict=False)

    return GoogleMonitoringConnector(get, name="gm", project="p", filter="f", step=HOUR, back=HOUR, labels=["service"])


class Pages:
    """A server whose pages hold a point each; a span of more than an hour has too many of them."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.stuck, self.asked = stuck, 0

    def __call__(self, answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
        self.asked += 1
        end = str(params["interval.endTime"])
        length = datetime.fromisoformat(end) - datetime.fromisoformat(str(params["interval.startTime"]))
        point = {"interval": {"endTime": end}, "value": {"doubleValue": 1.0}}
        series = {"metric": {"type": "m"}, "resource": {"type": "global"}, "points": [point]}
        following = "again" if self.stuck else str(self.asked) if length > HOUR else ""
        return answer.model_validate({"timeSeries": [series], "nextPageToken": following}, strict=False)


def paged(server: Pages) -> Connector:
    return GoogleMonitoringConnector(server, name="gm", project="p", filter="f", step=HOUR, back=2 * HOUR)


def test_what_google_gives_in_too_many_pages_comes_in_pieces() -> None:
    assert [batch.cursor for batch in paged(Pages()).batches(None, NOW)] == [
        "2026-03-02T07:00:00Z",
        "2026-03-02T08:00:00Z",
    ]


def test_a_page_of_google_that_follows_itself_is_not_asked_for_in_pieces() -> None:
    server = Pages(stuck=True)
    with pytest.raises(ProviderAnswerInvalid, match="next of itself"):
        pulled(paged(server))
    assert server.asked == 2


def test_a_point_of_google_that_is_no_number_is_told() -> None:
    with pytest.raises(ProviderAnswerInvalid, match="'many'"):
        pulled(google({"int64Value": "many"}))


def test_a_series_of_google_without_the_chosen_label_has_the_name_of_its_metric() -> None:
    assert pulled(google({"int64Value": "5"}))["series_id"].tolist() == ["m"]


@pytest.mark.parametrize(
    ("status", "raised"), [("InternalError", ProviderUnavailable), ("Forbidden", AuthenticationFailed)]
)
def test_a_series_that_cloudwatch_could_not_give_is_not_passed_over(
    status: str, raised: type[ShardwrightError]
) -> None:
    def ask(answer: type[W], service: str, region: str, operation: str, **arguments: Any) -> W:
        if operation == "list_metrics":
            return answer.model_validate({"Metrics": [{"Dimensions": [{"Name": "Service", "Value": "api"}]}]})
        result = {"Id": "m0", "StatusCode": status, "Messages": [{"Code": "x", "Value": "try again"}]}
        return answer.model_validate({"MetricDataResults": [result]})

    connector = CloudWatchConnector(
        ask, name="cw", region="us-east-1", namespace="n", metric_name="m", step=HOUR, back=HOUR
    )
    with pytest.raises(raised, match="did not give 'api'; try again"):
        pulled(connector)


def test_a_statistic_that_azure_lacks_is_refused_with_those_there_are() -> None:
    def get(answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
        raise AssertionError("it is asked for nothing")

    with pytest.raises(ConfigurationError, match=r"no statistic 'p90'.*Average, Total"):
        AzureMonitorConnector(get, name="am", resources=["/r"], metric_name="m", aggregation="p90", step=HOUR,
                              back=HOUR)  # fmt: skip

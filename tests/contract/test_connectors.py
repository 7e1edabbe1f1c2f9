"""The contract over every connector: a file, a real Prometheus, and the sandbox's clouds."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pandas as pd
import pytest

from engine.config import Configuration
from forecasting.connectors import azure_monitor, cloudwatch, google_monitoring, prometheus
from forecasting.connectors.kept import KeptHistory
from forecasting.connectors.sources import refreshed
from providers.sandbox.aws import ACCESS_KEY_ID
from tests.contract.connector_contract import (
    HOURS,
    SERIES,
    START,
    ConnectorContract,
    CredentialsContract,
    at,
    provider_configuration,
    samples,
)
from tests.contract.provider_contract import SandboxControl, running_server

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"
RESOURCE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/shop/providers/Microsoft.Web/sites"


class TestFile(ConnectorContract):
    whole = True

    @pytest.fixture(autouse=True, params=["csv", "parquet"])
    def _written(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        self.path = tmp_path / f"usage.{request.param}"
        rows = pd.DataFrame([(name, at(hour), value) for name, hour, value in samples()])
        rows.columns = pd.Index(["series_id", "timestamp", "cpu_cores"])
        if request.param == "csv":
            rows.assign(timestamp=rows["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(self.path, index=False)
        else:
            rows.to_parquet(self.path)

    @pytest.fixture
    def source_table(self) -> dict[str, Any]:
        return {"name": "file", "kind": "file", "path": self.path}

    @pytest.fixture
    def configuration(self) -> Configuration:
        return provider_configuration("aws")

    @contextmanager
    def down(self) -> Iterator[None]:
        """Half written, as a copy that broke off leaves it."""
        content = self.path.read_bytes()
        self.path.write_bytes(content[:7])
        yield
        self.path.write_bytes(content)

    def test_a_changed_file_replaces_what_was_kept(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        source = self.opened(source_table, configuration)
        refreshed(source, kept, at(HOURS))
        self.path.write_text(f"series_id,timestamp,value\nweb,{START.isoformat()},1\nweb,{at(1).isoformat()},2\n")
        _, rows = refreshed(source, kept, at(HOURS))
        assert rows is not None
        assert rows["series_id"].tolist() == ["web", "web"]


class TestPrometheus(ConnectorContract):
    server: "PrometheusServer"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.server = PrometheusServer(tmp_path_factory.mktemp("prometheus"))
        with cls.server:
            yield

    @pytest.fixture
    def source_table(self) -> dict[str, Any]:
        url, query = self.server.url, 'cpu_cores{job="shop"}'
        return {"name": "prom", "kind": "prometheus", "url": url, "query": query, "series_labels": ["app"]}

    @pytest.fixture
    def configuration(self) -> Configuration:
        return provider_configuration("aws")

    def modules(self) -> Sequence[object]:
        return (prometheus,)

    @contextmanager
    def down(self) -> Iterator[None]:
        self.server.stop()
        yield
        self.server.start()

    def test_the_query_is_prometheus_own(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        query = 'sum(avg_over_time(cpu_cores{job="shop"}[2h]))'
        state, rows = refreshed(self.opened(source_table, configuration, query=query), kept, at(HOURS))
        assert state.failure == ""
        assert rows is not None
        assert set(rows["value"].tail(20)) == {510.0}
        assert set(rows["series_id"]) == {"prom"}  # the sum has no label

    def test_without_series_labels_all_of_them_make_the_id(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        _, rows = refreshed(self.opened(source_table, configuration, series_labels=[]), kept, at(HOURS))
        assert rows is not None
        assert set(rows["series_id"]) == {"app=api,job=shop", "app=db,job=shop"}

    def test_series_under_one_id_are_refused(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        state, _ = refreshed(self.opened(source_table, configuration, series_labels=["job"]), kept, at(HOURS))
        assert "several series have the id 'shop'" in state.failure

    def test_a_query_that_prometheus_cannot_read_is_told_in_its_words(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        state, _ = refreshed(self.opened(source_table, configuration, query="cpu_cores{"), kept, at(HOURS))
        assert "parse error" in state.failure


_SCRAPED = timedelta(minutes=2)
"""The last time within an hour, before its end."""


class PrometheusServer:
    """A real server on loopback with a data folder of its own, filled by promtool."""

    def __init__(self, folder: Path) -> None:
        if not (shutil.which("prometheus") and shutil.which("promtool")):
            pytest.skip("Prometheus is not installed; make setup-test")
        self._folder, self._process = folder, None
        lines = [
            f'cpu_cores{{app="{name}",job="shop"}} {value} {(at(hour + 1) - _SCRAPED).timestamp():.0f}'
            for name, hour, value in samples()
        ]
        (folder / "samples.txt").write_text("\n".join(["# TYPE cpu_cores gauge", *lines, "# EOF\n"]))
        (folder / "prometheus.yml").write_text("")
        blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=240h"]
        subprocess.run([*blocks, folder / "samples.txt", folder / "data"], check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    "--storage.tsdb.retention.time=100y",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            try:
                if httpx.get(f"{self.url}/-/ready", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)  # a real process, not a clock
        self.stop()
        pytest.fail((self._folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._process = None


class TestCloudWatch(CredentialsContract):
    control: SandboxControl

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls) -> Iterator[None]:
        with running_server("providers.sandbox.aws", "--account", "123456789012", "--regions", "us-east-1") as server:
            cls.control = server
            client = boto3.client(
                "cloudwatch",
                region_name="us-east-1",
                endpoint_url=server.url,
                aws_access_key_id=ACCESS_KEY_ID,
                aws_secret_access_key="any",
            )
            data = [
                {
                    "MetricName": "CoresUsed",
                    "Dimensions": [{"Name": "Service", "Value": name}],
                    "Timestamp": at(hour),
                    "Value": value,
                }
                for name, hour, value in samples()
            ]
            for first in range(0, len(data), 100):
                client.put_metric_data(Namespace="Shop", MetricData=data[first : first + 100])
            yield

    @pytest.fixture
    def source_table(self) -> dict[str, Any]:
        place = {"provider": "aws", "region": "us-east-1"}
        return {"name": "cw", "kind": "cloudwatch", "namespace": "Shop", "metric_name": "CoresUsed", **place}

    def _configured(self, monkeypatch: pytest.MonkeyPatch, key_id: str) -> Configuration:
        monkeypatch.setenv("KEY_ID", key_id)
        monkeypatch.setenv("SECRET", "any")
        credentials = {"access_key_id": {"env": "KEY_ID"}, "secret_access_key": {"env": "SECRET"}}
        return provider_configuration("aws", endpoint=self.control.url, credentials=credentials)

    @pytest.fixture
    def configuration(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        return self._configured(monkeypatch, ACCESS_KEY_ID)

    @pytest.fixture
    def stranger(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        return self._configured(monkeypatch, "AKIANOBODY")

    def modules(self) -> Sequence[object]:
        return (cloudwatch,)

    def down(self) -> AbstractContextManager[object]:
        return self.control.faulty("down")

    def test_dimensions_narrow_the_choice_and_the_statistic_counts(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        narrowed = self.opened(
            source_table, configuration, dimensions={"Service": "api"}, statistic="SampleCount", step="6h"
        )
        _, rows = refreshed(narrowed, kept, at(HOURS))
        assert rows is not None
        assert set(zip(rows["series_id"], rows["value"], strict=True)) == {("api", 6.0)}


class TestGoogleMonitoring(CredentialsContract):
    control: SandboxControl

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls) -> Iterator[None]:
        with running_server("providers.sandbox.gcp", "--account", "shop-project") as server:
            cls.control = server
            with httpx.Client(headers={"Authorization": "Bearer sandbox"}, trust_env=False) as client:
                for hour in range(HOURS):
                    series = [_google_series(name, hour, values[hour]) for name, values in SERIES.items()]
                    url = f"{server.url}/v3/projects/shop-project/timeSeries"
                    assert client.post(url, json={"timeSeries": series}).status_code == 200
            yield

    @pytest.fixture
    def source_table(self) -> dict[str, Any]:
        kind = {"name": "gm", "kind": "google_monitoring", "provider": "gcp", "series_labels": ["service"]}
        return {**kind, "filter": 'metric.type = "custom.googleapis.com/cores"'}

    def _configured(self, monkeypatch: pytest.MonkeyPatch, token: str) -> Configuration:
        monkeypatch.setenv("TOKEN", token)
        credentials = {"access_token": {"env": "TOKEN"}}
        url = self.control.url
        return provider_configuration("gcp", account="shop-project", endpoint=url, credentials=credentials)

    @pytest.fixture
    def configuration(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        return self._configured(monkeypatch, "sandbox")

    @pytest.fixture
    def stranger(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        return self._configured(monkeypatch, "nobody")

    def modules(self) -> Sequence[object]:
        return (google_monitoring,)

    def down(self) -> AbstractContextManager[object]:
        return self.control.faulty("throttle")

    def test_a_page_may_end_within_a_series(
        self,
        source_table: dict[str, Any],
        configuration: Configuration,
        kept: KeptHistory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(google_monitoring, "_PAGE", 50)
        state, _ = refreshed(self.opened(source_table, configuration), kept, at(HOURS))
        assert (state.samples, state.failure) == (2 * HOURS, "")

    def test_a_filter_that_cannot_be_read_is_told(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        state, _ = refreshed(self.opened(source_table, configuration, filter="everything"), kept, at(HOURS))
        assert "must specify a metric.type" in state.failure


def _google_series(name: str, hour: int, value: float) -> dict[str, Any]:
    end = (at(hour) + timedelta(minutes=30)).isoformat()
    return {
        "metric": {"type": "custom.googleapis.com/cores", "labels": {"service": name}},
        "resource": {"type": "global", "labels": {"project_id": "shop-project"}},
        "points": [{"interval": {"endTime": end}, "value": {"doubleValue": value}}],
    }


class TestAzureMonitor(CredentialsContract):
    control: SandboxControl

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls) -> Iterator[None]:
        with running_server("providers.sandbox.azure", "--account", SUBSCRIPTION) as server:
            cls.control = server
            form = {"grant_type": "client_credentials", "client_id": "app", "scope": "x", "client_secret": "sandbox"}
            token = httpx.post(f"{server.url}/t/oauth2/v2.0/token", data=form, trust_env=False).json()["access_token"]
            with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client:
                for name, hour, value in samples():
                    bundle = {"min": value, "max": value, "sum": value, "count": 1}
                    data = {"baseData": {"metric": "CoresUsed", "namespace": "Shop", "series": [bundle]}}
                    body = {"time": at(hour).isoformat(), "data": data}
                    assert client.post(f"{server.url}{RESOURCE}/{name}/metrics", json=body).status_code == 200
            yield

    @pytest.fixture
    def source_table(self) -> dict[str, Any]:
        resources = [f"{RESOURCE}/api", f"{RESOURCE}/db"]
        return {"name": "am", "kind": "azure_monitor", "provider": "azure", "resources": resources,
                "metric_name": "CoresUsed"}  # fmt: skip

    def _configured(self, monkeypatch: pytest.MonkeyPatch, secret: str) -> Configuration:
        monkeypatch.setenv("WORD", "app")
        monkeypatch.setenv("SECRET", secret)
        credentials = {
            "tenant_id": {"env": "WORD"},
            "client_id": {"env": "WORD"},
            "client_secret": {"env": "SECRET"},
        }
        return provider_configuration("azure", account=SUBSCRIPTION, endpoint=self.control.url, credentials=credentials)

    @pytest.fixture
    def configuration(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        return self._configured(monkeypatch, "sandbox")

    @pytest.fixture
    def stranger(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        return self._configured(monkeypatch, "wrong")

    def modules(self) -> Sequence[object]:
        return (azure_monitor,)

    def down(self) -> AbstractContextManager[object]:
        return self.control.faulty("rubbish")

    def test_a_step_that_the_api_lacks_is_refused(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        state, _ = refreshed(self.opened(source_table, configuration, step="2h"), kept, at(HOURS))
        assert "has no step of 2:00:00" in state.failure

    def test_an_unknown_metric_is_told_with_those_there_are(
        self, source_table: dict[str, Any], configuration: Configuration, kept: KeptHistory
    ) -> None:
        state, _ = refreshed(self.opened(source_table, configuration, metric_name="Cores"), kept, at(HOURS))
        assert "Valid metrics: CoresUsed" in state.failure


def test_the_hours_are_in_the_past() -> None:
    assert at(HOURS) < datetime.now(UTC)

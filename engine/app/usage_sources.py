"""The configured sources of usage, opened: each connector with its provider's endpoint, credentials and retries."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import BaseModel

from engine.clock import Clock
from engine.config import Configuration, SourceTable
from engine.config_sources import SOURCE_KINDS
from engine.errors import ConfigurationError
from forecasting.connectors.base import Batch, Connector, Get
from forecasting.connectors.sources import Source, Sources
from forecasting.durations import parse_duration
from providers.base import ProviderSettings

W = TypeVar("W", bound=BaseModel)
FOLDER = "usage"
"""In the state directory: what the sources have delivered."""
_NOT_OTHER_SAMPLES = {"name", "history_days", "timeout_seconds", "ca_file", "credentials"}
"""Keys that may change while the history stays the same."""
_STEPS_OF_THEIR_OWN = frozenset({"file"})
"""Kinds that are not asked in steps."""


def open_sources(configuration: Configuration, clock: Clock) -> Sources:
    """Nothing is asked yet. A source without its credentials fails when it is asked, like one that is down."""
    table = configuration.forecast
    steps = [parse_duration(one.step) for one in table.sources if one.kind not in _STEPS_OF_THEIR_OWN]
    return Sources(
        [open_source(one, configuration, clock) for one in table.sources],
        configuration.state.directory / FOLDER,
        metric=table.metric,
        least=max(steps, default=None),
    )


def open_source(table: SourceTable, configuration: Configuration, clock: Clock) -> Source:
    said = table.model_dump_json(exclude=_NOT_OTHER_SAMPLES)
    return Source(table.name, _Opened(table, configuration, clock), hashlib.sha256(said.encode()).hexdigest()[:8])


class _Opened:
    """``Connector``: built when it is first asked, so that missing credentials cost this source alone."""

    def __init__(self, table: SourceTable, configuration: Configuration, clock: Clock) -> None:
        self._table, self._configuration, self._clock = table, configuration, clock

    def batches(self, cursor: str | None, until: datetime) -> Iterator[Batch]:
        build = _BUILDERS[self._table.kind]
        yield from build(self._table, self._configuration, self._clock).batches(cursor, until)


def _file(table: SourceTable, configuration: Configuration, clock: Clock) -> Connector:
    from forecasting.connectors.file import FileConnector

    return FileConnector(_given(table, "path", table.path), metric=table.metric)


def _prometheus(table: SourceTable, configuration: Configuration, clock: Clock) -> Connector:
    from forecasting.connectors.prometheus import PrometheusConnector
    from providers.rest import RestApi, Token

    url, secrets = _given(table, "url", table.url).rstrip("/"), table.secrets()
    settings = ProviderSettings(
        name=table.name,
        kind=table.kind,
        account="",
        regions=(),
        endpoint=url,
        ca_file=None if table.ca_file is None else str(table.ca_file),
        timeout_seconds=table.timeout_seconds,
    )
    login = None
    if "username" in secrets:
        password = secrets.get("password")
        login = (secrets["username"].get_secret_value(), password.get_secret_value() if password else "")
    api = RestApi(settings, clock, table=f"forecast.sources.{table.name}", login=login)
    token: Token | None = _Bearer(secrets["token"].get_secret_value()) if "token" in secrets else None

    def get(answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
        return api.get(answer, url + path, token=token, params=params)

    return PrometheusConnector(
        get,
        name=table.name,
        query=_given(table, "query", table.query),
        labels=table.series_labels,
        step=parse_duration(table.step),
        back=timedelta(days=table.history_days),
    )


def _cloudwatch(table: SourceTable, configuration: Configuration, clock: Clock) -> Connector:
    from forecasting.connectors.cloudwatch import CloudWatchConnector
    from providers.aws_api import AwsApi

    return CloudWatchConnector(
        AwsApi(_provider(table, configuration), clock).ask,
        name=table.name,
        region=_given(table, "region", table.region),
        namespace=_given(table, "namespace", table.namespace),
        metric_name=_given(table, "metric_name", table.metric_name),
        statistic=table.statistic or "Average",
        dimensions=table.dimensions,
        step=parse_duration(table.step),
        back=timedelta(days=table.history_days),
    )


def _google_monitoring(table: SourceTable, configuration: Configuration, clock: Clock) -> Connector:
    from forecasting.connectors.google_monitoring import GoogleMonitoringConnector
    from providers.gcp_api import GcpApi

    settings = _provider(table, configuration)
    api = GcpApi(settings, clock)
    return GoogleMonitoringConnector(
        _below(api.get, api.monitoring),
        name=table.name,
        project=settings.account,
        filter=_given(table, "filter", table.filter),
        aligner=table.statistic or "ALIGN_MEAN",
        labels=table.series_labels,
        step=parse_duration(table.step),
        back=timedelta(days=table.history_days),
    )


def _azure_monitor(table: SourceTable, configuration: Configuration, clock: Clock) -> Connector:
    from forecasting.connectors.azure_monitor import AzureMonitorConnector
    from providers.azure_api import AzureApi

    api = AzureApi(_provider(table, configuration), clock)
    return AzureMonitorConnector(
        _below(api.get, api.arm),
        name=table.name,
        resources=table.resources,
        metric_name=_given(table, "metric_name", table.metric_name),
        namespace=table.namespace,
        aggregation=table.statistic or "Average",
        step=parse_duration(table.step),
        back=timedelta(days=table.history_days),
    )


_Builder = Callable[[SourceTable, Configuration, Clock], Connector]
_BUILDERS: Mapping[str, _Builder] = {
    "file": _file,
    "prometheus": _prometheus,
    "cloudwatch": _cloudwatch,
    "google_monitoring": _google_monitoring,
    "azure_monitor": _azure_monitor,
}
"""One line per key of ``SOURCE_KINDS``."""
assert _BUILDERS.keys() == SOURCE_KINDS.keys()


def _below(get: Get, base: str) -> Get:
    def below(answer: type[W], path: str, params: Mapping[str, str | int], /) -> W:
        return get(answer, base + path, params)

    return below


class _Bearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self) -> str:
        return self._token

    def forget(self) -> None:
        """There is no other to be had."""


def _provider(table: SourceTable, configuration: Configuration) -> ProviderSettings:
    """Raises AuthenticationFailed where the provider's credentials are missing."""
    return configuration.settings_of(_given(table, "provider", table.provider))


T = TypeVar("T")


def _given(table: SourceTable, key: str, value: T | None) -> T:
    if value is None:
        raise ConfigurationError(f"forecast.sources.{table.name}.{key}: required with kind {table.kind!r}, but missing")
    return value

"""shardwright.toml: parsed strictly, every problem reported at once with its key path and a did-you-mean."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator

from engine.config_agreements import AgreementTable, refuse_agreements
from engine.config_references import unresolved_references
from engine.config_secrets import SOURCE_FORM, SecretSource, without_passwords
from engine.config_table import Name as _Name
from engine.config_table import Share as _Share
from engine.config_table import Table as _Table
from engine.config_table import url_begun_at
from engine.config_workloads import WorkloadTable
from engine.errors import ConfigurationError
from engine.model.capacity import Amount, Growth, Placement, Pool, Resources, RiskClass, ShardType
from engine.model.ids import PoolId
from engine.model.money import Currency, Money
from engine.model.placement import Cell
from engine.model.workload_image import RECORDS, WorkloadImage
from engine.retraining.decision import RetrainingTerms
from providers.base import ProviderSettings

_HIGHEST_PORT = 65535


def _host_and_port(text: str) -> str:
    """As a node can be told it: it becomes part of a URL in user data, when the node is already paid for."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    fits = _is_ipv6(host[1:-1]) if bracketed else re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", host)
    if fits and re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) <= _HIGHEST_PORT:
        return text
    raise ValueError("must be HOST:PORT, such as control.example.com:7440 or [2001:db8::1]:7440")


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _known_currency(code: str) -> str:
    if code != "USD":
        raise ValueError("must be USD: prices are compared in it, and there are no exchange rates")
    return code


class StateTable(_Table):
    directory: Path = Path(".shardwright")
    database_url: Annotated[str, Field(pattern=r"^(sqlite:///|postgresql(\+[a-z0-9]+)?://)")] | None = None
    """None: SQLite in ``directory``."""
    keep_days: Annotated[float, Field(ge=1, le=36_600)] = 90.0
    """For how long plans, records of rounds, holds that were given back and recorded steps are kept."""

    def begun_at(self, folder: Path) -> Self:
        url = url_begun_at(self.database_url, "sqlite:///", folder)
        return super().begun_at(folder).model_copy(update={"database_url": url})


class ControlTable(_Table):
    listen: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    advertise: Annotated[str, AfterValidator(_host_and_port)] | None = None
    """HOST:PORT under which agents reach the control plane; None: the listening address."""
    agent_package: Annotated[str, Field(pattern=r"^[^'\n]+$")] | None = None
    """What pip installs on a node whose image lacks the agent (a pinned name, a URL); None: the image must have it."""
    web_port: Annotated[int, Field(ge=0, le=65535)] = 0
    dns_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """UDP, on loopback, while ``run --serve`` runs; 0: any."""
    run_lease_seconds: Annotated[float, Field(ge=5, le=3600)] | None = None
    """How long shards run on without the control plane; None: for ever."""
    underlay_mtu: Annotated[int, Field(ge=1280, le=9216)] = 1500
    """What every way between nodes carries; guests get 130 less."""


class PulumiTable(_Table):
    state_url: str | None = None
    """None: files in the state directory."""
    passphrase: SecretSource = SecretSource(env="PULUMI_CONFIG_PASSPHRASE")
    attached_plugins: dict[str, int] = Field(default_factory=dict)
    """Plugin name -> port of a running provider plugin (PULUMI_DEBUG_PROVIDERS); empty: real plugins."""
    parallel_cells: Annotated[int, Field(ge=1)] = 8

    def begun_at(self, folder: Path) -> Self:
        url = url_begun_at(self.state_url, "file://", folder)
        return super().begun_at(folder).model_copy(update={"state_url": url})


class SourceTable(_Table):
    """Where usage comes from; which keys belong to which kind is in engine/config_sources.py."""

    name: _Name
    kind: str
    step: Annotated[str, Field(pattern=r"^[1-9]\d*(s|min|m|h|d)$")] = "1h"
    history_days: Annotated[float, Field(gt=0, le=3660)] = 56.0
    """How far back the first pull goes."""
    path: Path | None = None
    metric: str | None = None
    url: str | None = None
    query: str | None = None
    series_labels: tuple[str, ...] = ()
    ca_file: Path | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    credentials: dict[str, SecretSource] = Field(default_factory=dict)
    provider: str | None = None
    region: str | None = None
    namespace: str | None = None
    metric_name: str | None = None
    dimensions: dict[str, str] = Field(default_factory=dict)
    filter: str | None = None
    resources: tuple[str, ...] = ()
    statistic: str | None = None

    def secrets(self, environment: Mapping[str, str] = os.environ) -> dict[str, SecretStr]:
        """Raises AuthenticationFailed naming the first that is missing."""
        return {
            key: source.read(f"forecast.sources.{self.name}.credentials.{key}", environment)
            for key, source in self.credentials.items()
        }


class RetrainingTable(_Table):
    """When the network is trained again on the user's own usage; see engine/retraining/decision.py."""

    enabled: bool = True
    every_days: Annotated[float, Field(gt=0, le=3660)] = 7.0
    min_new_days: Annotated[float, Field(ge=0, le=3660)] = 1.0
    drift: Annotated[float, Field(gt=0)] = 1.0
    """The network's loss beside seasonal naive's, above which it has drifted."""
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """A candidate must lose less than the incumbent by this share."""
    budget_seconds: Annotated[float, Field(gt=0)] = 120.0

    def terms(self) -> RetrainingTerms:
        return RetrainingTerms(
            every=timedelta(days=self.every_days),
            min_new=timedelta(days=self.min_new_days),
            drift=self.drift,
            min_gain=self.min_gain,
        )


class ForecastTable(_Table):
    usage: Path | None = None
    replay: bool = False
    """The usage is a recording: forecast from its end, as though that were now."""
    sources: tuple[SourceTable, ...] = ()
    metric: str | None = None
    horizon_steps: Annotated[int, Field(ge=1)] = 24
    budget_seconds: Annotated[float, Field(gt=0)] = 30.0
    paths: Annotated[int, Field(ge=10)] = 200
    seed: int = 7
    retraining: RetrainingTable = RetrainingTable()


class PolicyTable(_Table):
    max_provider_share: _Share = 1.0
    max_spot_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    hourly_budget: Annotated[Decimal, Field(gt=0)] | None = None
    currency: Annotated[Currency, AfterValidator(_known_currency)] = "USD"
    regions: tuple[str, ...] = ()
    instance_families: tuple[str, ...] = ()
    term_hours: Annotated[float, Field(gt=0)] = 24.0
    """For how long capacity is bought ahead."""
    churn_penalty: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Giving a node up counts this share of its price against a plan, so that small price moves change nothing."""
    auto_converge: bool = False
    """A guest under KVM that writes faster than a move copies may be slowed down."""
    post_copy: bool = False
    """One that still does not converge may run on its new node before all its memory is there."""
    min_move_saving: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """A cost-driven move must save at least this share of what staying would cost, net of what it costs."""

    @property
    def budget(self) -> Money | None:
        return None if self.hourly_budget is None else Money(amount=self.hourly_budget, currency=self.currency)


class ShardTypeTable(_Table):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(\.[a-z0-9]+)+$")]
    vcpus: Annotated[float, Field(gt=0)]
    memory_gib: Annotated[float, Field(gt=0)]
    storage_iops: Amount = 0
    network_mbps: Amount = 0
    min_performance: Amount = 0
    disk_gib: Annotated[float, Field(ge=0, le=16_384)] = 0
    """Size of the disk that such a shard lends to others; 0: it runs a guest."""

    def value(self) -> ShardType:
        return ShardType(
            name=self.name,
            resources=Resources(
                vcpus=self.vcpus,
                memory_gib=self.memory_gib,
                storage_iops=self.storage_iops,
                network_mbps=self.network_mbps,
            ),
            min_performance=self.min_performance,
            disk_gib=self.disk_gib,
        )


class ProviderTable(_Table):
    name: _Name
    kind: str
    account: str
    regions: Annotated[tuple[str, ...], Field(min_length=1)]
    endpoint: str | None = None
    ca_file: Path | None = None
    metadata_url: str | None = None
    attestation_keys: str | None = None
    """What signed identities of instances are checked against; see providers.base.ProviderSettings."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    credentials: dict[str, SecretSource] = Field(default_factory=dict)
    signing_keys: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")], ...] = ()
    """RFC 7638 thumbprints of the keys that a network's prices must be signed with."""
    agreements: tuple[AgreementTable, ...] = ()

    @model_validator(mode="after")
    def _only_networks_sign(self) -> Self:
        if self.signing_keys and self.kind != "network":
            raise ValueError("signing_keys belongs to kind 'network': no other provider signs its prices")
        return self

    @model_validator(mode="after")
    def _agreements_where_prices_are_posted(self) -> Self:
        refuse_agreements(self.kind, self.agreements)
        return self

    def begun_at(self, folder: Path) -> Self:
        keys = url_begun_at(self.attestation_keys, "", folder)
        return super().begun_at(folder).model_copy(update={"attestation_keys": keys})


class PoolTable(_Table):
    id: _Name
    shard_type: str
    risk_class: str
    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    series: str | None = None
    """Series of the usage file that drives this pool; None: the only one, or pools take them in order."""
    per_shard: Annotated[float, Field(gt=0)] | None = None
    """Usage that one shard serves, in the metric's unit; None: derived from ``peak_shards``."""
    peak_shards: Annotated[int, Field(ge=1)] = 6
    """Without ``per_shard``: the history's peak (its 99th percentile) is what this many shards serve."""
    image: str = RECORDS
    """What the pool's shards boot from: one of ``images``, or the record server's."""
    memory_grows_to_gib: Annotated[float, Field(gt=0, le=1 << 20)] | None = None
    """The most memory that a shard of the pool may be given while it runs; None: four times what it is carved with."""
    vcpus_grow_to: Annotated[float, Field(gt=0, le=1024)] | None = None
    """The most vCPUs; None: what it is carved with, in whole ones."""


class Configuration(_Table):
    """The whole file. Cells are derived: one per provider and region."""

    name: _Name = "shardwright"
    """Prefix of node names, so that two installations can share an account."""
    state: StateTable = StateTable()
    control: ControlTable = ControlTable()
    pulumi: PulumiTable = PulumiTable()
    forecast: ForecastTable = ForecastTable()
    policy: PolicyTable = PolicyTable()
    risk_classes: Annotated[tuple[RiskClass, ...], Field(min_length=1)]
    shard_types: Annotated[tuple[ShardTypeTable, ...], Field(min_length=1)]
    providers: Annotated[tuple[ProviderTable, ...], Field(min_length=1)]
    pools: Annotated[tuple[PoolTable, ...], Field(min_length=1)]
    images: tuple[WorkloadImage, ...] = ()
    workloads: tuple[WorkloadTable, ...] = ()

    @property
    def database_url(self) -> str:
        return self.state.database_url or f"sqlite:///{(self.state.directory / 'control.sqlite').resolve()}"

    @property
    def term(self) -> timedelta:
        return timedelta(hours=self.policy.term_hours)

    def cells(self) -> tuple[Cell, ...]:
        return tuple(
            Cell(provider=p.name, kind=p.kind, account=p.account, region=region)
            for p in self.providers
            for region in p.regions
        )

    def pool_values(self) -> tuple[Pool, ...]:
        types = {table.name: table.value() for table in self.shard_types}
        classes = {risk.name: risk for risk in self.risk_classes}
        return tuple(
            Pool(
                id=PoolId(table.id),
                shard_type=types[table.shard_type],
                risk_class=classes[table.risk_class],
                placement=Placement(providers=table.providers, regions=table.regions),
            )
            for table in self.pools
        )

    def image_of(self, pool: PoolId) -> WorkloadImage | None:
        """What the pool's shards boot from; None: the record server's image."""
        named = next((table.image for table in self.pools if table.id == pool), RECORDS)
        return next((image for image in self.images if image.name == named), None)

    def growth_of(self, pool: PoolId) -> Growth:
        """How far the pool's shards may grow while they run."""
        table = next((table for table in self.pools if table.id == pool), None)
        return Growth() if table is None else Growth(memory_gib=table.memory_grows_to_gib, vcpus=table.vcpus_grow_to)

    def provider_settings(self, environment: Mapping[str, str] = os.environ) -> tuple[ProviderSettings, ...]:
        """With credentials resolved. Raises AuthenticationFailed naming the first that is missing."""
        return tuple(_settings(table, environment) for table in self.providers)

    def provider(self, name: str) -> ProviderTable:
        return next(table for table in self.providers if table.name == name)

    def settings_of(self, provider: str, environment: Mapping[str, str] = os.environ) -> ProviderSettings:
        """Of one provider by its name, with its credentials. Raises AuthenticationFailed."""
        return _settings(self.provider(provider), environment)


def _settings(table: ProviderTable, environment: Mapping[str, str]) -> ProviderSettings:
    return ProviderSettings(
        name=table.name,
        kind=table.kind,
        account=table.account,
        regions=table.regions,
        endpoint=table.endpoint,
        ca_file=None if table.ca_file is None else str(table.ca_file),
        metadata_url=table.metadata_url,
        signing_keys=table.signing_keys,
        attestation_keys=table.attestation_keys,
        timeout_seconds=table.timeout_seconds,
        credentials={
            key: source.read(f"providers.{table.name}.credentials.{key}", environment)
            for key, source in table.credentials.items()
        },
    )


def load_configuration(path: Path) -> Configuration:
    """Relative paths in it begin at its folder, whatever the current one is: the same file is the same installation.

    Raises ConfigurationError that lists every problem of the file.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}", why=error.strerror or str(error), next_step="give the file with --config FILE"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is not TOML", why=str(error), next_step=f"mend it, then shardwright config check --config {path}"
        ) from error
    return parse_configuration(raw, origin=str(path)).begun_at(_folder_of(path))


def _folder_of(path: Path) -> Path:
    """Nothing can be kept beside a pipe (``--config <(…)``): its relative paths begin at the current folder."""
    return path.absolute().parent if path.is_file() else Path.cwd()


def parse_configuration(raw: Mapping[str, Any], *, origin: str) -> Configuration:
    problems: list[str] = []
    configuration: Configuration | None = None
    try:
        configuration = Configuration.model_validate(raw)
    except ValidationError as error:
        problems.extend(_describe(item) for item in error.errors() if not _follows_from_another(item))
    problems.extend(unresolved_references(raw))
    if problems or configuration is None:
        listing = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigurationError(
            f"{origin}: {len(problems)} problem{'s' if len(problems) > 1 else ''}\n{listing}",
            next_step=f"mend them (the keys are in docs/reference.md), then shardwright config check --config {origin}",
        )
    return configuration


def _follows_from_another(error: Any) -> bool:
    """A list whose items were all refused is reported as too short as well; the items say why."""
    return error["type"] == "too_short" and bool(error["input"])


def _describe(error: Any) -> str:
    location = tuple(error["loc"])
    path = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        guess = get_close_matches(str(location[-1]), _keys_at(location[:-1]), n=1)
        return f"{path}: unknown key" + (f"; did you mean {guess[0]!r}?" if guess else "")
    if error["type"] == "missing":
        return f"{path}: required, but missing"
    if location[-1:] == ("database_url",):
        return f"{path}: must be sqlite:///FILE or postgresql://…"  # what is there may hold a password
    if _is_secret(location):
        # Whatever is there may be the secret itself: it is not shown.
        return f"{path}: say where the secret is read from: {SOURCE_FORM}; the secret itself does not belong here"
    return f"{path}: {error['msg']} (got {_shown(error['input'])})"


def _is_secret(location: Sequence[int | str]) -> bool:
    return "credentials" in location or location[-1:] == ("passphrase",)


def _shown(value: object) -> str:
    text = without_passwords(repr(value))
    return text if len(text) <= 60 else text[:57] + "…"


def _keys_at(location: Sequence[int | str]) -> list[str]:
    """Field names of the table at ``location``, found by walking the model's annotations."""
    table: type[BaseModel] = Configuration
    for part in location:
        if isinstance(part, str) and part in table.model_fields:
            inner = _inner_model(table.model_fields[part].annotation)
            if inner is None:
                return []
            table = inner
    return list(table.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None

"""What can be done from a configuration alone: find it, read it, open the store and the providers it names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from engine.clock import Clock, SystemClock
from engine.config import Configuration, load_configuration
from engine.errors import ConfigurationError, UsageError
from engine.model.composite import CompositeRule
from engine.model.ids import PoolId
from engine.model.placement import ComponentName

if TYPE_CHECKING:
    from engine.api.stored_view import StoredView
    from engine.billing.fetch import Fetched
    from engine.doctor import Check
    from engine.market.agreements import Agreement
    from engine.market.discovery import MarketView
    from engine.planner.policy import PlanPolicy
    from engine.store.opened import Store
    from providers.base import Provider

CONFIGURATION_NAME = "shardwright.toml"
EMBEDDED = Path(".shardwright/sandbox")
_CANDIDATES = (Path(CONFIGURATION_NAME), EMBEDDED / CONFIGURATION_NAME)
DISK_MIB = 64
"""Size of a shard's disk."""
DISCOVERY_SECONDS = 30.0


def find_configuration(given: Path | None) -> Path:
    """The given file, else shardwright.toml here, else that of the embedded sandbox. Raises ConfigurationError."""
    found = given or configuration_here()
    if found is None:
        raise ConfigurationError(
            "there is no configuration",
            why=f"neither {' nor '.join(map(str, _CANDIDATES))} exists",
            next_step="shardwright sandbox up, or write a shardwright.toml (docs/reference.md)",
        )
    return found


def configuration_here() -> Path | None:
    """Of one's own in this folder, else of the sandbox that is up."""
    return next((candidate for candidate in _CANDIDATES if candidate.exists()), None)


def load(given: Path | None) -> Configuration:
    return load_configuration(find_configuration(given))


def require_reachable(configuration: Configuration) -> None:
    """Where nodes run at a provider's own site, they must find the control plane: else they would be paid for and never
    join. Whoever only looks (offers, forecasts) needs none of it. Raises ConfigurationError.

    A provider with an endpoint of the user's own (a sandbox, a network) may be anywhere.
    """
    control = configuration.control
    elsewhere = [one.name for one in configuration.providers if one.endpoint is None]
    host, _, port = (control.advertise or f"{control.listen}:{control.port}").rpartition(":")
    if not elsewhere or (port != "0" and not _on_this_machine_only(host.strip("[]"))):
        return
    raise ConfigurationError(
        f"nodes at {', '.join(elsewhere)} could not reach this control plane",
        why=f"they would be told {host}:{port}",
        next_step="set control.listen, control.port, and control.advertise to HOST:PORT as nodes see it",
    )


def _on_this_machine_only(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


@contextmanager
def open_store(configuration: Configuration) -> "Iterator[Store]":
    """The control store, also beside a running control plane."""
    from engine.store.opened import opened_store

    configuration.state.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with opened_store(configuration.database_url, SystemClock()) as store:
        yield store


def stored_view(configuration: Configuration, store: "Store") -> "StoredView":
    from engine.api.stored_view import StoredView

    workloads = {
        pool: tuple(sorted({f"{name.namespace}/{name.workload}" for name in names}))
        for pool, names in _served(configuration).items()
    }
    return StoredView(configuration.name, store, workloads)


def open_providers(configuration: Configuration, clock: Clock) -> "dict[str, Provider]":
    """By configured name. Raises AuthenticationFailed where credentials are missing."""
    from providers.registry import open_provider

    return {settings.name: open_provider(settings, clock=clock) for settings in configuration.provider_settings()}


def components(configuration: Configuration) -> Mapping[PoolId, tuple[ComponentName, ...]]:
    """Which components each pool serves."""
    found: dict[PoolId, list[ComponentName]] = {}
    for workload in configuration.workloads:
        for component in workload.components:
            name = ComponentName(namespace=workload.namespace, workload=workload.name, component=component.name)
            found.setdefault(PoolId(component.pool), []).append(name)
    return {pool: tuple(names) for pool, names in found.items()}


def _served(configuration: Configuration) -> Mapping[PoolId, tuple[ComponentName, ...]]:
    """Which components use each pool, those whose data it holds included."""
    found = dict(components(configuration))
    for name, rule in composite_rules(configuration).items():
        if rule.storage is not None:
            found[rule.storage] = (*found.get(rule.storage, ()), name)
    return found


def composite_rules(configuration: Configuration) -> Mapping[ComponentName, CompositeRule]:
    """Of the components that say more than their name and pool."""
    return {
        ComponentName(namespace=workload.namespace, workload=workload.name, component=component.name): component.rule()
        for workload in configuration.workloads
        for component in workload.components
        if component.model_fields_set - {"name", "pool"}
    }


def agreements(configuration: Configuration) -> "tuple[Agreement, ...]":
    """The negotiated prices of every provider."""
    from engine.market.agreements import Agreement

    return tuple(
        Agreement(
            provider=provider.name,
            discount=table.discount,
            instance_types=table.instance_types,
            regions=table.regions,
            options=table.options,
            until=table.until,
        )
        for provider in configuration.providers
        for table in provider.agreements
    )


def plan_policy(configuration: Configuration) -> "PlanPolicy":
    from engine.planner.policy import MoveTerms, PlanPolicy

    table = configuration.policy
    return PlanPolicy(
        currency=table.currency,
        max_provider_share=table.max_provider_share,
        max_spot_share=table.max_spot_share,
        regions=table.regions,
        instance_families=table.instance_families,
        hourly_budget=table.budget,
        min_move_saving=table.min_move_saving,
        churn_penalty=table.churn_penalty,
        moves=MoveTerms(expected_stay_hours=table.term_hours, egress_gib=DISK_MIB / 1024),
        node_prefix=configuration.name,
    )


def fetch_bills(
    configuration: Configuration, store: "Store", *, start: datetime | None, end: datetime | None
) -> "Fetched":
    """Default period: this month until now. Times without a zone are UTC."""
    from datetime import UTC

    from engine.billing.fetch import fetch
    from engine.model.value import Interval

    clock = SystemClock()
    until = end.replace(tzinfo=UTC) if end and end.tzinfo is None else end or clock.now()
    first = until.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since = start.replace(tzinfo=UTC) if start and start.tzinfo is None else start or first
    if since >= until:
        raise UsageError(
            f"the period from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} is empty",
            why="it ends before it starts",
            next_step="give --start and --end in that order, in UTC",
        )
    return fetch(open_providers(configuration, clock), store.ledger, Interval(start=since, end=until))


def discover_offers(configuration: Configuration, *, vcpus: float, memory_gib: float) -> "MarketView":
    """As rounds see them: at negotiated prices, and with what is believed because of earlier rounds."""
    from engine.app.provider_keys import remember_keys
    from engine.market.agreements import with_agreements
    from engine.market.beliefs import with_beliefs
    from engine.market.discovery import discover
    from engine.market_watch import MarketWatch
    from engine.model.capacity import Resources
    from engine.model.market import OfferQuery

    clock = SystemClock()
    providers = list(open_providers(configuration, clock).values())
    need = OfferQuery(at_least=Resources(vcpus=vcpus, memory_gib=memory_gib))
    with open_store(configuration) as store:
        remember_keys(providers, store.provider_keys)
        view = discover(providers, need, clock=clock, timeout_seconds=DISCOVERY_SECONDS)
        beliefs = MarketWatch(store.market, store.shard_map, store.plans, clock).beliefs()
    return with_beliefs(with_agreements(view, agreements(configuration)), beliefs)


def part_checks() -> "tuple[Check, ...]":
    """The checks of the parts that other packages own: the Pulumi engine, the guest image and the tunnel."""
    from agent.image import find_busybox, find_kernel
    from agent.wireguard_go import find_wireguard_go, kernel_has_wireguard
    from engine.doctor import Part
    from engine.errors import MissingPart
    from stacks.engine_binary import find_engine

    def pulumi() -> Part:
        found = find_engine()
        if found is None:
            return Part(name="pulumi engine", ok=False, remedy="make setup")
        return Part(name="pulumi engine", ok=True, version=found.version, origin=f"{found.origin}: {found.path}")

    def kernel() -> Part:
        found = find_kernel()
        version = found.name.removeprefix("kernel-") if found else ""
        return Part(
            name="guest kernel", ok=found is not None, version=version, origin=str(found or ""), needed_for="shards",
            remedy="make setup",
        )  # fmt: skip

    def busybox() -> Part:
        try:
            return Part(name="static busybox", ok=True, origin=str(find_busybox()), needed_for="shards")
        except MissingPart as missing:
            return Part(name="static busybox", ok=False, needed_for="shards", remedy=missing.next_step)

    def wireguard() -> Part:
        found, in_kernel = find_wireguard_go(), kernel_has_wireguard()
        return Part(
            name="wireguard", ok=in_kernel or found is not None,
            version="the kernel's" if in_kernel else "wireguard-go, in user space" if found else "",
            origin="" if in_kernel else str(found or ""), needed_for="the overlay between nodes",
            remedy="modprobe wireguard; or install Go, then make setup builds wireguard-go",
        )  # fmt: skip

    return pulumi, kernel, busybox, wireguard


def run_agent(path: Path) -> int:
    """Until it is told to stop; the exit code."""
    from agent.__main__ import main

    return main(["--config", str(path)])

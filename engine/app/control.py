"""A control plane on the real parts, wired and launched."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from engine.allocation.holds import PlanHolds
from engine.allocation.locking import ResourceLocking
from engine.app.configured import DISK_MIB, agreements, components, composite_rules, plan_policy, require_reachable
from engine.app.demand import ForecastDemand
from engine.app.network_plugin import network_plugin
from engine.app.provider_keys import remember_keys
from engine.app.retraining import round_retraining
from engine.app.standing_gauges import tell_what_stands
from engine.cell_updates import CellUpdates
from engine.clock import Clock, SystemClock
from engine.composition.composition import Composition
from engine.composition.health_desk import HealthDesk
from engine.composition.leaving import EVERY_SECONDS as DRAINED_EVERY_SECONDS
from engine.composition.leaving import Drains
from engine.composition.storage import Storage
from engine.config import Configuration
from engine.control_plane import ControlPlane, NoticeDesk
from engine.disk_space import require_space
from engine.durable import durable_workflows, goes_on, workflow_database_url
from engine.evacuation import workflow as evacuations
from engine.evacuation.again import EVERY_SECONDS as BROKEN_SECONDS
from engine.evacuation.again import BrokenEvacuations
from engine.events import Observe
from engine.fleet.admission import Admission, Attestation
from engine.fleet.agent_client import AgentClients
from engine.fleet.certificates import CertificateAuthority, ControlCredentials
from engine.fleet.join import ControlListener, NodeJoined, join_secret
from engine.fleet.nodes import Fleet
from engine.fleet.overlay import OverlayDesk
from engine.fleet.restarts import EVERY_SECONDS as RESTART_SECONDS
from engine.fleet.restarts import Restarts
from engine.fleet.user_data import UserDataSettings
from engine.fleet.vanished import EVERY_SECONDS as VANISHED_SECONDS
from engine.fleet.vanished import Vanished
from engine.forgetting import Forgetting
from engine.listening import listening
from engine.market.strategies import open_strategies
from engine.market_watch import MarketWatch
from engine.metrics import observe_move
from engine.migration import workflow as migration
from engine.migration.abandoned import EVERY_SECONDS as ABANDONED_SECONDS
from engine.migration.abandoned import end_abandoned
from engine.migration.base import MoveContext, MoveLimits, no_leases
from engine.migration.keeping import keep
from engine.migration.progress import EVERY_SECONDS as PROGRESS_SECONDS
from engine.migration.progress import ProgressBoard
from engine.migration.several import Moves, moved
from engine.migration.sweep import EVERY_SECONDS as SWEEP_SECONDS
from engine.migration.sweep import sweep
from engine.model.ids import NodeId, provider_of
from engine.model.move import MoveReport
from engine.model.placement import NodeState
from engine.model.plan import CellPlan, Plan
from engine.orders import resize as resizes
from engine.orders import workflow as orders
from engine.orders.recount import EVERY_SECONDS as RECOUNT_SECONDS
from engine.orders.recount import Recount
from engine.repeating import Repeated
from engine.retraining import workflow as retrainings
from engine.rounds import serve
from engine.steps import ControlSteps, Terms
from engine.store.admitted import AdmittedKeys
from engine.store.attested_instances import AttestedInstances
from engine.store.join_tokens import JoinTokens
from engine.store.opened import Store, opened_store
from engine.store.run_leases import RunLeases
from engine.store.state_lock import hold_state
from policies.pack_config import pack_config
from policies.rules import Limits
from providers.base import Provider, ProviderSettings, SupportsInventory
from providers.registry import open_attestor, open_provider
from stacks.driver import PolicyPack, PulumiCellDriver
from stacks.engine_binary import require_engine

METADATA_URL = "http://169.254.169.254"
"""Where instances of every cloud find their metadata."""
_POLICIES = Path(__file__).resolve().parent.parent.parent / "policies"


@contextmanager
def control_plane(configuration: Configuration, observe: Observe) -> Iterator[ControlPlane]:
    """Wire everything, launch the workflows (unfinished ones go on at once) and listen for agents.

    Raises StateInUse, MissingPart, AuthenticationFailed, ConfigurationError, ShardwrightError (a full disk).
    """
    clock = SystemClock()
    state = configuration.state.directory
    require_reachable(configuration)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    require_space(state)
    settings = {one.name: one for one in configuration.provider_settings()}
    with ExitStack() as stack:
        store = stack.enter_context(opened_store(configuration.database_url, clock))
        stack.enter_context(hold_state(store.database))
        tell_what_stands(store)
        providers = {name: open_provider(one, clock=clock) for name, one in settings.items()}
        remember_keys(providers.values(), store.provider_keys)
        authority = CertificateAuthority.load_or_create(state / "fleet", clock)
        credentials = ControlCredentials(authority, state / "fleet" / "control", clock)
        agents = AgentClients(store.shard_map.node, credentials, clock, random.Random())  # noqa: S311
        stack.callback(agents.close)
        secret = join_secret(state / "fleet")
        tokens = JoinTokens(store.database, clock, secret)
        vouching = _vouching(settings, providers, clock)

        def attestation_of(node: NodeId) -> Attestation | None:
            if store.overlay.is_gateway(node):
                return None
            return vouching.get(provider_of(store.shard_map.node(node).cell))

        admission = Admission(
            tokens=tokens,
            instances=AttestedInstances(store.database, clock),
            secret=secret,
            clock=clock,
            attestation_of=attestation_of,
        )

        lease_seconds = configuration.control.run_lease_seconds
        leases = RunLeases(store.database, clock, timedelta(seconds=lease_seconds or 0))

        def user_data_settings(provider: str) -> UserDataSettings:
            one = settings[provider]
            advertised = configuration.control.advertise or f"{listener.host}:{listener.port}"
            return UserDataSettings(
                control_url=f"https://{advertised}",
                control_ca_pem=authority.ca_pem,
                provider_kind=one.kind,
                metadata_url=one.metadata_url or METADATA_URL,
                vouched=provider in vouching,
                package=configuration.control.agent_package,
                post_copy=configuration.policy.post_copy,
                run_lease_seconds=lease_seconds,
                underlay_mtu=configuration.control.underlay_mtu,
            )

        fleet = Fleet(
            shard_map=store.shard_map,
            tokens=tokens,
            agents=agents,
            clock=clock,
            settings_for=user_data_settings,
            disk_mib=DISK_MIB,
            image_of=configuration.image_of,
            growth_of=configuration.growth_of,
        )
        rules = composite_rules(configuration)
        drains = Drains(store.shard_map, rules, clock, fleet)
        storage = Storage(store.shard_map, store.attachments, agents, rules)
        desk, overlay = NoticeDesk(), OverlayDesk(store.overlay)
        store.shard_map.on_overlay_change(overlay.changed)

        def on_join(joined: NodeJoined) -> None:
            if not store.overlay.is_gateway(joined.node):
                fleet.on_join(joined)

        listener = ControlListener(
            configuration.control.listen,
            configuration.control.port,
            authority=authority,
            credentials=credentials,
            admission=admission,
            admitted=AdmittedKeys(store.database),
            on_join=on_join,
            on_notice=desk,
            on_keep=partial(keep, store.shard_map),
            on_health=HealthDesk(store.shard_map, store.health, rules, observe),
            leases=leases,
            overlay=overlay,
        )
        judged = _JudgedPlan(configuration)
        driver = stack.enter_context(_cell_driver(configuration, settings, judged, clock))
        demand = ForecastDemand(configuration, clock, observe)
        mover = migration.DurableMover()
        moves = Moves(
            mover,
            observe,
            clock=clock,
            keep=_keeper(store),
            announce=lambda requests, asked_by: store.moves.announce(requests, clock.now(), asked_by),
            held_back=partial(resizes.held_back, store.orders),
        )
        placements = {pool.id: pool.placement for pool in configuration.pool_values()}
        steps = ControlSteps(
            terms=Terms(
                policy=plan_policy(configuration),
                pools=configuration.pool_values(),
                cells=configuration.cells(),
                term=configuration.term,
                seed=configuration.forecast.seed,
                agreements=agreements(configuration),
            ),
            demand=demand,
            providers=providers,
            strategies=open_strategies(),
            shard_map=store.shard_map,
            plans=store.plans,
            records=store.records,
            holds=PlanHolds(ResourceLocking(store.database, clock), providers),
            updates=CellUpdates(driver, providers, max_workers=configuration.pulumi.parallel_cells, judging=judged.set),
            fleet=fleet,
            moves=moves,
            watch=MarketWatch(store.market, store.shard_map, store.plans, clock),
            composition=Composition(
                pools=configuration.pool_values(),
                components=components(configuration),
                rules=rules,
                shard_map=store.shard_map,
                health=store.health,
                drains=drains,
                storage=storage,
                fleet=fleet,
                clock=clock,
                observe=observe,
                listening_since=clock.now(),
            ),
            moving=store.moves.moving,
            clock=clock,
            observe=observe,
        )
        board = ProgressBoard(store.moves)
        board.exchange()
        move_context = MoveContext(
            agents=agents,
            shards=store.shard_map,
            clock=clock,
            progress=board.told,
            cancelled=board.cancelled,
            free_at=leases.free_at if lease_seconds else no_leases,
            storage=storage,
            limits=MoveLimits(
                auto_converge=configuration.policy.auto_converge, post_copy=configuration.policy.post_copy
            ),
        )
        migration.configure(move_context)
        evacuations.configure(
            evacuations.EvacuationContext(
                shard_map=store.shard_map,
                fleet=fleet,
                moves=moves,
                placements=placements,
                ranks={pool.id: pool.risk_class.rank for pool in configuration.pool_values()},
                observe=observe,
                give_back=steps.leaving.give_back,
                drains=drains,
                storage=storage,
                clock=clock,
                under_way=store.moves.under_way,
                unsettled=store.moves.unsettled,
            )
        )
        orders.configure(
            orders.OrderContext(
                orders=store.orders,
                shard_map=store.shard_map,
                fleet=fleet,
                moves=moves,
                placements=placements,
                policy=steps.terms.policy,
                inventory=steps.inventory,
                fixed=storage.in_use,
                clock=clock,
                observe=observe,
            )
        )
        resizes.configure(
            resizes.ResizeContext(
                orders=store.orders,
                shard_map=store.shard_map,
                fleet=fleet,
                agents=agents,
                under_way=store.moves.under_way,
                fixed=storage.in_use,
                observe=observe,
            )
        )
        serve(steps)
        retraining = round_retraining(configuration, demand, clock)
        retrainings.serve(retraining, observe)
        url = listener.start()
        stack.callback(listener.stop)
        workflows = workflow_database_url(state, configuration.database_url)
        stack.enter_context(durable_workflows(configuration.name, workflows))
        stack.callback(retraining.close)

        broken = BrokenEvacuations(
            lambda node: bool(store.shard_map.nodes(ids=[node], states=[NodeState.GONE])), clock, observe
        )
        restarts = Restarts(store.shard_map, fleet, agents, store.moves.under_way, clock, observe)
        recount = Recount(store.shard_map, store.orders, agents, store.moves.under_way, observe)
        inventories = {name: one for name, one in providers.items() if isinstance(one, SupportsInventory)}
        vanished = Vanished(
            store.shard_map, fleet, agents, inventories, store.moves.under_way, steps.leaving.give_back, clock, observe
        )

        def sweep_moves() -> None:
            for report in sweep(move_context, store.moves):
                observe(moved(report))

        def end_abandoned_moves() -> None:
            for report in end_abandoned(store.moves, mover, goes_on, clock.now()):
                observe_move(report)
                observe(moved(report))

        for what, once, seconds in (
            ("the exchange about moves", board.exchange, PROGRESS_SECONDS),
            ("ending moves that nobody carries out", end_abandoned_moves, ABANDONED_SECONDS),
            ("beginning broken evacuations anew", broken.begin_anew, BROKEN_SECONDS),
            ("the sweep of moves", sweep_moves, SWEEP_SECONDS),
            ("taking orders", orders.take_orders, orders.EVERY_SECONDS),
            ("booting guests that have died", restarts.once, RESTART_SECONDS),
            ("asking nodes what resized shards have", recount.once, RECOUNT_SECONDS),
            ("looking for nodes that are gone", vanished.once, VANISHED_SECONDS),
            ("letting drained replicas go", drains.finish, DRAINED_EVERY_SECONDS),
            ("attaching storage", storage.connect_all, SWEEP_SECONDS),
        ):
            repeated = Repeated(what, once, every_seconds=seconds)
            repeated.start()
            stack.callback(repeated.stop)
        plane = ControlPlane(
            name=configuration.name,
            store=store,
            steps=steps,
            fleet=fleet,
            clock=clock,
            observe=observe,
            url=url,
            retrainer=retraining if configuration.forecast.retraining.enabled else None,
            forgetting=Forgetting(store, steps.holds, timedelta(days=configuration.state.keep_days), clock),
        )
        desk.open(plane)
        rng = random.Random()  # noqa: S311 (jitter)
        stack.enter_context(
            listening(providers.values(), clock=clock, rng=rng, on_notice=plane.on_reclaim, observe=observe)
        )
        yield plane


def _vouching(
    settings: Mapping[str, ProviderSettings], providers: Mapping[str, Provider], clock: Clock
) -> Mapping[str, Attestation]:
    """By provider: those that vouch for their instances. Raises ConfigurationError."""
    found = {}
    for name, one in settings.items():
        attestor, inventory = open_attestor(one, clock=clock), providers[name]
        if attestor is not None and isinstance(inventory, SupportsInventory):
            found[name] = Attestation(provider=name, account=one.account, attestor=attestor, inventory=inventory)
    return found


def _keeper(store: Store) -> Callable[[MoveReport], None]:
    def keep(report: MoveReport) -> None:
        store.moves.put(report)
        observe_move(report)

    return keep


class _JudgedPlan:
    """What the policy pack is told about the whole plan, while it judges one cell of it."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._plan: Plan | None = None

    def set(self, plan: Plan) -> None:
        self._plan = plan

    def config(self, cell: CellPlan) -> str:
        table = self._configuration.policy
        limits = Limits(
            regions=table.regions,
            instance_families=table.instance_families,
            max_spot_share=table.max_spot_share,
            max_provider_share=table.max_provider_share,
            hourly_budget=table.hourly_budget,
            currency=table.currency,
        )
        return pack_config(limits, self._plan, cell.cell)


@contextmanager
def _cell_driver(
    configuration: Configuration, settings: Mapping[str, ProviderSettings], judged: _JudgedPlan, clock: Clock
) -> Iterator[PulumiCellDriver]:
    """With the plugin of third-party networks running beside it, where there are any."""
    state = configuration.state.directory.resolve()
    found = require_engine()
    with ExitStack() as stack:
        ports = dict(configuration.pulumi.attached_plugins)
        if any(one.kind == "network" for one in settings.values()) and "shardnet" not in ports:
            ports["shardnet"] = stack.enter_context(network_plugin())
        yield PulumiCellDriver(
            work_dir=state / "pulumi",
            state_url=configuration.pulumi.state_url or f"file://{state / 'pulumi' / 'state'}",
            passphrase=configuration.pulumi.passphrase.read("pulumi.passphrase", os.environ),
            engine_root=Path(found.root),
            settings=settings,
            clock=clock,
            plugin_ports=ports,
            policy_pack=PolicyPack(folder=_POLICIES, config=judged.config),
        )

"""Cells brought up by Pulumi's Automation API: the only module that imports it.

One stack, one state, one lock and one workspace folder per cell. Every call is one attempt and blocks.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from pulumi.automation import (
    ConcurrentUpdateError,
    Deployment,
    LocalWorkspace,
    OutputMap,
    ProjectBackend,
    ProjectSettings,
    PulumiCommand,
    Stack,
    UpdateSummary,
)
from pulumi.automation._stack import StackInitMode
from pulumi.automation.errors import CommandError
from pydantic import SecretStr
from semver import VersionInfo

from engine.clock import Clock, wait_until
from engine.disk_space import require_space
from engine.errors import (
    ConcurrentUpdate,
    ConfigurationError,
    InsufficientCapacity,
    MissingPart,
    PolicyViolation,
    ProviderError,
    ShardwrightError,
)
from engine.model.ids import NodeId
from engine.model.placement import Cell
from engine.model.plan import CellPlan
from providers.base import ProviderSettings, SupportsInventory
from stacks.adoption import Adoption
from stacks.base import CellOutcome, PulumiFn, ResourceChanges
from stacks.events import EventCollector, OnStep, says
from stacks.launchers import put_launchers
from stacks.recovery import RecoveryReport, clear_pending
from stacks.registry import program_for, program_module
from stacks.state_files import PROJECT, LockHolder, StateFiles, mend_selection

_OURS = Path(__file__).resolve().parent.parent
_LAST_LINES = 8
_ORPHAN_SECONDS = 60.0
_SILENT = timedelta(minutes=15)
"""An engine on another machine that has written nothing for so long has ended, most often with its container.

It has lost its control plane, so it begins nothing any more, and the end of what it had begun it writes into the state;
this is several times as long as an instance takes to come or to go.
"""
_log = structlog.get_logger()


@dataclass(frozen=True)
class PolicyPack:
    """``config``: the pack's configuration for one cell update, as JSON text; None: the pack's own defaults."""

    folder: Path
    config: Callable[[CellPlan], str] | None = None


class _QuickStack(Stack):
    """Without the four calls of the engine after each operation for things that its events and files tell anyway.

    They take twice as long as an update with nothing to do.
    """

    def outputs(self) -> OutputMap:
        return {}

    def info(self, show_secrets: bool = True) -> UpdateSummary:
        now = datetime.now(UTC)
        return UpdateSummary(kind="update", start_time=now, message="", environment={}, config={}, result="succeeded")

    def import_stack(self, state: Deployment) -> None:
        """Without the SDK's file among the machine's temporary ones, which stays there where the engine fails: secrets
        are in plain text in it.
        """
        file = Path(self.workspace.work_dir) / "import.json"
        try:
            file.touch(mode=0o600)
            file.write_text(json.dumps({"version": state.version, "deployment": state.deployment}), encoding="utf-8")
            self._run_pulumi_cmd_sync(["stack", "import", "--file", str(file)])
        finally:
            file.unlink(missing_ok=True)


@dataclass
class _OpenStack:
    stack: Stack
    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)


class PulumiCellDriver:
    """``stacks.base.CellDriver``, with recovery and refresh. Safe to share between threads (one cell, one thread)."""

    def __init__(
        self,
        *,
        work_dir: Path,
        state_url: str,
        passphrase: SecretStr,
        engine_root: Path,
        settings: Mapping[str, ProviderSettings],
        clock: Clock,
        plugin_ports: Mapping[str, int] | None = None,
        policy_pack: PolicyPack | None = None,
        on_event: OnStep | None = None,
    ) -> None:
        """``settings`` by the provider's configured name; ``plugin_ports``: plugin name -> port of a running plugin.

        A plugin that is not attached is the engine's business: it downloads those of the clouds, and starts shardnet.

        Imports the programs of all providers, since their SDKs must be loaded before stacks run in threads.
        Raises MissingPart without an engine in ``engine_root``, ConfigurationError on a state_url it cannot use.
        """
        self._work_dir, self._settings, self._clock = work_dir.resolve(), settings, clock
        self._files, self._passphrase = StateFiles(state_url), passphrase
        self._plugin_ports, self._policy_pack, self._on_event = plugin_ports or {}, policy_pack, on_event
        self._command = _command(engine_root)
        self._launchers = (work_dir / "bin").resolve()
        put_launchers(self._launchers)
        self._open: dict[str, _OpenStack] = {}
        self._lock = threading.Lock()
        for kind in sorted({setting.kind for setting in settings.values()}):
            program_module(kind)

    # --- CellDriver -------------------------------------------------------------------------------------------------

    def preview(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome:
        return self._attempt(plan, user_data, dry_run=True)

    def up(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> CellOutcome:
        """Refuses (ConcurrentUpdate) a generation older than the last, and a stack that must be recovered first."""
        return self._attempt(plan, user_data, dry_run=False)

    def destroy(self, cell: Cell) -> None:
        """Everything of the cell, and its stack. No stack = success."""
        if not self._files.exists(cell.stack_name):
            return
        with self._opened(cell) as opened:
            collector = EventCollector(cell, self._on_event)
            with self._named_errors(cell, collector):
                # The program runs so that the providers get today's endpoints and credentials, not those in the state.
                program = self._program(CellPlan(cell=cell, generation=0, nodes=()), {})
                opened.stack.workspace.program = program
                opened.stack.destroy(on_event=collector, run_program=True, suppress_progress=True)
                opened.stack.workspace.remove_stack(cell.stack_name)
            (opened.folder / "generation").unlink(missing_ok=True)
        with self._lock:
            self._open.pop(cell.stack_name, None)

    # --- beyond CellDriver ------------------------------------------------------------------------------------------

    def refresh(self, cell: Cell) -> ResourceChanges:
        """Reads every resource back into the state; ``delete`` counts those that are gone at the provider."""
        if not self._files.exists(cell.stack_name):
            return ResourceChanges()
        with self._opened(cell) as opened:
            return self._refresh(cell, opened)

    def made(self, cell: Cell) -> tuple[tuple[NodeId, str], ...]:
        """(node, the provider's instance id), as the state has them: an update that failed tells no outputs, and has
        made what it made.
        """
        if not self._files.exists(cell.stack_name):
            return ()
        with self._opened(cell) as opened, self._named_errors(cell, None):
            deployment = opened.stack.export_stack().deployment or {}
        adoption: Adoption = program_module(cell.kind).adoption
        return adoption.instance.made(deployment.get("resources") or ())

    def needs_recovery(self, cell: Cell) -> bool:
        """Whether an update of this cell was interrupted. Cheap: reads files only."""
        return self._files.interrupted(cell.stack_name)

    def recover(self, cell: Cell, provider: SupportsInventory) -> RecoveryReport:
        """After a crash in ``up``: adopt what was created but not recorded, so that nothing is created twice.

        Idempotent; a cell that needs no recovery costs nothing. Waits for an engine that outlived its control plane
        (it ends by itself) and raises ConcurrentUpdate where it does not end. Raises ProviderError where the engine
        cannot read or write the stack, and ShardwrightError on a full disk, before anything is begun.
        """
        if not self.needs_recovery(cell):
            return RecoveryReport(cell=cell)
        require_space(self._files.folder)
        self._await_orphans(cell)
        if not self.needs_recovery(cell):
            return RecoveryReport(cell=cell)
        self._break_locks(cell)
        if not self._files.exists(cell.stack_name):
            return RecoveryReport(cell=cell)  # it ended before it had made the stack
        if self._files.damaged(cell.stack_name):
            self._files.mend(cell.stack_name)
        with self._opened(cell) as opened:
            stack = opened.stack
            with self._named_errors(cell, None):
                state = stack.export_stack()
            adoption = program_module(cell.kind).adoption
            records = {record.token: record for record in provider.instances()}
            settings = self._settings[cell.provider]
            deployment, report = clear_pending(cell, settings, state.deployment or {}, adoption, records)
            with self._named_errors(cell, None):
                stack.import_stack(Deployment(version=state.version, deployment=deployment))
            # Reads what was adopted, and drops what turned out not to exist.
            self._refresh(cell, opened)
            return report

    def _await_orphans(self, cell: Cell) -> None:
        wait_until(lambda: not self._at_work(cell), self._clock, timeout_seconds=_ORPHAN_SECONDS)
        at_work = self._at_work(cell)
        if at_work:
            raise ConcurrentUpdate(
                f"{cell.id}: an update is still running",
                why=f"process {at_work[0].pid} on {at_work[0].host} holds the lock",
                next_step=self._remedy(cell, at_work[0]),
            )

    def _at_work(self, cell: Cell) -> list[LockHolder]:
        """Engines that may still change the cell. No control plane waits for them: the state is this one's alone."""
        silent = self._clock.now() - self._files.last_sign(cell.stack_name) > _SILENT
        return [one for one in self._files.locks(cell.stack_name) if one.alive and (one.here or not silent)]

    def _remedy(self, cell: Cell, holder: LockHolder) -> str:
        if holder.here:
            return f"wait until process {holder.pid} has ended, or end it: the next round goes on from what it left"
        until = self._files.last_sign(cell.stack_name) + _SILENT
        return (
            f"wait until {until:%H:%M} UTC, when it counts as ended unless it writes; at once, where {holder.host} is"
            f" gone: pulumi cancel --yes --stack organization/{PROJECT}/{cell.stack_name}"
            " (docs/how-to/policy.md has its variables)"
        )

    def _break_locks(self, cell: Cell) -> None:
        for holder in self._files.locks(cell.stack_name):
            _log.warning(
                "the lock of an engine that has ended is removed",
                stack=cell.stack_name,
                process=holder.pid,
                host=holder.host,
                reason="there is no such engine" if holder.here else f"silent for more than {_SILENT}",
            )
        self._files.break_locks(cell.stack_name)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _attempt(self, plan: CellPlan, user_data: Mapping[NodeId, str], *, dry_run: bool) -> CellOutcome:
        cell, started = plan.cell, self._clock.now()
        if self.needs_recovery(cell):
            raise ConcurrentUpdate(
                f"{cell.id}: its last update was interrupted or is still running", next_step="recover the cell first"
            )
        with self._opened(cell) as opened:
            require_space(self._files.folder)
            self._refuse_stale(opened, plan)
            collector = EventCollector(cell, self._on_event)
            options = {**self._policy_options(opened, plan), "on_event": collector, "suppress_progress": True}
            nodes: tuple[tuple[NodeId, str], ...] = ()
            with self._named_errors(cell, collector):
                program = self._program(plan, user_data)
                if dry_run:
                    opened.stack.preview(program=program, **options)
                else:
                    self._note_generation(opened, plan)
                    opened.stack.up(program=program, show_secrets=False, **options)
                    nodes = _nodes_of(self._files.outputs(cell.stack_name))
        if collector.violations:
            raise _violation(cell, collector)
        return CellOutcome(
            cell=cell,
            generation=plan.generation,
            changes=collector.changes,
            findings=collector.findings,
            nodes=nodes,
            seconds=(self._clock.now() - started).total_seconds(),
        )

    def _refresh(self, cell: Cell, opened: _OpenStack) -> ResourceChanges:
        collector = EventCollector(cell, self._on_event)
        with self._named_errors(cell, collector):
            opened.stack.refresh(on_event=collector, suppress_progress=True)
        return collector.changes

    def _program(self, plan: CellPlan, user_data: Mapping[NodeId, str]) -> PulumiFn:
        settings = self._settings.get(plan.cell.provider)
        if settings is None:
            raise ConfigurationError(f"{plan.cell.id}: no provider {plan.cell.provider!r} is configured")
        return program_for(plan.cell.kind)(plan.cell, plan, settings, user_data)

    @contextmanager
    def _opened(self, cell: Cell) -> Iterator[_OpenStack]:
        """The cell's stack, made when it is missing; one at a time."""
        mend_selection(self._home(cell), self._folder(cell))
        with self._lock:
            opened = self._open.get(cell.stack_name)
        if opened is None:
            opened = self._open_stack(cell)
            with self._lock:
                opened = self._open.setdefault(cell.stack_name, opened)
        if not opened.lock.acquire(blocking=False):
            raise ConcurrentUpdate(f"{cell.id}: another update of this cell runs in this process")
        try:
            yield opened
        finally:
            opened.lock.release()

    def _open_stack(self, cell: Cell) -> _OpenStack:
        folder = self._folder(cell)
        with self._named_errors(cell, None):
            folder.mkdir(parents=True, exist_ok=True)
            self._files.folder.mkdir(parents=True, exist_ok=True)
            return _OpenStack(stack=self._selected(cell, folder), folder=folder)

    def _selected(self, cell: Cell, folder: Path) -> Stack:
        project = ProjectSettings(
            name=PROJECT, runtime="python", main=str(folder), backend=ProjectBackend(self._files.backend_url)
        )
        workspace = LocalWorkspace(
            work_dir=str(folder),
            project_settings=project,
            secrets_provider="passphrase",
            env_vars=self._environment(cell),
            pulumi_command=self._command,
            program=lambda: None,
        )
        mode = StackInitMode.SELECT if self._files.exists(cell.stack_name) else StackInitMode.CREATE
        return _QuickStack(cell.stack_name, workspace, mode)

    def _folder(self, cell: Cell) -> Path:
        return self._work_dir / "stacks" / cell.stack_name

    def _home(self, cell: Cell) -> Path:
        given = self._environment(cell).get("PULUMI_HOME") or os.environ.get("PULUMI_HOME")
        return Path(given) if given else Path.home() / ".pulumi"

    def _environment(self, cell: Cell) -> dict[str, str]:
        environment = {
            "PULUMI_CONFIG_PASSPHRASE": self._passphrase.get_secret_value(),
            "PULUMI_BACKEND_URL": self._files.backend_url,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PATH": os.pathsep.join(
                [str(self._launchers), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
            ),
            "SHARDWRIGHT_PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(part for part in (str(_OURS), os.environ.get("PYTHONPATH", "")) if part),
        }
        plugin = program_module(cell.kind).PLUGIN
        if plugin in self._plugin_ports:
            environment["PULUMI_DEBUG_PROVIDERS"] = f"{plugin}:{self._plugin_ports[plugin]}"
            # Without this every operation spends seconds on trying to download what is attached already.
            environment["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
            environment["PULUMI_HOME"] = str(self._work_dir / "pulumi-home")
        return environment

    def _policy_options(self, opened: _OpenStack, plan: CellPlan) -> dict[str, Any]:
        pack = self._policy_pack
        if pack is None:
            return {}
        if pack.config is None:
            return {"policy_packs": [str(pack.folder)]}
        config = opened.folder / "policy-config.json"
        config.write_text(pack.config(plan), encoding="utf-8")
        return {"policy_packs": [str(pack.folder)], "policy_pack_configs": [str(config)]}

    @staticmethod
    def _refuse_stale(opened: _OpenStack, plan: CellPlan) -> None:
        noted = opened.folder / "generation"
        last = int(noted.read_text(encoding="utf-8")) if noted.exists() else -1
        if plan.generation < last:
            raise ConcurrentUpdate(
                f"{plan.cell.id}: generation {plan.generation} is stale", why=f"generation {last} was begun already"
            )

    @staticmethod
    def _note_generation(opened: _OpenStack, plan: CellPlan) -> None:
        fresh = opened.folder / "generation.new"
        fresh.write_text(str(plan.generation), encoding="utf-8")
        fresh.replace(opened.folder / "generation")

    @contextmanager
    def _named_errors(self, cell: Cell, collector: EventCollector | None) -> Iterator[None]:
        try:
            yield
        except ConcurrentUpdateError as problem:
            raise ConcurrentUpdate(f"{cell.id}: another update holds the lock of this stack") from problem
        except CommandError as problem:
            if collector is not None and collector.violations:
                raise _violation(cell, collector) from problem
            raise _failure(cell, collector, problem) from problem
        except OSError as problem:
            raise ShardwrightError(
                f"{cell.id}: the update failed",
                why=str(problem),
                next_step="shardwright run --rounds 1, once that is mended: it goes on from what is there",
            ) from problem


def download_engine(root: Path, version: str) -> None:
    """Pulumi's own installer, into ``root``/bin."""
    PulumiCommand.install(root=str(root), version=VersionInfo.parse(version))


def _command(engine_root: Path) -> PulumiCommand:
    if not (engine_root / "bin" / "pulumi").exists():
        raise MissingPart(f"no Pulumi engine in {engine_root}", next_step="make setup")
    try:
        return PulumiCommand(root=str(engine_root))
    except Exception as problem:  # a wrong version, a file that does not run: all are "not usable"
        raise MissingPart(f"the Pulumi engine in {engine_root} cannot be used", why=str(problem)) from problem


def _nodes_of(outputs: Mapping[str, Any]) -> tuple[tuple[NodeId, str], ...]:
    nodes = outputs.get("nodes") or {}
    return tuple(sorted((NodeId(name), str(node["instance_id"])) for name, node in nodes.items()))


def _violation(cell: Cell, collector: EventCollector) -> PolicyViolation:
    lines = [f"{f.policy} ({f.urn.rpartition('::')[2] or 'stack'}): {f.message}" for f in collector.violations]
    return PolicyViolation(f"{cell.id}: the policy pack refuses this update", why=" | ".join(dict.fromkeys(lines)))


def _failure(cell: Cell, collector: EventCollector | None, problem: CommandError) -> ShardwrightError:
    said = " | ".join(collector.problems) if collector is not None else ""
    reason = said or "\n".join(str(problem).strip().splitlines()[-_LAST_LINES:])
    codes = program_module(cell.kind).NO_CAPACITY
    what = f"{cell.id}: the update failed"
    if says(reason, codes):
        nodes = collector.resources_with(codes) if collector is not None else ()
        return InsufficientCapacity(what, why=reason, nodes=nodes)
    return ProviderError(what, why=reason)

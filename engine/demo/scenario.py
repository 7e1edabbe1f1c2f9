"""The main job from start to end, in the sandbox: eight stages on the real parts, and nothing left behind."""

import sys
import tempfile
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

from engine.app.configured import CONFIGURATION_NAME
from engine.app.embedded import EMBEDDED_NAME, free_port, require_parts, web_page
from engine.app.leaving import interruptible, leave, undisturbed
from engine.clock import Clock, SystemClock
from engine.config import Configuration, load_configuration
from engine.demo import account, moves
from engine.demo.ending import Ending
from engine.demo.show import Show, open_show
from engine.demo.stages import RecordFile, Stage
from engine.demo.timeline import Timeline
from engine.errors import ExitCode, ShardwrightError
from engine.model.placement import ShardState
from engine.round_record import RoundRecord
from providers.sandbox import supervisor
from providers.sandbox.configuration import write_configuration
from providers.sandbox.info import SandboxInfo

METER_SPEED = Decimal(720)
"""The sandbox's meters run this many times fast, so that minutes make bills worth reading: 5 s count as an hour."""
RECORDS = "demo.jsonl"


def run_demo(state: Path, *, usage: Path | None, metric: str | None, seed: int) -> None:
    """Runs all stages; whatever happens, everything that was made is taken away again.

    Raises what stopped it; a Ctrl-C ends the process with 130 once everything is clean.
    """
    clock = SystemClock()
    interrupted = False
    with interruptible(), open_show() as show:
        timeline = Timeline(show, RecordFile(state / RECORDS), clock)
        work = Path(tempfile.mkdtemp(prefix="shardwright-demo-"))
        ending = Ending(work)
        try:
            _stages(work, state, usage, metric, seed, timeline, show, clock, ending)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            with undisturbed():
                left = ending.clean_up()
        for thing in left:
            show.line(f"left over: {thing}")
        if not interrupted:
            timeline.facts(Stage.CLEAN, leftovers=[str(thing) for thing in left], stack_resources=ending.resources_left)
            timeline.end()
            _require(not left, "the demo left something behind", ", ".join(map(str, left)))
            total = sum(timeline.seconds.values())
            show.result(f"demo: all eight stages in {total:.0f} s; the records are in {state / RECORDS}")
    if interrupted:
        print("cancelled; everything that the demo made is gone", file=sys.stderr, flush=True)
        leave(ExitCode.CANCELLED)


def _stages(
    work: Path,
    state: Path,
    usage: Path | None,
    metric: str | None,
    seed: int,
    timeline: Timeline,
    show: Show,
    clock: Clock,
    ending: Ending,
) -> None:
    timeline.begin(Stage.SANDBOX)
    configuration, info = _sandbox(work, usage, metric, seed, timeline, ending)
    from engine.app.control import control_plane

    with ExitStack() as stack:
        timeline.begin(Stage.FORECAST)
        plane = stack.enter_context(control_plane(configuration, timeline.observe))
        page = stack.enter_context(web_page(configuration, plane.store))
        show.result(f"web page: {page}")
        timeline.follow_steps = True
        first = next(plane.rounds(1))
        timeline.follow_steps = False
        _require_cells(first)
        account.tell_forecast(timeline, show)
        account.tell_plan(first, timeline, show)
        second = next(plane.rounds(1))
        _require(not second.changed, "the second round had something to do", str(second.outcomes))
        account.tell_reconcile(first, second, timeline)
        account.tell_shards(plane, configuration, timeline, show)
        timeline.begin(Stage.MOVE)
        moved = moves.reclaim(plane, configuration, info, work, show, clock)
        driven = moves.cheaper_offer(plane, info, show)
        timeline.facts(Stage.MOVE, reclaim=moved, cost=driven)
        timeline.begin(Stage.BILLS)
        account.tell_bills(configuration, plane.store, state, timeline, show)
        timeline.begin(Stage.CLEAN)
        ending.destroy_cells(plane)


def _sandbox(
    work: Path, usage: Path | None, metric: str | None, seed: int, timeline: Timeline, ending: Ending
) -> tuple[Configuration, SandboxInfo]:
    require_parts()
    port = free_port()
    ending.sandbox = work / "sandbox"
    info = supervisor.start(
        ending.sandbox,
        seed=seed,
        meter_speed=METER_SPEED,
        control_ports=(port,),
        progress=lambda line: timeline.observe(account.sandbox_event(line)),
    )
    ending.tag = info.tag
    timeline.facts(
        Stage.SANDBOX,
        providers={provider.name: provider.endpoint for provider in info.providers},
        plugins=[name for name, _ in info.plugins],
        namespaces=info.namespaces,
        limits=list(info.limits),
        meter_speed=int(info.meter_speed),
    )
    path = write_configuration(
        info,
        work / CONFIGURATION_NAME,
        name=EMBEDDED_NAME,
        state_directory=work / "control",
        control_port=port,
        usage=usage,
        metric=metric,
    )
    return load_configuration(path), info


def _require_cells(record: RoundRecord) -> None:
    if record.failures:
        failure = record.failures[0]
        raise failure.error()
    providers = {cell.cell.provider for cell in record.plan.cells if cell.nodes}
    _require(len(providers) >= 4, "fewer than four providers were used", ", ".join(sorted(providers)))
    ready = {ShardState.READY, ShardState.BOUND}
    dead = [shard.id for shard in record.shards if shard.state not in ready]
    _require(not dead, "not every shard came up", ", ".join(dead))


def _require(condition: bool, what: str, why: str = "") -> None:
    if not condition:
        raise ShardwrightError(what, why=why)

"""Where a control plane may be told to die: ``kill -9`` of itself at exactly that point, with the real parts around it.

holding:PROVIDER         that provider has answered a hold, and our store does not know it yet
after:STEP               a step of a round has acted, and its end is not recorded yet
creating:PROVIDER        an instance of that provider exists, and the stack's state does not know it; the engines of all
                         cells die as well
creating:PROVIDER:alone  the same, but the engines live on for as long as they can
noticing                 a node is known to be taken back, and its evacuation is yet to begin
moving:PHASE             a move enters that phase
"""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from engine import control_plane
from engine.app import control
from engine.clock import SystemClock
from engine.model.ids import MoveId
from engine.model.market import Hold, Quote, ReclaimNotice
from engine.model.move import MovePhase
from engine.rounds import RoundSteps
from providers.base import Provider, ProviderSettings, SupportsHolds, SupportsInventory
from providers.registry import open_provider
from stacks.driver import PulumiCellDriver
from stacks.events import StepEvent, StepState
from stacks.state_files import PROJECT, LockHolder, StateFiles

_PATIENCE_SECONDS = 20.0


def arm(point: str) -> None:
    """Replace, in the composition root, the part that is about to be interrupted."""
    kind, *details = point.split(":")
    arms = {"holding": _holding, "after": _after, "creating": _creating, "noticing": _noticing, "moving": _moving}
    arms[kind](*details)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _holding(provider_name: str) -> None:
    def opened(settings: ProviderSettings, **more: Any) -> Provider:
        provider = open_provider(settings, **more)
        if settings.name == provider_name:
            assert isinstance(provider, SupportsHolds)
            hold = provider.hold

            def held(quote: Quote, *, key: str) -> Hold:
                hold(quote, key=key)
                die()

            provider.hold = held  # type: ignore[method-assign]
        return provider

    control.open_provider = opened  # type: ignore[attr-defined]


def _after(step: str) -> None:
    class Dying:
        def __init__(self, steps: RoundSteps) -> None:
            self._steps = steps

        def __getattr__(self, name: str) -> Any:
            act = getattr(self._steps, name)
            if name != step:
                return act

            def acted(*args: object) -> NoReturn:
                act(*args)
                die()

            return acted

    serve = control.serve  # type: ignore[attr-defined]
    control.serve = lambda steps: serve(Dying(steps))  # type: ignore[attr-defined]


def _creating(provider_name: str, engines: str = "die") -> None:
    def driver(**arguments: Any) -> PulumiCellDriver:
        settings: ProviderSettings = arguments["settings"][provider_name]
        provider = open_provider(settings, clock=SystemClock())
        assert isinstance(provider, SupportsInventory)
        before = {record.instance_id for record in provider.instances()}
        files = StateFiles(arguments["state_url"])

        def created() -> bool:
            return any(record.instance_id not in before for record in provider.instances())

        def on_step(step: StepEvent) -> None:
            if (step.op, step.state) != ("create", StepState.STARTED):
                return
            engine = files.locks(step.cell.stack_name)[0].pid
            if step.cell.provider != provider_name:
                os.kill(engine, signal.SIGSTOP)  # the other cells wait, so that every run is the same
            elif step.type in _INSTANCES:
                _run_until(engine, created)
                for holder in _holders(files):
                    os.kill(holder.pid, signal.SIGKILL if engines == "die" else signal.SIGCONT)
                die()

        return PulumiCellDriver(**arguments, on_event=on_step)

    control.PulumiCellDriver = driver  # type: ignore[attr-defined]


_INSTANCES = ("aws:ec2/instance:Instance", "shardnet:index:Reservation")


def _holders(files: StateFiles) -> list[LockHolder]:
    """The engines of all cells."""
    stacks = files.folder / ".pulumi" / "locks" / "organization" / PROJECT
    return [holder for stack in stacks.iterdir() for holder in files.locks(stack.name)]


def _run_until(engine: int, happened: Callable[[], bool]) -> None:
    """Let the engine run a millisecond at a time, so that it is stopped between the act and writing it down."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    os.kill(engine, signal.SIGSTOP)
    while not happened() and time.monotonic() < deadline:
        os.kill(engine, signal.SIGCONT)
        time.sleep(0.001)
        os.kill(engine, signal.SIGSTOP)


def _noticing() -> None:
    def start(_notice: ReclaimNotice) -> NoReturn:
        die()

    control_plane.start_evacuation = start  # type: ignore[attr-defined,assignment]


def _moving(phase: str) -> None:
    def observer(_move: MoveId, entered: MovePhase) -> None:
        if entered == phase:
            die()

    control.MoveContext = partial(control.MoveContext, observer=observer)  # type: ignore[attr-defined,misc]

"""Real guests, real agents and real moves, and one fault in each: never two copies, never an acknowledged record lost.

    python -m tests.faults.campaign [--runs 108] [--seed 1] [--first 0]

A line a run, and a table at the end. A run that breaks a promise is told with the command that repeats it; the others
go on with a fresh fleet. Exit code 1 when any has.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import structlog

from agent.guest import GuestRecord, alive
from agent.image import read_records
from agent.record_client import read_log
from agent.wire import CarveRequest, GuestState
from engine.migration.base import MoveContext
from engine.migration.sweep import sweep
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.placement import Shard
from engine.model.plan import MoveCause
from engine.store.moves import MoveHistory
from tests import links
from tests.faults.campaign_cases import Case, Fault, Outcome, cases, table
from tests.faults.movers import QUICK_LIMITS, Mover, MoverNursery
from tests.small_fleet import SHARD, RunningClient, SmallFleet, wait_for
from tests.witness import Witness, WitnessedQemu, overlaps, pauses

DISK_MIB = 16
_ONE_CALL_SECONDS = 45.0
"""The longest that a controller waits for one answer."""
_MORE_RECORDS = 5


class Campaign:
    """One fleet, one shard, one run after the other."""

    def __init__(self, fleet: SmallFleet, witness: Witness, nursery: MoverNursery, name: str) -> None:
        self.fleet, self._witness, self._nursery, self._name = fleet, witness, nursery, name
        self._history = MoveHistory(fleet.database)
        self._shard, _ = fleet.carve(name, "nA", disk_mib=DISK_MIB)
        self._next_record = 1

    def run(self, case: Case, *, seed: int = 0) -> Outcome:
        """Raises AssertionError where a promise is broken."""
        owner = self._owner()
        source, destination = owner.node, NodeId("nB" if owner.node == "nA" else "nA")
        client = self.fleet.start_client(owner, every=0.02, first=self._next_record, answer_seconds=120)
        client.wait_for_records(_MORE_RECORDS)
        request = MoveRequest(
            id=MoveId(f"{self._name}-{seed}-{case.index}"), shard=owner.id, source=source, destination=destination,
            cause=MoveCause.OPERATOR,
        )  # fmt: skip
        began, wall = time.monotonic(), time.time()
        report = self._moved(case, request)
        report = self._settled(report)
        settled = time.monotonic() - began
        bound = case.heal + QUICK_LIMITS.before_commit(DISK_MIB) + QUICK_LIMITS.after_commit() + _ONE_CALL_SECONDS
        assert settled < bound, f"the move took {settled:.0f} of {bound:.0f} s"
        survived = self._alive(self._owner().node)
        gap = self._served_on(client, survived=survived)
        self._nothing_left()
        spans = [span for span in self._witness.spans(self._name) if span.ended is None or span.ended > wall]
        assert not overlaps(spans), f"two copies ran: {overlaps(spans)}"
        down = max((seconds for seconds, _ in pauses(spans)), default=0.0)
        return Outcome(
            case=case, phase=report.phase, downtime=down, gap=gap, survived=survived, settled=settled,
            records=self._next_record - 1,
        )  # fmt: skip

    # -- the move and its fault

    def _moved(self, case: Case, request: MoveRequest) -> MoveReport:
        mover = self._nursery.start(self.fleet.folder, request, wait_in=case.state)
        try:
            reached = mover.wait_for(case.state)
            if case.after:
                mover.go_on()
                time.sleep(case.after)
            heal = self._inject(case, request, mover) if reached else _nothing
            mover.go_on()
            time.sleep(case.heal if reached else 0)
            heal()
            if case.fault is Fault.CONTROLLER and mover.report is None:
                mover = self._nursery.start(self.fleet.folder, request)
            report = mover.hear_out()
        finally:
            mover.close()
        assert report is not None, "the controller has died"
        assert reached, f"the move was given up before its fault: {report.error}"
        return report

    def _inject(self, case: Case, request: MoveRequest, mover: Mover) -> Callable[[], None]:
        """Gives what heals it."""
        fleet, fault, source, destination = self.fleet, case.fault, request.source, request.destination
        if fault is Fault.CONTROLLER:
            mover.kill()
            return _nothing
        if fault in (Fault.SOURCE_GUEST, Fault.DESTINATION_GUEST):
            mover.go_on()
            self._kill_guest(source if fault is Fault.SOURCE_GUEST else destination)
            return _nothing
        if fault in (Fault.SOURCE_AGENT, Fault.DESTINATION_AGENT):
            node = source if fault is Fault.SOURCE_AGENT else destination
            fleet.stop_agent(node, signal.SIGKILL)
            return lambda: fleet.start_agent(node)
        if fault is Fault.SLOW_LINK:
            links.slow(fleet, source, case.mbps)
            return lambda: links.free(fleet, source)
        ends = {
            Fault.NODES_APART: (source, destination),
            Fault.SOURCE_AWAY: (links.CONTROL, source),
            Fault.DESTINATION_AWAY: (links.CONTROL, destination),
        }
        links.cut(fleet, ends[fault])
        return lambda: links.heal(fleet)

    def _kill_guest(self, node: NodeId) -> None:
        """As soon as there is one; a move that has ended meanwhile leaves none to kill."""
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            if self._alive(node):
                record = self._record(node)
                if record is not None:
                    os.kill(record.pid, signal.SIGKILL)
                    return
            time.sleep(0.005)

    # -- what must hold afterwards

    def _settled(self, report: MoveReport) -> MoveReport:
        """As the sweep leaves it."""
        for node in self.fleet.names:
            wait_for(lambda node=node: self.fleet._answers(NodeId(node)), 30, self.fleet._consoles)
        self._history.put(report)
        context = MoveContext(
            agents=self.fleet.clients, shards=self.fleet.shard_map, clock=self.fleet.clock, limits=QUICK_LIMITS
        )

        def look() -> bool:
            sweep(context, self._history)
            return not self._history.unsettled()

        wait_for(look, 90, lambda: f"not settled: {self._history.unsettled()}")
        found = next(one for one in self._history.latest(1000) if one.request.id == report.request.id)
        assert found.phase in (MovePhase.CLEANED, MovePhase.ABORTED), found
        owner = self._owner()
        there = found.request.destination if found.phase is MovePhase.CLEANED else found.request.source
        assert owner.node == there, f"{found.phase}, but the store has it on {owner.node}"
        return found

    def _served_on(self, client: RunningClient, *, survived: bool) -> float:
        """The connection goes on where the guest has lived; where not, the guest is booted from its disk."""
        owner = self._owner()
        if survived:
            client.wait_for_records(client.acked() + _MORE_RECORDS)
            summary = client.finish()
            assert summary.error == "", summary.error
        else:
            client.kill()
            request = CarveRequest(
                shard=owner.id, epoch=owner.epoch, resources=SHARD, address=f"{owner.address}/16", mac=owner.mac,
                disk_mib=DISK_MIB,
            )  # fmt: skip
            assert self.fleet.clients(owner.node).carve(request).state is GuestState.RUNNING
        entries = read_log(client.log)
        stored = read_records(self.fleet.disk(owner.node, self._name))
        acked = [entry.number for entry in entries]
        assert len(stored) == len(set(stored)), f"doubled: {_twice(stored)}"
        assert not (lost := set(acked) - set(stored)), f"acknowledged and lost: {sorted(lost)}"
        assert stored == sorted(stored), "out of order"
        # The record under way when a guest died may be stored without having been acknowledged.
        self._next_record = max(acked[-1], stored[-1]) + 1
        return max((later.acked - one.acked for one, later in pairwise(entries)), default=0.0) if survived else 0.0

    def _nothing_left(self) -> None:
        owner = self._owner()
        other = "nB" if owner.node == "nA" else "nA"
        here = self.fleet.clients(owner.node).status()
        assert [(one.shard, one.state, one.move) for one in here.shards] == [(owner.id, GuestState.RUNNING, None)], (
            here.shards
        )
        assert self.fleet.clients(NodeId(other)).status().shards == ()
        assert not (self.fleet.agent_folder(other) / "shards" / self._name).exists()
        for node, wanted in ((owner.node, SHARD.memory_gib), (NodeId(other), 0.0)):
            reserved = self.fleet.clients(node).status().reserved.memory_gib
            assert reserved == wanted, f"{node} keeps {reserved} GiB reserved"
        wait_for(
            lambda: self._witness.running(self._name) == [owner.node], 5,
            lambda: f"running on {self._witness.running(self._name)}, not {owner.node}",
        )  # fmt: skip

    def _owner(self) -> Shard:
        return self.fleet.shard_map.get(ShardId(self._name))

    def _record(self, node: str) -> GuestRecord | None:
        try:
            file = self.fleet.agent_folder(node) / "shards" / self._name / "shard.json"
            return GuestRecord.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None

    def _alive(self, node: str) -> bool:
        record = self._record(node)
        return record is not None and alive(record)


def _nothing() -> None:
    return


def _twice(numbers: Sequence[int]) -> list[int]:
    return sorted({number for number in numbers if numbers.count(number) > 1})


@contextmanager
def opened(name: str) -> Iterator[Campaign]:
    """A fleet of its own; the shard, and what is kept of it, is called ``name``."""
    qemu, nursery = WitnessedQemu(), MoverNursery()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="swt-") as folder,
            SmallFleet(Path(folder), first_on_path=qemu.folder) as fleet,
        ):
            witness = Witness({node: fleet.agent_folder(node) for node in fleet.names})
            try:
                yield Campaign(fleet, witness, nursery, name)
            finally:
                witness.close()
    finally:
        nursery.close()
        qemu.remove()


def told(outcome: Outcome) -> str:
    gap = f"gap {outcome.gap:.2f} s" if outcome.survived else "booted again"
    return (
        f"{outcome.case}: {outcome.phase.value}, downtime {outcome.downtime:.2f} s, {gap}, "
        f"settled in {outcome.settled:.1f} s, {outcome.records} records"
    )


def campaign(seed: int, runs: int, first: int, say: Callable[[str], None]) -> tuple[list[Outcome], list[str]]:
    """What came of every run, and what went wrong in those that broke a promise."""
    outcomes: list[Outcome] = []
    wrong: list[str] = []
    waiting = list(cases(seed, runs, first))
    while waiting:
        with opened(f"c{len(wrong)}") as running:
            while waiting:
                case = waiting.pop(0)
                try:
                    outcomes.append(running.run(case, seed=seed))
                except Exception as problem:
                    wrong.append(f"{case}: {type(problem).__name__}: {problem}")
                    say(f"run {case.index} BROKE A PROMISE: {wrong[-1]}\n{running.fleet._consoles()}")
                    say(f"again: make faults RUNS=1 SEED={seed} FIRST={case.index}")
                    break
                say(f"run {case.index}: {told(outcomes[-1])}")
    return outcomes, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("--runs", type=int, default=108)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of the first run, to repeat one or to go on")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    signal.signal(signal.SIGINT, signal.default_int_handler)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    def say(line: str) -> None:
        print(line, flush=True)

    outcomes, wrong = campaign(given.seed, given.runs, given.first, say)
    print(f"\n{table(outcomes)}\n\n{len(outcomes)} runs kept every promise, {len(wrong)} did not")
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

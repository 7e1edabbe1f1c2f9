"""The same guest moved by Shardwright and by hand, in turns: what does the controller cost?

Both totals go from the first command until the source is dead and its disk deleted. Ours has more in it: a durable
workflow, a reservation, epochs synced to disk, two nodes told over mutual TLS, limits by control group, and, under
TCG, the comparison of both memories.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.wire import Committed
from benchmarks.bars import Bar, quartiles, tell
from benchmarks.plain_qemu import PlainMove, PlainShard
from engine.fleet.agent_client import AgentClient
from engine.migration.workflow import DurableMover
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.placement import ComponentName
from engine.model.plan import MoveCause
from engine.model.value import Value
from providers.sandbox import netns
from tests.durable_moves import durable_mover
from tests.small_fleet import NAMESPACE, SmallFleet
from tests.witness import Witness, WitnessedQemu, pauses

OVERHEAD_BAR, DOWNTIME_BAR = 1.3, 1.2
_ANSWERS_WITHIN = 3.0
_FILLED_FROM_MIB = 8
"""What the record server writes lies before that."""


class Call(Value):
    verb: str
    began: float
    ended: float
    running_since: float | None = None
    """Of a commit: when the guest ran."""


class TimedAgents:
    """The fleet's agents, with the time of every call."""

    def __init__(self, fleet: SmallFleet) -> None:
        self._fleet = fleet
        self.calls: list[Call] = []

    def __call__(self, node: NodeId) -> AgentClient:
        timed: Any = _TimedAgent(self._fleet.clients(node), self.calls)
        return timed  # type: ignore[no-any-return]


class _TimedAgent:
    def __init__(self, agent: AgentClient, calls: list[Call]) -> None:
        self._agent, self._calls = agent, calls

    def __getattr__(self, verb: str) -> Any:
        act = getattr(self._agent, verb)

        def timed(*arguments: object) -> Any:
            began = time.perf_counter()
            said = act(*arguments)
            ended = time.perf_counter()
            since = ended - said.seconds_since_running if isinstance(said, Committed) and not said.differing else None
            self._calls.append(Call(verb=verb, began=began, ended=ended, running_since=since))
            return said

        return timed


class OurMove(Value):
    """Seconds. ``calls``: in order, with those of one verb in a row as one."""

    total: float
    mirror_to_running: float
    downtime: float
    """From the source's STOP to the destination's RESUME, by QEMU's own time."""
    hold: float
    """While writes begin to be logged: QEMU under TCG cannot do that with a running guest (agent.sending)."""
    reported_downtime: float
    calls: dict[str, float]


class Pair(Value):
    ours: OurMove
    plain: PlainMove
    our_gap: float
    """Longest time without an answer to an echo request."""
    plain_gap: float


class AnswerGap:
    """Longest silences of one address, as a client on the overlay sees them."""

    def __init__(self, fleet: SmallFleet, address: str) -> None:
        space = f"--net={netns.NAMESPACES / fleet.client.namespace}"
        self._process = subprocess.Popen(
            ["nsenter", space, "--", sys.executable, "-m", "benchmarks.answer_gap", address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def since_last(self) -> float:
        """The longest silence since this was asked before."""
        return self._ask()[0]

    def lost(self) -> bool:
        """It has not answered for a while, though it had the time."""
        time.sleep(_ANSWERS_WITHIN)
        return self._ask()[1] > _ANSWERS_WITHIN * 0.9

    def _ask(self) -> tuple[float, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        longest, silent = self._process.stdout.readline().split()
        return float(longest), float(silent)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def fill(path: Path, mib: int) -> None:
    """Blocks in use, so that a mirror has the whole disk to carry; all zero, so that it still holds no record."""
    with path.open("r+b") as disk:
        disk.seek(_FILLED_FROM_MIB << 20)
        for _ in range(mib - _FILLED_FROM_MIB):
            disk.write(bytes(1 << 20))


class Pairs:
    """Ours and the plain one, on the same two nodes of one fleet."""

    def __init__(self, fleet: SmallFleet, mover: DurableMover, timed: TimedAgents, witness: Witness) -> None:
        self._fleet, self._mover, self._timed, self._witness = fleet, mover, timed, witness
        self._shard, self._status = fleet.carve("ours", "nA")
        fill(fleet.disk("nA", "ours"), self._status.disk_mib)
        self._gap = AnswerGap(fleet, self._shard.address)
        self.lost = 0
        """Guests that did not survive their move by hand."""
        self._plain, self._plain_gap = self._boot_plain("nA")

    def _boot_plain(self, node: str) -> tuple[PlainShard, AnswerGap]:
        name = f"plain{self.lost}"
        entry = self._fleet.shard_map.add_shard(
            ShardId(name), shard_type=self._shard.shard_type, pool=self._shard.pool, node=NodeId(node),
            nominal=self._status.resources,
        )  # fmt: skip
        booted = PlainShard(self._fleet, name, self._status, f"{entry.address}/16", entry.mac, node)
        fill(booted.disk, self._status.disk_mib)
        component = ComponentName(namespace=NAMESPACE, workload="w", component=name)
        self._fleet.shard_map.bind(component, entry.id)  # the nodes take its link into the overlay
        self._plain_entry, gap = entry, AnswerGap(self._fleet, entry.address)
        gap.since_last()  # it listens
        if gap.lost():
            raise RuntimeError("a guest that has not been moved yet does not answer: nothing can be told of its moves")
        return booted, gap

    def run(self, count: int) -> list[Pair]:
        """After one pair that does not count."""
        pairs: list[Pair] = []
        for number in range(count + 1):
            source, destination = ("nA", "nB") if number % 2 == 0 else ("nB", "nA")
            plain, plain_gap = self._by_hand(destination)
            self._gap.since_last()
            ours = self._ours(number, source, destination)
            time.sleep(0.5)
            pair = Pair(ours=ours, plain=plain, our_gap=self._gap.since_last(), plain_gap=plain_gap)
            tell(f"pair {number}: {line(pair)}")
            if number:
                pairs.append(pair)
        return pairs

    def _by_hand(self, destination: str) -> tuple[PlainMove, float]:
        time.sleep(0.5)
        self._plain_gap.since_last()
        moved = self._plain.move(destination)
        # By hand too somebody must tell the network, and it counts into no time of the move.
        before = self._plain_entry
        self._plain_entry = self._fleet.shard_map.move(
            before.id, expected_epoch=before.epoch, to_node=NodeId(destination)
        )
        time.sleep(0.5)
        gap = self._plain_gap.since_last()
        if self._plain_gap.lost():
            self.lost += 1
            tell("a guest has not survived its move by hand: another one takes its place")
            self._plain_gap.close()
            self._plain.close()
            self._plain, self._plain_gap = self._boot_plain(destination)
        return moved, gap

    def _ours(self, number: int, source: str, destination: str) -> OurMove:
        self._timed.calls.clear()
        request = MoveRequest(
            id=MoveId(f"pair-{number}"), shard=self._shard.id, source=NodeId(source), destination=NodeId(destination),
            cause=MoveCause.OPERATOR,
        )  # fmt: skip
        began, wall = time.perf_counter(), time.time()
        report: MoveReport = self._mover.move(request)
        total = time.perf_counter() - began
        if report.phase is not MovePhase.CLEANED:
            raise RuntimeError(f"move {number} ended {report.phase}: {report.error}")
        calls = list(self._timed.calls)
        mirror = next(call.began for call in calls if call.verb == "mirror")
        running = next(call.running_since for call in calls if call.running_since is not None)
        spent: dict[str, float] = {}
        for call in calls:
            spent[call.verb] = spent.get(call.verb, 0.0) + call.ended - call.began
        spent["between the calls"] = total - sum(spent.values())
        spans = [span for span in self._witness.spans(str(self._shard.id)) if span.ended is None or span.ended > wall]
        seen = pauses(spans)
        return OurMove(
            total=total,
            mirror_to_running=running - mirror,
            downtime=sum(seconds for seconds, elsewhere in seen if elsewhere),
            hold=sum(seconds for seconds, elsewhere in seen if not elsewhere),
            reported_downtime=report.downtime_seconds,
            calls=spent,
        )

    def close(self) -> None:
        self._gap.close()
        self._plain_gap.close()
        self._plain.close()


@contextmanager
def witnessed_fleet(nodes: tuple[str, ...] = ("nA", "nB")) -> Iterator[tuple[SmallFleet, Witness]]:
    qemu = WitnessedQemu()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="swt-") as folder,
            SmallFleet(Path(folder), nodes, first_on_path=qemu.folder) as fleet,
        ):
            witness = Witness({name: fleet.agent_folder(name) for name in fleet.names})
            try:
                yield fleet, witness
            finally:
                witness.close()
    finally:
        qemu.remove()


@contextmanager
def pairs_on_two_nodes() -> Iterator[Pairs]:
    with witnessed_fleet() as (fleet, witness):
        timed = TimedAgents(fleet)
        with durable_mover(fleet, agents=timed) as mover:
            pairs = Pairs(fleet, mover, timed, witness)
            try:
                yield pairs
            finally:
                pairs.close()


def line(pair: Pair) -> str:
    ours, plain = pair.ours, pair.plain
    return (
        f"total {ours.total:.2f} / {plain.total:.2f} s, mirror to running {ours.mirror_to_running:.2f} / "
        f"{plain.mirror_to_running:.2f} s, downtime {1000 * ours.downtime:.0f} / {1000 * plain.downtime:.0f} ms "
        f"(reported {1000 * ours.reported_downtime:.0f}; held before {1000 * ours.hold:.0f}), "
        f"no answer for {1000 * pair.our_gap:.0f} / {1000 * pair.plain_gap:.0f} ms"
    )


def bars(pairs: list[Pair], lost: int) -> list[Bar]:
    """``lost``: guests that did not survive their move by hand."""
    total = quartiles([pair.ours.total / pair.plain.total for pair in pairs])
    mirror = quartiles([pair.ours.mirror_to_running / pair.plain.mirror_to_running for pair in pairs])
    down = [quartiles(each) for each in zip(*((p.ours.downtime, p.plain.downtime) for p in pairs), strict=True)]
    gap = [quartiles(each)[1] for each in zip(*((p.our_gap, p.plain_gap) for p in pairs), strict=True)]
    medians = [quartiles(each)[1] for each in zip(*((p.ours.total, p.plain.total) for p in pairs), strict=True)]
    hold = quartiles([pair.ours.hold for pair in pairs])[1]
    ratio = down[0][1] / down[1][1]
    (low, middle, high), (plain_low, plain_middle, plain_high) = down
    return [
        Bar(
            what="total move time / plain QEMU by hand (TLS, disk mirror), first command to cleaned",
            bar=f"<= {OVERHEAD_BAR}x",
            measured=f"{total[1]:.2f}x (middle half {total[0]:.2f} to {total[2]:.2f}; {len(pairs)} pairs in turns; "
            f"medians {medians[0]:.2f} and {medians[1]:.2f} s); from mirror start to running {mirror[1]:.2f}x",
            reached=total[1] <= OVERHEAD_BAR,
            figures={"pairs": [pair.model_dump() for pair in pairs], "total": total, "mirror_to_running": mirror},
        ),
        Bar(
            what="downtime p50 / plain QEMU's, STOP to RESUME by QEMU's own time",
            bar=f"<= {DOWNTIME_BAR}x",
            measured=f"{ratio:.2f}x ({ms(middle)} and {ms(plain_middle)} ms; middle halves {ms(low)} to {ms(high)}, "
            f"{ms(plain_low)} to {ms(plain_high)}); before it ours holds the guest for {ms(hold)} ms while its writes "
            f"begin to be logged; longest time without an answer to an echo request {ms(gap[0])} and {ms(gap[1])} ms; "
            f"of the {len(pairs) + 1} moves by hand, which may lose a page, {lost} killed the guest",
            reached=ratio <= DOWNTIME_BAR,
            figures={"downtime": down, "hold": hold, "no_answer": gap, "lost_by_hand": lost},
        ),
    ]


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"

"""The same guest moved by Shardwright and by hand, in turns: what does the controller cost?

Both totals go from the first command until the source is dead and its disk deleted. Ours has more in it: a durable
workflow, a reservation, epochs synced to disk, two nodes told over mutual TLS, limits by control group, and, under
TCG, the comparison of both memories.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.wire import Committed
from benchmarks.bars import Bar, quartiles, tell
from benchmarks.plain_qemu import PlainMove, PlainShard
from engine.fleet.agent_client import AgentClient
from engine.migration.workflow import DurableMover
from engine.model.ids import MoveId, NodeId, ShardId
from engine.model.move import MovePhase, MoveReport, MoveRequest
from engine.model.plan import MoveCause
from engine.model.value import Value
from providers.sandbox import netns
from tests.durable_moves import durable_mover
from tests.small_fleet import SmallFleet

OVERHEAD_BAR, DOWNTIME_BAR = 1.3, 1.2
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
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def fill(fleet: SmallFleet, path: str, mib: int) -> None:
    """Blocks in use, so that a mirror has the whole disk to carry; all zero, so that it still holds no record."""
    with open(path, "r+b") as disk:
        disk.seek(_FILLED_FROM_MIB << 20)
        for _ in range(mib - _FILLED_FROM_MIB):
            disk.write(bytes(1 << 20))


class Pairs:
    """Ours and the plain one, on the same two nodes of one fleet."""

    def __init__(self, fleet: SmallFleet, mover: DurableMover, timed: TimedAgents) -> None:
        self._fleet, self._mover, self._timed = fleet, mover, timed
        self._shard, status = fleet.carve("ours", "nA")
        fill(fleet, str(fleet.disk("nA", "ours")), status.disk_mib)
        other = fleet.shard_map.add_shard(
            ShardId("plain"), shard_type=self._shard.shard_type, pool=self._shard.pool, node=NodeId("nA"),
            nominal=status.resources,
        )  # fmt: skip
        self._plain = PlainShard(fleet, "plain", status, f"{other.address}/16", other.mac, "nA")
        fill(fleet, str(self._plain.disk), status.disk_mib)
        self._gaps = {
            "ours": AnswerGap(fleet, self._shard.address),
            "plain": AnswerGap(fleet, other.address),
        }

    def run(self, count: int) -> list[Pair]:
        """After one pair that does not count."""
        pairs = []
        for number in range(count + 1):
            source, destination = ("nA", "nB") if number % 2 == 0 else ("nB", "nA")
            time.sleep(0.5)
            self._gaps["plain"].since_last()
            plain = self._plain.move(destination)
            time.sleep(0.5)
            plain_gap = self._gaps["plain"].since_last()
            self._gaps["ours"].since_last()
            ours = self._ours(number, source, destination)
            time.sleep(0.5)
            pair = Pair(ours=ours, plain=plain, our_gap=self._gaps["ours"].since_last(), plain_gap=plain_gap)
            tell(f"pair {number}: {line(pair)}")
            if number:
                pairs.append(pair)
        return pairs

    def _ours(self, number: int, source: str, destination: str) -> OurMove:
        self._timed.calls.clear()
        request = MoveRequest(
            id=MoveId(f"pair-{number}"), shard=self._shard.id, source=NodeId(source), destination=NodeId(destination),
            cause=MoveCause.OPERATOR,
        )  # fmt: skip
        began = time.perf_counter()
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
        return OurMove(
            total=total, mirror_to_running=running - mirror, downtime=report.downtime_seconds, calls=spent
        )  # fmt: skip

    def close(self) -> None:
        for gap in self._gaps.values():
            gap.close()
        self._plain.close()


@contextmanager
def pairs_on(fleet: SmallFleet) -> Iterator[Pairs]:
    timed = TimedAgents(fleet)
    with durable_mover(fleet, agents=timed) as mover:
        pairs = Pairs(fleet, mover, timed)
        try:
            yield pairs
        finally:
            pairs.close()


def line(pair: Pair) -> str:
    ours, plain = pair.ours, pair.plain
    return (
        f"total {ours.total:.2f} / {plain.total:.2f} s, mirror to running {ours.mirror_to_running:.2f} / "
        f"{plain.mirror_to_running:.2f} s, downtime {1000 * ours.downtime:.0f} / {1000 * plain.downtime:.0f} ms, "
        f"no answer for {1000 * pair.our_gap:.0f} / {1000 * pair.plain_gap:.0f} ms"
    )


def bars(pairs: list[Pair]) -> list[Bar]:
    ratios = quartiles([pair.ours.total / pair.plain.total for pair in pairs])
    mirror = quartiles([pair.ours.mirror_to_running / pair.plain.mirror_to_running for pair in pairs])
    down = quartiles([pair.ours.downtime for pair in pairs])
    plain_down = quartiles([pair.plain.downtime for pair in pairs])
    gap = quartiles([pair.our_gap for pair in pairs])
    plain_gap = quartiles([pair.plain_gap for pair in pairs])
    total = quartiles([pair.ours.total for pair in pairs])
    plain_total = quartiles([pair.plain.total for pair in pairs])
    figures = {
        "pairs": [pair.model_dump() for pair in pairs],
        "total_ratio_quartiles": ratios,
        "mirror_to_running_ratio_quartiles": mirror,
        "downtime_ratio": down[1] / plain_down[1],
        "gap_ratio": gap[1] / plain_gap[1],
    }
    return [
        Bar(
            what="total move time / plain QEMU by hand, first command to cleaned",
            bar=f"<= {OVERHEAD_BAR}x",
            measured=f"{ratios[1]:.2f}x (middle half {ratios[0]:.2f} to {ratios[2]:.2f}; {len(pairs)} pairs; medians "
            f"{total[1]:.2f} and {plain_total[1]:.2f} s); mirror start to running {mirror[1]:.2f}x",
            reached=ratios[1] <= OVERHEAD_BAR,
            figures=figures,
        ),
        Bar(
            what="downtime p50 / plain QEMU's",
            bar=f"<= {DOWNTIME_BAR}x",
            measured=f"{down[1] / plain_down[1]:.2f}x ({1000 * down[1]:.0f} and {1000 * plain_down[1]:.0f} ms; middle half "
            f"{1000 * down[0]:.0f} to {1000 * down[2]:.0f} and {1000 * plain_down[0]:.0f} to {1000 * plain_down[2]:.0f}; "
            f"longest time without an answer to an echo request {1000 * gap[1]:.0f} and {1000 * plain_gap[1]:.0f} ms); "
            "ours compares the memory of both sides, the plain one may lose a page under TCG",
            reached=down[1] <= DOWNTIME_BAR * plain_down[1],
        ),
    ]

"""What a client notices of moves: one TCP connection, numbered records, each acknowledged once it is on the disk."""

import time
from itertools import pairwise

from agent.image import read_records
from agent.record_client import RecordEntry, read_log
from benchmarks.bars import Bar, percentile, tell
from benchmarks.move_pairs import ms, witnessed_fleet
from engine.model.ids import MoveId, NodeId
from engine.model.move import MovePhase, MoveRequest
from engine.model.plan import MoveCause
from tests.durable_moves import durable_mover

GAP_BAR_SECONDS = 0.5
RETRANSMISSION_FLOOR_SECONDS = 0.2
_EVERY = 0.005
_AFTER_SECONDS = 1.5


def longest_gap(entries: list[RecordEntry], began: float, ended: float) -> float:
    """Between two acknowledgements, of which the second came between those times. Pure."""
    pairs = pairwise(entries)
    return max((later.acked - earlier.acked for earlier, later in pairs if began <= later.acked <= ended), default=0.0)


def measure(moves: int) -> Bar:
    spans: list[tuple[float, float]] = []
    with witnessed_fleet() as (fleet, _witness), durable_mover(fleet) as mover:
        shard, _ = fleet.carve("asked", "nA")
        client = fleet.start_client(shard, seconds=3600, every=_EVERY)
        client.wait_for_records(50)
        for number in range(moves):
            source, destination = (NodeId("nA"), NodeId("nB")) if number % 2 == 0 else (NodeId("nB"), NodeId("nA"))
            began = time.monotonic()
            report = mover.move(
                MoveRequest(
                    id=MoveId(f"gap-{number}"), shard=shard.id, source=source, destination=destination,
                    cause=MoveCause.OPERATOR,
                )
            )  # fmt: skip
            if report.phase is not MovePhase.CLEANED:
                raise RuntimeError(f"move {number} ended {report.phase}: {report.error}")
            time.sleep(_AFTER_SECONDS)
            spans.append((began, time.monotonic()))
            tell(f"move {number + 1} of {moves}: gap {ms(longest_gap(read_log(client.log), *spans[-1]))} ms")
        summary = client.finish()
        stored = read_records(fleet.disk(str(fleet.shard_map.get(shard.id).node), shard.id))
        gaps = [longest_gap(read_log(client.log), *span) for span in spans]
    lost = summary.acked - len(set(stored) & set(range(1, summary.acked + 1)))
    doubled = len(stored) - len(set(stored))
    last = percentile(gaps, 0.99)
    return Bar(
        what=f"client gap over {moves} moves, one TCP connection kept",
        bar=f"p99 <= {ms(GAP_BAR_SECONDS)} ms; 0 records lost, 0 doubled",
        measured=f"p50 {ms(percentile(gaps, 0.5))}, p99 {ms(last)} ms (TCP's retransmission floor is "
        f"{ms(RETRANSMISSION_FLOOR_SECONDS)} ms); of {summary.acked} records {lost} lost, {doubled} doubled"
        + (f"; the connection broke: {summary.error}" if summary.error else ""),
        reached=last <= GAP_BAR_SECONDS and not (lost or doubled or summary.error),
        figures={"gaps": gaps, "records": summary.acked, "lost": lost, "doubled": doubled},
    )

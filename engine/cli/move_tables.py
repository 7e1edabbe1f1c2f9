"""Moves as tables and lines: what is under way, what has ended, what would be done and what it costs."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from engine.cli.console import table
from engine.model.move import MoveReport, MoveUnderWay
from engine.model.order import Order
from engine.model.plan import MoveGateReport
from engine.orders.choice import Choice, Intention


def progress_line(one: MoveUnderWay) -> str:
    """Phase, bytes left, bandwidth and time left, where there are any."""
    request = one.progress.request
    text = f"{request.id}: {request.source} -> {request.destination} {one.progress.phase}"
    if one.cancelled:
        text += ", cancelled"
    copying = _copying(one)
    return f"{text}, {copying}" if copying else text


def under_way_table(rows: Sequence[MoveUnderWay]) -> Table:
    columns = ("move", "shard", "from -> to", "cause", "phase", "copying", "since")
    return table(
        "Moves under way",
        columns,
        [
            (
                one.progress.request.id,
                one.progress.request.shard,
                f"{one.progress.request.source} -> {one.progress.request.destination}",
                one.progress.request.cause,
                one.progress.phase + (" (cancelled)" if one.cancelled else ""),
                _copying(one) or "-",
                f"{one.since:%H:%M:%S}",
            )
            for one in rows
        ],
    )


def ended_table(title: str, reports: Sequence[MoveReport]) -> Table:
    columns = (
        "move",
        "from -> to",
        "cause",
        "phase",
        "strategy",
        "downtime",
        "copied",
        "took",
        "epoch",
        "ended",
        "error",
    )
    return table(
        title,
        columns,
        [
            (
                report.request.id,
                f"{report.request.source} -> {report.request.destination}",
                report.request.cause,
                report.phase,
                report.strategy,
                f"{report.downtime_seconds * 1000:.0f} ms",
                _size(report.memory_bytes + report.disk_bytes),
                f"{(report.finished_at - report.started_at).total_seconds():.1f} s",
                f"{report.epoch_before} -> {report.epoch_after}",
                f"{report.finished_at:%Y-%m-%d %H:%M:%S}",
                report.error or "-",
            )
            for report in reports
        ],
        right=(5, 6, 7),
    )


def choice_tables(order: Order, choice: Choice) -> Iterator[Table]:
    """Where it goes and why; then the sum of each."""
    rows: list[tuple[str, ...]] = []
    for one in choice.intentions:
        rows.append((one.request.shard, one.request.source, one.request.destination, one.why))
    rows += [(one.shard, "", "nowhere", one.why) for one in choice.stranded]
    yield table(f"{order} would move", ("shard", "from", "to", "why"), rows or [("nothing", "", "", "none is bound")])
    for one in choice.intentions:
        yield _gate_table(one)


def _gate_table(one: Intention) -> Table:
    gate = one.request.gate
    if gate is None:
        return table(f"Move gate for {one.request.shard}", ("",), [("not known: not bought by a plan",)])
    left = gate.saving - gate.cost
    title = f"Move gate for {one.request.shard} ({gate.saving.currency})"
    return table(title, ("", "amount"), [*gate_rows(gate), (_verdict(gate), f"{left.amount:+.5f}")], right=(1,))


def gate_rows(gate: MoveGateReport) -> list[tuple[str, str]]:
    """Everything that goes into the sum, with its sign."""
    return [
        (f"saving over {gate.expected_stay_hours:g} h", f"{gate.saving.amount:+.5f}"),
        ("egress", f"{-gate.egress.amount:+.5f}"),
        ("double pay", f"{-gate.double_pay.amount:+.5f}"),
        ("downtime", f"{-gate.downtime.amount:+.5f}"),
        ("risk at the target", f"{-gate.risk_at_target.amount:+.5f}"),
        ("lost commitment", f"{-gate.lost_commitment.amount:+.5f}"),
    ]


def _verdict(gate: MoveGateReport) -> str:
    return "left, so it passes" if gate.passes else "left, so a round would not do it; an operator may"


def _copying(one: MoveUnderWay) -> str:
    progress = one.progress
    if progress.bytes_left is None:
        return ""
    text = f"{_size(progress.bytes_left)} left"
    if progress.bytes_per_second > 0:
        text += f" at {_size(progress.bytes_per_second)}/s"
    if progress.seconds_left is not None:
        text += f", {progress.seconds_left:.0f} s to go"
    return text


def _size(count: float) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**20:.1f} MiB"

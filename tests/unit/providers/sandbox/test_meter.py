from datetime import UTC, datetime, timedelta
from decimal import Decimal

from engine.clock import ManualClock
from engine.model.value import Interval
from providers.sandbox.machines import Machines
from providers.sandbox.meter import Meter, Usage, invoice_total
from providers.sandbox.prices import PriceBoard

START = datetime(2026, 11, 23, 1, 30, tzinfo=UTC)
KEY = ("r", "t", "on_demand")
HOUR = timedelta(hours=1)


def metered(speed: int = 1) -> tuple[ManualClock, Machines, Meter]:
    clock = ManualClock(START)
    board = PriceBoard(clock)
    board.post(KEY, Decimal("0.10"))
    return clock, Machines(clock, boot=timedelta(0)), Meter(board, clock, Decimal(speed))


def start(machines: Machines) -> None:
    machines.start("i-1", name="n", zone="z", region="r", instance_type="t", spot=False)


def usage(clock: ManualClock, machines: Machines, meter: Meter, grain: timedelta = HOUR) -> list[Usage]:
    period = Interval(start=START - HOUR, end=clock.now() + HOUR)
    return [piece for machine in machines.all() for piece in meter.usage(machine, KEY, period, grain)]


def test_usage_is_cut_at_the_grain_and_where_the_price_changes() -> None:
    clock, machines, meter = metered()
    start(machines)
    clock.advance(timedelta(minutes=45))
    meter.board.change(KEY, Decimal("0.20"))
    clock.advance(timedelta(minutes=30))
    machines.stop("i-1")
    clock.advance(HOUR)
    pieces = usage(clock, machines, meter)
    assert [(piece.hours, piece.unit_price) for piece in pieces] == [
        (Decimal("0.5"), Decimal("0.10")),
        (Decimal("0.25"), Decimal("0.10")),
        (Decimal("0.5"), Decimal("0.20")),
    ]
    assert sum(piece.cost(4) for piece in pieces) == Decimal("0.7")


def test_a_running_machine_is_metered_until_now() -> None:
    clock, machines, meter = metered()
    start(machines)
    clock.advance(timedelta(minutes=15))
    assert sum(piece.hours for piece in usage(clock, machines, meter)) == Decimal("0.25")


def test_the_meter_runs_faster_than_the_clock() -> None:
    clock, machines, meter = metered(speed=3600)
    start(machines)
    clock.advance(timedelta(seconds=2))
    (piece,) = usage(clock, machines, meter)
    assert (piece.hours, piece.end - piece.start) == (Decimal(2), timedelta(seconds=2))


def test_nothing_is_metered_outside_the_period() -> None:
    clock, machines, meter = metered()
    start(machines)
    clock.advance(HOUR)
    before = Interval(start=START - HOUR, end=START)
    (machine,) = machines.all()
    assert meter.usage(machine, KEY, before, HOUR) == []


def test_an_invoice_is_in_whole_cents() -> None:
    assert invoice_total(Decimal("1.005")) == Decimal("1.00")
    assert invoice_total(Decimal("1.015")) == Decimal("1.02")

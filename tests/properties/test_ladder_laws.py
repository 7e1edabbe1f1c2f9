"""The ladder before a deadline, on a copy that is simulated in steps of a tenth of a second: QEMU's rounds, zeros that
cost nothing and lie together, a link that others use at first, a guest that writes as fast as it likes.
"""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from engine.migration.base import MoveLimits
from engine.migration.strategies import Sample, Verb, advise

LIMITS = MoveLimits()
MB = 1e6
STEP, LOOK_EVERY = 0.1, 5
LINK = 12.5 * MB
"""Half of 200 Mbit/s."""
CROWDED_SHARE = 4
ZEROS_FASTER = 10.0
DOWNTIME_LIMIT = 0.1


@dataclass
class Copy:
    """Bytes, and seconds. ``areas``: in the order in which they are sent, with whether they are empty."""

    areas: tuple[tuple[float, bool], ...]
    writes_per_second: float
    luck: tuple[float, ...] = (1.0,)
    """What QEMU says of the link at each look, in parts of what it carries."""
    crowded_seconds: float = 0.0
    """So long others leave it a share of the link only."""
    now: float = 0.0
    stopped_at: float | None = None
    ended_at: float | None = None
    written: float = 0.0
    """Since QEMU has looked last, of what had been sent."""
    sent: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    @property
    def remaining(self) -> float:
        return sum(size for size, _ in self.areas)

    @property
    def full(self) -> float:
        return sum(size for size, empty in self.areas if not empty)

    def link(self) -> float:
        return LINK / CROWDED_SHARE if self.now < self.crowded_seconds else LINK

    def step(self) -> None:
        left = STEP
        while self.areas and left > 0:
            (size, empty), *more = self.areas
            rate = self.link() * (ZEROS_FASTER if empty else 1.0)
            part = min(size, rate * left)
            left -= part / rate
            self.sent += 0.0 if empty else part
            self.areas = ((size - part, empty), *more) if size - part > 1 else tuple(more)
        if self.stopped_at is None:
            self.written = min(self.sent, self.written + self.writes_per_second * STEP)
        self.now += STEP
        if not self.areas:
            if self.written <= self.link() * DOWNTIME_LIMIT:
                self.ended_at = self.now
            self.areas, self.written, self.sent = ((self.written, False),), 0.0, 0.0

    def look(self) -> None:
        self.samples.append(
            Sample(
                at=self.now,
                remaining_bytes=int(self.remaining),
                bytes_per_second=self.link() * self.luck[round(self.now / STEP / LOOK_EVERY) % len(self.luck)],
            )
        )

    def advice(self, notice: float) -> Verb:
        return advise(
            self.samples, seconds_left=notice - self.now, downtime_limit_ms=100, stopped=self.stopped_at is not None,
            limits=LIMITS,
        ).verb  # fmt: skip


def carried_out(copy: Copy, notice: float) -> Verb:
    """What the copy ends with: GIVE_UP_MEMORY (``ended_at`` says when too), STOP_GUEST or KEEP_ON."""
    while True:
        for _ in range(LOOK_EVERY):
            copy.step()
            if copy.ended_at is not None:
                return Verb.KEEP_ON if copy.stopped_at is None else Verb.STOP_GUEST
        copy.look()
        verb = copy.advice(notice)
        if verb is Verb.GIVE_UP_MEMORY:
            copy.ended_at = copy.now
            return verb
        if verb is Verb.STOP_GUEST and copy.stopped_at is None:
            copy.stopped_at = copy.now
            copy.samples.clear()
        assert copy.now < notice + 120


sizes = st.floats(1 * MB, 200 * MB)
memories = st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=5).map(tuple)
writes = st.floats(0, 1000 * MB)
lucks = st.floats(-0.5, 0.5).map(lambda wrong: (1 + wrong, 1 - wrong))


@given(memories, writes, lucks, st.floats(0, 3), st.floats(0, 60))
def test_whatever_a_guest_writes_its_memory_is_there_in_time(
    memory: tuple[tuple[float, bool], ...], writes: float, luck: tuple[float, ...], crowded: float, more: float
) -> None:
    """Where there is half as much time again as sending all of it takes, and some for getting to know the link."""
    copy = Copy(memory, writes, luck, crowded)
    once = (copy.remaining - copy.full) / LINK / ZEROS_FASTER + copy.full / LINK
    notice = LIMITS.deadline_reserve + 1.5 * once + crowded + 2.5 + more
    assert carried_out(copy, notice) is not Verb.GIVE_UP_MEMORY
    assert copy.ended_at is not None
    assert copy.ended_at <= notice


@given(memories, st.floats(0, 3), st.floats(0, 60))
def test_a_guest_that_writes_nothing_is_not_stopped_where_there_is_time(
    memory: tuple[tuple[float, bool], ...], crowded: float, more: float
) -> None:
    """As much as it seems to need as long as nobody knows how much is empty, and that others leave the link."""
    copy = Copy(memory, 0.0, crowded_seconds=crowded)
    seems = copy.remaining / (LINK / CROWDED_SHARE if crowded else LINK)
    notice = LIMITS.deadline_reserve + 2 * seems + 2.5 + more
    assert carried_out(copy, notice) is Verb.KEEP_ON


@given(memories, st.floats(0, 3), st.floats(4, 90))
def test_memory_that_does_not_fit_is_given_up_while_its_node_can_still_be_asked(
    memory: tuple[tuple[float, bool], ...], crowded: float, notice: float
) -> None:
    copy = Copy(memory, 0.0, crowded_seconds=crowded)
    ended = carried_out(copy, notice)
    assert copy.ended_at is not None
    if ended is Verb.GIVE_UP_MEMORY:
        assert notice - copy.ended_at > 0.4
    else:
        assert copy.ended_at <= notice + 1.0


@given(memories, writes, st.floats(0, 3), st.floats(0, 90))
def test_before_a_deadline_a_copy_comes_to_an_end(
    memory: tuple[tuple[float, bool], ...], writes: float, crowded: float, notice: float
) -> None:
    """However late it has begun; what a guest wrote before it was stopped is seen last, and may take a second more."""
    copy = Copy(memory, writes, crowded_seconds=crowded)
    carried_out(copy, notice)
    assert copy.ended_at is not None
    assert copy.ended_at <= max(notice, 4.0) + 1.0

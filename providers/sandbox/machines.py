"""The instances of one sandbox cloud: started, reclaimed, ended; every state follows from the clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from engine.clock import Clock
from providers.sandbox.contract import TERMINATED_LISTED_SECONDS, InstanceState

_REMEMBERED = timedelta(seconds=TERMINATED_LISTED_SECONDS)


@dataclass(frozen=True)
class Reclaim:
    """The cloud takes an instance back: told at ``seen_at``, gone at ``at``."""

    seen_at: datetime
    at: datetime
    reason: str


@dataclass
class Machine:
    """One instance as its cloud knows it. Metered from ``runs_from`` until it ends."""

    instance_id: str
    name: str
    region: str
    zone: str
    instance_type: str
    spot: bool
    launched_at: datetime
    runs_from: datetime
    user_data: str = ""
    private_ip: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    price_ceiling: Decimal | None = None
    reclaim: Reclaim | None = None
    stopped_at: datetime | None = None

    @property
    def node(self) -> str:
        return self.tags.get("shardwright-node", "")

    def ended_at(self, now: datetime) -> datetime | None:
        """When it ended, if it has by ``now``; a reclaim ends it without anybody asking."""
        ends = [moment for moment in (self.stopped_at, self.reclaim and self.reclaim.at) if moment and moment <= now]
        return min(ends, default=None)

    def state(self, now: datetime) -> InstanceState:
        if self.ended_at(now):
            return InstanceState.TERMINATED
        return InstanceState.RUNNING if now >= self.runs_from else InstanceState.PENDING


class Machines:
    """Every instance that this cloud ever started; the meter reads the ended ones too."""

    def __init__(self, clock: Clock, *, boot: timedelta = timedelta(milliseconds=300)) -> None:
        self._clock = clock
        self._boot = boot
        self._all: dict[str, Machine] = {}

    def start(
        self,
        instance_id: str,
        *,
        name: str,
        zone: str,
        region: str,
        instance_type: str,
        spot: bool,
        user_data: str = "",
        private_ip: str | None = None,
        tags: dict[str, str] | None = None,
        price_ceiling: Decimal | None = None,
    ) -> Machine:
        now = self._clock.now()
        machine = Machine(
            instance_id=instance_id,
            name=name,
            region=region,
            zone=zone,
            instance_type=instance_type,
            spot=spot,
            launched_at=now,
            runs_from=now + self._boot,
            user_data=user_data,
            private_ip=private_ip,
            tags=dict(tags or {}),
            price_ceiling=price_ceiling,
        )
        self._all[instance_id] = machine
        return machine

    def stop(self, instance_id: str) -> None:
        """Ends it now; one that has ended stays as it was."""
        machine = self._all[instance_id]
        if machine.ended_at(self._clock.now()) is None:
            machine.stopped_at = self._clock.now()

    def reclaim(self, instance_id: str, notice: timedelta, reason: str = "reclaimed") -> None:
        """Gives notice once; a second one for the same instance changes nothing. Raises KeyError."""
        machine = self._all[instance_id]
        now = self._clock.now()
        if machine.reclaim is None and machine.ended_at(now) is None:
            machine.reclaim = Reclaim(seen_at=now, at=now + notice, reason=reason)

    def state(self, machine: Machine) -> InstanceState:
        return machine.state(self._clock.now())

    def live(self) -> list[Machine]:
        now = self._clock.now()
        return [machine for machine in self._all.values() if machine.ended_at(now) is None]

    def shown(self) -> list[Machine]:
        """The live ones, and those that ended within the last minute."""
        now = self._clock.now()
        return [
            machine
            for machine in self._all.values()
            if (ended := machine.ended_at(now)) is None or now - ended < _REMEMBERED
        ]

    def noticed(self) -> list[tuple[Machine, Reclaim]]:
        return [(machine, machine.reclaim) for machine in self.shown() if machine.reclaim]

    def all(self) -> Iterable[Machine]:
        return self._all.values()

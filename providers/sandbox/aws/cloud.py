"""The account behind the API: moto's instances, when each started and ended, and what the market does to them."""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

from engine.clock import Clock
from engine.model.value import Interval
from providers.sandbox.aws.catalogue import Market, list_prices, on_demand_key, spot_key
from providers.sandbox.cloud import Faults, shown_instances, shown_notices
from providers.sandbox.contract import (
    Fault,
    MarketOption,
    PriceChange,
    ReclaimOrder,
    SandboxBill,
    SandboxInstance,
    SandboxNotice,
)
from providers.sandbox.machines import Machine, Machines
from providers.sandbox.meter import Meter
from providers.sandbox.prices import PriceKey

_SPOT_NOTICE = timedelta(minutes=2)
"""What AWS gives when the spot price rises over an instance's ceiling."""


class Cloud:
    """One AWS account in some regions. moto is not thread-safe: whoever calls takes ``turn`` first."""

    def __init__(self, *, account: str, regions: Sequence[str], seed: int, meter_speed: Decimal, clock: Clock) -> None:
        self.account, self.regions, self.seed, self.clock = account, tuple(regions), seed, clock
        self.market = Market(clock, seed, _offerings(self.regions))
        self.machines = Machines(clock)
        self.meter = Meter(self.market.board, clock, meter_speed)
        self.turn = threading.RLock()
        self.faults = Faults(clock)
        self._seen: set[str] = set()
        self._open: dict[str, Machine] = {}
        """Instances that moto still runs."""
        self.deliver: Callable[[Interval], SandboxBill] | None = None
        """Set by whoever writes the bills."""

    def settle(self) -> None:
        """Whatever the clock has brought about since the last request: reclaims, spot prices over ceilings."""
        for machine in self.machines.live():
            ceiling = machine.price_ceiling
            if machine.spot and ceiling is not None and self.market.board.now(price_key(machine)) > ceiling:
                self.machines.reclaim(machine.instance_id, _SPOT_NOTICE, "spot price over the maximum price")
        now = self.clock.now()
        for machine in [found for found in self._open.values() if found.ended_at(now) is not None]:
            self._backend(machine.region).terminate_instances([machine.instance_id])
            del self._open[machine.instance_id]

    def observe(self, region: str, *, price_ceiling: Decimal | None = None) -> None:
        """After a call that starts, tags or ends instances: meter the new ones, stop metering the ended ones."""
        backend = self._backend(region)
        for instance in _all(backend):
            if instance.id not in self._seen:
                self._seen.add(instance.id)
                self._open[instance.id] = self._meter(region, instance, price_ceiling)
            machine = self._open.get(instance.id)
            if machine is None:
                continue
            machine.tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
            if instance.state == "terminated":
                self.machines.stop(instance.id)
                del self._open[instance.id]

    def zone_of_subnet(self, region: str, subnet_id: str) -> str | None:
        """None where there is no such subnet."""
        known = {subnet.id: subnet for zone in self._backend(region).subnets.values() for subnet in zone.values()}
        return str(known[subnet_id].availability_zone) if subnet_id in known else None

    def zone_ids(self, region: str) -> dict[str, str]:
        """zone name -> zone id (use1-az6)."""
        return {zone.name: zone.zone_id for zone in self._backend(region).describe_availability_zones()}

    # -- the /_sandbox side (providers.sandbox.cloud.SandboxControl) ----------------------------------------------

    def instances(self) -> list[SandboxInstance]:
        with self.turn:
            self.settle()
            return shown_instances(self.machines)

    def notices(self) -> list[SandboxNotice]:
        with self.turn:
            self.settle()
            return shown_notices(self.machines)

    def reclaim(self, order: ReclaimOrder) -> None:
        with self.turn:
            self.settle()
            self.machines.reclaim(order.instance_id, timedelta(seconds=order.notice_seconds), "spot interruption")

    def change_price(self, change: PriceChange) -> None:
        with self.turn:
            self.market.change(change.region, change.instance_type, change.option.value, change.price)

    def prices(self) -> list[PriceChange]:
        with self.turn:
            return [
                PriceChange(region=region, instance_type=kind, option=MarketOption(option), price=price)
                for region in self.regions
                for kind in self.market.types(region)
                for option, price in self.market.asked(region, kind)
            ]

    def set_fault(self, fault: Fault) -> None:
        self.faults.set(fault)

    def bill(self, period: Interval) -> SandboxBill:
        if self.deliver is None:
            raise KeyError("bills")
        with self.turn:
            return self.deliver(period)

    # -- moto's side ----------------------------------------------------------------------------------------------

    def _backend(self, region: str) -> Any:
        return ec2_backends[self.account][region]

    def _meter(self, region: str, instance: Any, price_ceiling: Decimal | None) -> Machine:
        zone, spot = str(instance.placement.zone), instance.lifecycle == "spot"
        list_price = self.market.board.now(on_demand_key(region, instance.instance_type))
        return self.machines.start(
            instance.id,
            name=instance.id,
            region=region,
            zone=zone,
            instance_type=instance.instance_type,
            spot=spot,
            user_data=instance.user_data.decode() if instance.user_data else "",
            private_ip=instance.private_ip,
            price_ceiling=(price_ceiling or list_price) if spot else None,
        )


def price_key(machine: Machine) -> PriceKey:
    if machine.spot:
        return spot_key(machine.region, machine.zone, machine.instance_type)
    return on_demand_key(machine.region, machine.instance_type)


def _all(backend: Any) -> list[Any]:
    return [instance for reservation in backend.reservations.values() for instance in reservation.instances]


def _offerings(regions: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for region in regions:
        sold = list_prices(region)
        for row in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, []):
            if row["InstanceType"] in sold:
                yield region, row["Location"], row["InstanceType"]


def forget_other_regions(regions: Sequence[str]) -> None:
    """moto reads every region's offerings into memory; those of regions not served are given back.

    For a process that is this server and nothing else: moto's data is the process's own.
    """
    for by_region in INSTANCE_TYPE_OFFERINGS.values():
        for region in [name for name in by_region if name not in regions]:
            del by_region[region]
    gc.collect()

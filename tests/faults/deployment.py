"""A deployment on a sandbox of its own, whose control planes can be killed and looked at from outside."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from engine.app.configured import open_store
from engine.app.embedded import free_port
from engine.clock import SystemClock
from engine.config import Configuration, load_configuration
from engine.store.opened import Store
from providers.base import InstanceRecord, Provider, SupportsInventory
from providers.network.client import NetworkClient
from providers.network.wire import WireReservation
from providers.registry import open_provider
from providers.sandbox import supervisor
from providers.sandbox.configuration import PoolChoice, write_configuration
from providers.sandbox.control import SandboxClient
from tests.faults.control_nursery import DESTROY, Order
from tests.faults.nursery import ControlRun, Nursery

PROVIDERS = ("aws", "harbor", "agora")
"""A cloud (which sells spot), a network with fixed prices, and one that runs auctions."""
NETWORKS = ("harbor", "agora")
SHARDS = 3
"""What the demand asks for; no provider may carry more than half, so each carries one."""
_METER_SPEED = Decimal(720)
_CHANGES = (("budget_seconds = 20", "budget_seconds = 1"), ("max_provider_share = 0.34", "max_provider_share = 0.5"))


def write_usage(path: Path) -> Path:
    """Three weeks of hours that SHARDS serve, whatever a forecaster makes of them."""
    start = datetime(2026, 11, 2, tzinfo=UTC)
    lines = ["series_id,timestamp,value"]
    for hour in range(504):
        value = float(SHARDS) if hour % 50 == 7 else SHARDS - 0.7 - 0.1 * (hour % 24 > 8)
        lines.append(f"web,{(start + timedelta(hours=hour)).isoformat()},{value}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Deployment:
    """A sandbox, a configuration with its state, and the control planes that are run on it one after another."""

    def __init__(self, folder: Path, nursery: Nursery, shared: Path) -> None:
        """``shared``: a folder for what may be the same in every deployment (the trained network)."""
        self.folder, self._nursery, self.runs = folder, nursery, list[ControlRun]()
        port = free_port()
        self.info = supervisor.start(
            folder / "s", seed=7, meter_speed=_METER_SPEED, providers=PROVIDERS, control_ports=(port,)
        )
        self.sandbox = SandboxClient(self.info)
        (folder / "c").mkdir()
        (folder / "c" / "models").symlink_to(shared)
        self.path = self._configure(port)
        self.configuration: Configuration = load_configuration(self.path)
        settings = self.configuration.provider_settings()
        self.providers: dict[str, Provider] = {one.name: open_provider(one, clock=SystemClock()) for one in settings}
        self._networks = {name: self._network(name) for name in NETWORKS}
        self._free_before = {name: self._free_units(name) for name in NETWORKS}

    def _configure(self, port: int) -> Path:
        path = write_configuration(
            self.info,
            self.folder / "shardwright.toml",
            name="f",
            state_directory=self.folder / "c",
            control_port=port,
            pools=(PoolChoice(id="web", component="api", risk_class="bronze", peak_shards=SHARDS),),
            usage=write_usage(self.folder / "usage.csv"),
            metric="value",
        )
        text = path.read_text(encoding="utf-8")
        for default, here in _CHANGES:
            assert default in text
            text = text.replace(default, here)
        path.write_text(text, encoding="utf-8")
        return path

    def close(self) -> None:
        for client in (self.sandbox, *self._networks.values()):
            client.close()
        for run in self.runs:
            run.end()
        assert supervisor.stop(self.folder / "s") == []

    # -- control planes

    def run(self, *more: str, die: str | None = None) -> ControlRun:
        """``shardwright run`` for one round."""
        return self._start("run", "--config", str(self.path), "--rounds", "1", *more, die=die)

    def destroy(self) -> None:
        """Every cell."""
        run = self._start(DESTROY, str(self.path))
        assert run.wait() == 0, run.said()

    def _start(self, *arguments: str, die: str | None = None) -> ControlRun:
        number = len(self.runs) + 1
        log = self.folder / f"run-{number}.log"
        order = Order(arguments=arguments, die=die, marker=f"{self.folder}-{number}", log=log)
        self.runs.append(ControlRun(self._nursery, order))
        return self.runs[-1]

    # -- what can be seen from outside

    def store(self) -> AbstractContextManager[Store]:
        return open_store(self.configuration)

    def instances(self) -> Sequence[InstanceRecord]:
        """What runs, with whatever provider."""
        found: list[InstanceRecord] = []
        for provider in self.providers.values():
            assert isinstance(provider, SupportsInventory)
            found += (record for record in provider.instances() if record.running)
        return found

    def reservations(self, network: str) -> Sequence[WireReservation]:
        return self._networks[network].reservations()

    def units_taken(self, network: str) -> int:
        """From the market by this deployment: by holds, paid for or not, by reservations, and by won auctions for as
        long as their quotes stand.
        """
        return self._free_before[network] - self._free_units(network)

    def _free_units(self, network: str) -> int:
        return sum(offer.available or 0 for offer in self._networks[network].offers().offers)

    def _network(self, name: str) -> NetworkClient:
        settings = self.info.provider(name).settings()
        token = settings.credentials["token"].get_secret_value()
        return NetworkClient(str(settings.endpoint), token, clock=SystemClock())

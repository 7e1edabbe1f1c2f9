"""The market process: moves prices from a seed, and does on request what a market does to people.

By itself it nudges a few spot and auction prices a period, never above where they opened, so that nobody is reclaimed
over a price that this market made up. Only when told to at the start does it let prices rise, and reclaims nodes. What
it draws, and in which order, depends on the seed alone.
"""

import math
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from engine.errors import ProviderError, ShardwrightError, UsageError
from providers.sandbox.contract import MarketOption, PriceChange, ReclaimOrder
from providers.sandbox.nodes import HostedNode, HostedNodes
from providers.sandbox.servers import ServerClient

PERIOD_SECONDS = 20.0
_NUDGES = 3
_SIGMA = 0.06
_LOWEST, _HIGHEST = Decimal("0.6"), Decimal("1.6")
"""A nudged price stays within these multiples of what it was at its first nudge; above 1 only with reclaims."""
_RECLAIM_PROBABILITY = 0.05
_PLACES = Decimal("0.000001")
PriceKey = tuple[str, str, str, MarketOption]
"""(provider, region, instance type, option)"""


@dataclass(frozen=True)
class Seller:
    """A provider server and the notice it gives by default."""

    client: ServerClient
    notice_seconds: float


class Market:
    """Thread-safe. ``sellers`` by provider name."""

    def __init__(
        self,
        sellers: Mapping[str, Seller],
        nodes: HostedNodes,
        *,
        seed: int,
        reclaims: bool,
        say: Callable[[str], None],
    ) -> None:
        self._sellers, self._nodes, self._reclaims, self._say = dict(sellers), nodes, reclaims, say
        self._rng = random.Random(f"market/{seed}")  # noqa: S311 (a market's noise, not a secret)
        self._lock = threading.Lock()
        self._opening: dict[PriceKey, Decimal] = {}

    def run(self, stop: threading.Event, period_seconds: float = PERIOD_SECONDS) -> None:
        while not stop.wait(period_seconds):
            self.tick()

    def tick(self) -> None:
        """One period: a few nudges a seller; perhaps a reclaim."""
        for name in sorted(self._sellers):
            try:
                self._nudge(name)
            except ProviderError as error:
                self._say(f"market: {error}")
        if self._reclaims and self._rng.random() < _RECLAIM_PROBABILITY:
            self._reclaim_any()

    def price(self, provider: str, change: PriceChange) -> None:
        """From now on; later nudges start from here."""
        self._seller(provider).client.change_price(change)
        with self._lock:
            self._opening.pop(_key(provider, change), None)

    def cheaper(
        self,
        instance_type: str,
        factor: Decimal,
        *,
        provider: str | None,
        region: str | None,
        option: MarketOption | None,
    ) -> list[tuple[str, PriceChange]]:
        """Multiply every matching price; (provider, change) each. Raises UsageError when nothing matches."""
        if not 0 < factor < 1:
            raise UsageError(f"a factor of {factor} is not cheaper", next_step="give one between 0 and 1")
        changed = []
        for name in [provider] if provider else sorted(self._sellers):
            for posted in self._seller(name).client.prices():
                fits = posted.instance_type == instance_type and region in (None, posted.region)
                if fits and option in (None, posted.option):
                    change = posted.model_copy(update={"price": _rounded(posted.price * factor)})
                    self.price(name, change)
                    changed.append((name, change))
        if not changed:
            raise UsageError(f"nobody asks a price for {instance_type!r}", why=f"region {region}, option {option}")
        return changed

    def reclaim(self, node: str, notice_seconds: float | None = None) -> HostedNode:
        """The provider takes the node back after its usual notice, or after the one given."""
        hosted = self._nodes.named(node)
        seller = self._seller(hosted.provider)
        notice = seller.notice_seconds if notice_seconds is None else notice_seconds
        seller.client.reclaim(ReclaimOrder(instance_id=hosted.instance.instance_id, notice_seconds=notice))
        return hosted

    def _seller(self, provider: str) -> Seller:
        seller = self._sellers.get(provider)
        if seller is None:
            raise UsageError(f"no provider {provider!r} on this market", why=f"there are {', '.join(self._sellers)}")
        return seller

    def _nudge(self, name: str) -> None:
        moving = [p for p in self._sellers[name].client.prices() if p.option is not MarketOption.ON_DEMAND]
        moving.sort(key=lambda p: (p.region, p.instance_type, p.option))
        with self._lock:
            chosen = self._rng.sample(moving, min(_NUDGES, len(moving)))
            steps = [Decimal(repr(math.exp(self._rng.gauss(0.0, _SIGMA)))) for _ in chosen]
        for posted, step in zip(chosen, steps, strict=True):
            with self._lock:
                opening = self._opening.setdefault(_key(name, posted), posted.price)
            highest = opening * _HIGHEST if self._reclaims else opening
            price = min(max(posted.price * step, opening * _LOWEST), highest)
            self._sellers[name].client.change_price(posted.model_copy(update={"price": _rounded(price)}))

    def _reclaim_any(self) -> None:
        candidates = sorted(
            (hosted for hosted in self._nodes.all() if hosted.instance.spot and hosted.notice is None),
            key=lambda hosted: hosted.node,
        )
        if not candidates:
            return
        chosen = self._rng.choice(candidates)
        try:
            self.reclaim(chosen.node)
            self._say(f"market: reclaims {chosen.node} of {chosen.provider}")
        except ShardwrightError as error:
            self._say(f"market: {error}")


def _key(provider: str, change: PriceChange) -> PriceKey:
    return provider, change.region, change.instance_type, change.option


def _rounded(price: Decimal) -> Decimal:
    return max(_PLACES, price.quantize(_PLACES, rounding=ROUND_HALF_EVEN))

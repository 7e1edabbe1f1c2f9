"""What a buyer checks before it believes a network: signatures and whose they are, sizes, and that an answer is one to
this very request. ``Unproven`` (see ``signing``) carries the named reason.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence

from engine.clock import Clock
from engine.errors import NotFound, ProviderAnswerInvalid
from providers.base import KeyMemory
from providers.network import wire
from providers.network.client import NetworkClient
from providers.network.signing import Unproven, Verifier

_REMEMBERED_QUOTES = 10_000

OfferCheck = Callable[[wire.WireOffer], None]
"""Raises Unproven."""


class Trust:
    """One buyer's memory of one network. Safe to share between threads for checking.

    ``pinned``: thumbprints of the keys that count; empty: those that ``memory`` trusts, where there is one. Without
    either every key counts that the network publishes.
    """

    def __init__(
        self,
        client: NetworkClient,
        clock: Clock,
        *,
        name: str = "",
        pinned: Collection[str] = (),
        memory: KeyMemory | None = None,
    ) -> None:
        self._client, self._clock = client, clock
        self._name, self._pinned, self._memory = name, frozenset(pinned), memory
        self._verifier = Verifier(self._keys, self._refusal)
        self._answered: OrderedDict[str, str] = OrderedDict()

    def offer_check(self) -> OfferCheck:
        """For the offers of one list: signed by the network, and of the size that its catalogue gives the type."""
        sizes = self._catalogue()
        now = self._clock.now()
        self._verifier.begin()

        def check(offer: wire.WireOffer) -> None:
            self._verifier.check_offer(offer, now)
            size = sizes.setdefault(offer.instance_type, offer.resources)
            if size != offer.resources:
                raise Unproven(
                    f"lying size: {_size(offer.resources)} offered as {offer.instance_type} of {_size(size)}"
                )

        return check

    def check_fresh_quote(self, quote: wire.WireQuote, term: wire.WireTerm, *, nonce: str) -> None:
        """Of a request that carried ``nonce``. Raises Unproven."""
        self._verifier.check_quote(quote, self._clock.now(), nonce=nonce)
        if quote.term != term:
            raise Unproven("replayed: the quote is for another term")

    def check_keyed_quote(self, quote: wire.WireQuote, *, key: str) -> None:
        """Of a request under an idempotency key: it may come again for the same key, and for no other.

        Its term may be that of an earlier life of the round, whose request stands. Raises Unproven.
        """
        self._verifier.check_quote(quote, self._clock.now())
        if self._answered.setdefault(quote.quote_id, key) != key:
            raise Unproven(f"replayed: quote {quote.quote_id} answered another request")
        while len(self._answered) > _REMEMBERED_QUOTES:
            self._answered.popitem(last=False)

    def _keys(self) -> Sequence[wire.VerificationKey]:
        try:
            return self._client.keys()
        except (NotFound, ProviderAnswerInvalid):
            return ()

    def _refusal(self, key: str, published: Collection[str]) -> str | None:
        """Why prices signed with this key are not taken; None where they are."""
        if self._pinned:
            if key in self._pinned:
                return None
            return f"wrong key: signed with {key}, which providers.{self._name}.signing_keys does not name"
        if self._memory is None or key in self._memory.meet(self._name, published):
            return None
        return (
            f"wrong key: signed with {key}, not with a key that {self._name} is known by; where the network confirms "
            f"that it changed: shardwright network accept {self._name} {key}"
        )

    def _catalogue(self) -> dict[str, wire.WireResources]:
        """Empty where the network has none: then the first offer of a type says how large it is."""
        try:
            return {kind.instance_type: kind.resources for kind in self._client.shard_types()}
        except (NotFound, ProviderAnswerInvalid):
            return {}


def _size(size: wire.WireResources) -> str:
    return f"{size.vcpus:g} vCPU, {size.memory_gib:g} GiB"

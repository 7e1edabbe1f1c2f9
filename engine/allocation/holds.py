"""The holds of a whole plan, in two phases: hold everything, then confirm or give back everything.

The phase of the plan is written before its first confirmation. A restart therefore knows what to do with what it finds:
before that line everything is given back, after it everything is confirmed. Our own leases are confirmed before any
provider is paid, so that nothing that is paid for can lapse on our side.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum

from engine.allocation.lease import Lease, LeaseState
from engine.allocation.locking import ResourceLocking
from engine.errors import ConcurrentUpdate, InsufficientCapacity, NotFound, ProviderError
from engine.model.ids import HoldId, NodeId, OfferId, PlanId
from engine.model.market import Hold, Quote
from engine.model.plan import Plan, PlannedNode
from engine.model.value import Value
from providers.base import Provider, SupportsHolds


class HoldPhase(StrEnum):
    HOLDING = "holding"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    RELEASED = "released"


class HeldNode(Value):
    """One unit kept for one planned node."""

    node: NodeId
    hold: Hold
    fencing: int


class Refusal(Value):
    """A purchase that cannot be held after all; plan again without this offer."""

    node: NodeId
    offer: OfferId
    provider: str
    reason: str
    denied: bool = False
    """Whether the provider had none left, rather than that the quote had expired or our own limit was reached."""


class HoldsReport(Value):
    plan: PlanId
    held: tuple[HeldNode, ...] = ()
    """Empty when anything was refused: then everything was given back."""
    refused: tuple[Refusal, ...] = ()


class RecoveryReport(Value):
    """What a restart did with the plans it found half-way."""

    confirmed: tuple[PlanId, ...] = ()
    released: tuple[PlanId, ...] = ()


class PlanHolds:
    """``providers`` by configured name. One that knows holds is asked for one per node; for the others the lease of our
    own stands, limited by the quoted quantity. A lease's key is its node's token.
    """

    def __init__(self, locking: ResourceLocking, providers: Mapping[str, Provider]) -> None:
        self._locking, self._providers = locking, providers

    def hold_all(self, plan: Plan) -> HoldsReport:
        """All purchases of the plan, or none of them. Repeating it finds the same holds."""
        if self._locking.leases.phase(plan.id) in (HoldPhase.CONFIRMING, HoldPhase.CONFIRMED):
            return HoldsReport(plan=plan.id, held=tuple(self._held(plan)))
        self._locking.set_phase(plan.id, HoldPhase.HOLDING)
        held, refused = [], []
        for planned, quote in _purchases(plan):
            ours = True
            try:
                lease = self._locking.reserve_quote(quote, 1, key=planned.token, group=plan.id, holder=planned.node.id)
                ours = False
                held.append(self._hold_at_provider(planned, quote, lease))
            except ProviderError as error:
                refused.append(
                    Refusal(
                        node=planned.node.id,
                        offer=quote.offer.id,
                        provider=quote.offer.provider,
                        reason=str(error),
                        denied=isinstance(error, InsufficientCapacity) and not ours,
                    )
                )
        if refused:
            self.release_all(plan.id)
            return HoldsReport(plan=plan.id, refused=tuple(refused))
        return HoldsReport(plan=plan.id, held=tuple(held))

    def confirm_all(self, plan: Plan) -> HoldsReport:
        """Pay for everything that is held. Idempotent. Raises NotFound when a hold lapsed (everything is given back
        then), ConcurrentUpdate when the plan's holds were given back before.
        """
        if self._locking.leases.phase(plan.id) == HoldPhase.RELEASED:
            raise ConcurrentUpdate(f"the holds of {plan.id} were given back", next_step="plan again")
        self._locking.set_phase(plan.id, HoldPhase.CONFIRMING)
        self._confirm_group(plan.id)
        return HoldsReport(plan=plan.id, held=tuple(self._held(plan)))

    def release_all(self, plan: PlanId) -> None:
        """Give back whatever the plan holds, confirmed or not. Idempotent."""
        for lease in self._locking.leases.of_group(plan):
            self._release_one(lease)
        self._locking.set_phase(plan, HoldPhase.RELEASED)

    def release_node(self, token: str) -> None:
        """Give back what was bought for one node (it has left). Nothing there = success."""
        lease = self._locking.leases.get(token)
        if lease is not None:
            self._release_one(lease)

    def hold_of(self, token: str) -> Hold | None:
        """The hold behind a planned node's token; None when nothing is held or paid for it."""
        lease = self._locking.leases.get(token)
        if lease is None or lease.state not in (LeaseState.HELD, LeaseState.CONFIRMED):
            return None
        return _hold_in(lease)

    def recover(self, *, in_progress: Collection[PlanId] = ()) -> RecoveryReport:
        """Finish what a crash left half-way: confirm where confirming had begun, give back where it had not.

        ``in_progress``: plans of rounds that resume by themselves; those are left alone.
        """
        confirmed, released = [], []
        for group in self._locking.leases.groups_in(HoldPhase.CONFIRMING):
            if group not in in_progress:
                try:
                    self._confirm_group(PlanId(group))
                    confirmed.append(PlanId(group))
                except NotFound:
                    released.append(PlanId(group))
        for group in self._locking.leases.groups_in(HoldPhase.HOLDING):
            if group not in in_progress:
                self.release_all(PlanId(group))
                released.append(PlanId(group))
        self._locking.expire()
        return RecoveryReport(confirmed=tuple(confirmed), released=tuple(released))

    def _hold_at_provider(self, planned: PlannedNode, quote: Quote, lease: Lease) -> HeldNode:
        provider = self._holder_of(quote)
        if provider is not None and lease.hold_document is None:
            lease = self._locking.note_hold(lease, provider.hold(_one_unit(quote), key=_key_at_provider(lease)))
        return HeldNode(node=planned.node.id, hold=_hold_in(lease), fencing=lease.fencing)

    def _confirm_group(self, group: PlanId) -> None:
        """All or nothing: where one has lapsed, everything is given back before NotFound is raised."""
        wanted = [one for one in self._locking.leases.of_group(group) if one.state is not LeaseState.RELEASED]
        try:
            for lease in [self._locking.confirm(lease) for lease in wanted]:
                provider = None if lease.quote is None else self._holder_of(lease.quote)
                if provider is not None:
                    provider.confirm(_hold_in(lease))
        except NotFound:
            self.release_all(group)
            raise
        self._locking.set_phase(group, HoldPhase.CONFIRMED)

    def _release_one(self, lease: Lease) -> None:
        """The provider first: a crash in between leaves our lease, which finds its way here again."""
        if lease.state is LeaseState.RELEASED:
            return
        provider = None if lease.quote is None else self._holder_of(lease.quote)
        if provider is not None and lease.quote is not None:
            reference = self._reference(provider, lease, lease.quote)
            if reference is not None:
                provider.release(reference)
        self._locking.release(lease)

    def _reference(self, provider: SupportsHolds, lease: Lease, quote: Quote) -> str | None:
        """The provider's id of the hold. Where a crash swallowed its answer, the same key finds the same hold."""
        if lease.hold_document is None:
            try:
                lease = self._locking.note_hold(lease, provider.hold(_one_unit(quote), key=_key_at_provider(lease)))
            except ProviderError:
                return None
        return _hold_in(lease).provider_reference

    def _held(self, plan: Plan) -> Iterator[HeldNode]:
        for planned, _ in _purchases(plan):
            lease = self._locking.leases.get(planned.token)
            if lease is None or lease.state not in (LeaseState.HELD, LeaseState.CONFIRMED):
                raise NotFound(f"nothing is held for node {planned.node.id}", next_step="plan again")
            yield HeldNode(node=planned.node.id, hold=_hold_in(lease), fencing=lease.fencing)

    def _holder_of(self, quote: Quote) -> SupportsHolds | None:
        provider = self._providers.get(quote.offer.provider)
        return provider if isinstance(provider, SupportsHolds) else None


def _purchases(plan: Plan) -> Iterator[tuple[PlannedNode, Quote]]:
    for cell in plan.cells:
        for planned in cell.nodes:
            if planned.quote is not None:
                yield planned, planned.quote


def _key_at_provider(lease: Lease) -> str:
    """The same for every attempt at one grant, and another for every grant: a node's token comes again when the plan
    is made anew, and must not find the hold that was given back."""
    quote = "" if lease.quote is None else lease.quote.id
    digest = hashlib.sha256(f"{lease.key}|{quote}|{lease.fencing}".encode()).hexdigest()
    return f"{lease.holder}-{digest[:32]}"


def _one_unit(quote: Quote) -> Quote:
    """A node is one unit; a quote for several is held unit by unit, so that each can be given back alone."""
    return quote.model_copy(update={"quantity": 1})


def _hold_in(lease: Lease) -> Hold:
    if lease.hold_document is not None:
        return Hold.model_validate_json(lease.hold_document)
    assert lease.quote is not None
    return Hold(id=HoldId(lease.key), key=lease.key, quote=_one_unit(lease.quote), expires_at=lease.expires_at)

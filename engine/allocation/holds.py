"""The holds of a whole plan, in two phases: hold everything, then confirm or give back everything.

The phase of the plan is written before its first confirmation. A restart therefore knows what to do with what it finds:
before that line everything is given back, after it everything is confirmed. Our own leases are confirmed before any
provider is paid, so that nothing that is paid for can lapse on our side. Those at providers that know no holds are so
at once: previews may take longer than a quote stands, and nobody but this plan wants units of its quotes.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from enum import StrEnum

from engine.allocation.lease import Lease, LeaseState
from engine.allocation.locking import ResourceLocking
from engine.errors import (
    PROVIDER_GONE,
    PROVIDER_PROBLEMS,
    ConcurrentUpdate,
    InsufficientCapacity,
    NotFound,
    PriceMismatch,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
    ShardwrightError,
)
from engine.model.ids import HoldId, NodeId, OfferId, PlanId
from engine.model.market import Hold, Quote
from engine.model.plan import Plan, PlannedNode
from engine.model.value import Value
from providers.base import Provider, SupportsHolds


class HoldPhase(StrEnum):
    HOLDING = "holding"
    CONFIRMING = "confirming"
    CONFIRMED = "confirmed"
    RELEASING = "releasing"
    """Not everything could be given back yet."""
    RELEASED = "released"


_UNSURE = (ProviderUnavailable, ProviderAnswerInvalid)
"""After any other refusal it is certain that the provider holds nothing."""
_LOST = (NotFound, PriceMismatch)
"""No later attempt can pay for a hold that was refused so."""
_ENDED = (HoldPhase.CONFIRMED, HoldPhase.RELEASED)


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
    """Empty when anything was refused: then everything was given back, or is by ``recover``."""
    refused: tuple[Refusal, ...] = ()
    gone: tuple[str, ...] = ()
    """Providers that do not answer or do not let us in: plan again without anything of theirs."""


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
        held: list[HeldNode] = []
        refused: list[Refusal] = []
        gone: dict[str, str] = {}
        for planned, quote in _purchases(plan):
            answer = self._hold(plan.id, planned, quote, gone)
            if isinstance(answer, HeldNode):
                held.append(answer)
            else:
                refused.append(answer)
        if not refused:
            return HoldsReport(plan=plan.id, held=tuple(held))
        kept = self._give_back(plan.id)
        return HoldsReport(plan=plan.id, refused=tuple(refused), gone=tuple(sorted({*gone, *kept})))

    def confirm_all(self, plan: Plan) -> HoldsReport:
        """Pay for everything that is held. Idempotent. Raises NotFound when a hold lapsed, PriceMismatch when one is
        charged at another price (everything is given back then), ConcurrentUpdate when the plan's holds were given back
        before.
        """
        if self._locking.leases.phase(plan.id) in (HoldPhase.RELEASING, HoldPhase.RELEASED):
            raise ConcurrentUpdate(f"the holds of {plan.id} were given back", next_step="plan again")
        self._locking.set_phase(plan.id, HoldPhase.CONFIRMING)
        self._confirm_group(plan.id)
        return HoldsReport(plan=plan.id, held=tuple(self._held(plan)))

    def release_all(self, plan: PlanId) -> None:
        """Give back whatever the plan holds, confirmed or not. Idempotent. Raises the first problem, after everything
        was tried; ``recover`` tries the rest again.
        """
        problems = list(self._give_back(plan).values())
        if problems:
            raise problems[0]

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

        ``in_progress``: plans of rounds that resume by themselves; those are left alone. Every other one is tried, then
        the first problem is raised.
        """
        confirmed, released = [], []
        problems: list[ShardwrightError] = []
        for group in self._left_in(in_progress, HoldPhase.CONFIRMING):
            try:
                self._confirm_group(group)
                confirmed.append(group)
            except _LOST as lost:
                released.append(group)
                problems += [lost] if isinstance(lost, PriceMismatch) else []
            except ShardwrightError as problem:
                problems.append(problem)
        for group in self._left_in(in_progress, HoldPhase.HOLDING, HoldPhase.RELEASING):
            kept = self._give_back(group)
            problems += kept.values()
            released += [] if kept or group in released else [group]
        self._locking.expire()
        if problems:
            raise problems[0]
        return RecoveryReport(confirmed=tuple(confirmed), released=tuple(released))

    def _left_in(self, in_progress: Collection[PlanId], *phases: HoldPhase) -> list[PlanId]:
        groups = (PlanId(group) for group in self._locking.leases.groups_in(*phases))
        return [group for group in groups if group not in in_progress]

    def _hold(self, plan: PlanId, planned: PlannedNode, quote: Quote, gone: dict[str, str]) -> HeldNode | Refusal:
        """A provider that turns out to be gone is entered in ``gone``, with what it said, and not asked again."""
        provider = quote.offer.provider
        refusal = Refusal(node=planned.node.id, offer=quote.offer.id, provider=provider, reason=gone.get(provider, ""))
        if provider in gone:
            return refusal
        try:
            lease = self._locking.reserve_quote(quote, 1, key=planned.token, group=plan, holder=planned.node.id)
        except ProviderError as limit:
            return refusal.model_copy(update={"reason": str(limit)})
        try:
            return self._hold_at_provider(planned, quote, lease)
        except PROVIDER_PROBLEMS as error:
            if isinstance(error, PROVIDER_GONE):
                gone[provider] = str(error)
            if not isinstance(error, _UNSURE):
                self._locking.release(lease)
            denied = isinstance(error, InsufficientCapacity)
            return refusal.model_copy(update={"reason": str(error), "denied": denied})

    def _give_back(self, plan: PlanId) -> dict[str, ShardwrightError]:
        """By provider, what it could not be given back for; a provider that is gone is asked once."""
        self._locking.set_phase(plan, HoldPhase.RELEASING)
        problems: dict[str, ShardwrightError] = {}
        for lease in self._locking.leases.of_group(plan):
            provider = "" if lease.quote is None else lease.quote.offer.provider
            if not isinstance(problems.get(provider), PROVIDER_GONE):
                try:
                    self._release_one(lease)
                except ShardwrightError as problem:
                    problems[provider] = problem
        if not problems:
            self._locking.set_phase(plan, HoldPhase.RELEASED)
        return problems

    def forget(self, *, before: datetime, most: int) -> int:
        """Drop what was held earlier and has been given back, or has lapsed; how many. What is paid for stays."""
        return self._locking.forget(before=before, ended=_ENDED, most=most)

    def _hold_at_provider(self, planned: PlannedNode, quote: Quote, lease: Lease) -> HeldNode:
        provider = self._holder_of(quote)
        if provider is None:
            lease = self._locking.confirm(lease)
        elif lease.hold_document is None:
            lease = self._locking.note_hold(lease, provider.hold(_one_unit(quote), key=_key_at_provider(lease)))
        return HeldNode(node=planned.node.id, hold=_hold_in(lease), fencing=lease.fencing)

    def _confirm_group(self, group: PlanId) -> None:
        """All or nothing: where one has lapsed, or is charged at another price, everything is given back before that is
        raised.
        """
        wanted = [one for one in self._locking.leases.of_group(group) if one.state is not LeaseState.RELEASED]
        try:
            for lease in [self._locking.confirm(lease) for lease in wanted]:
                provider = None if lease.quote is None else self._holder_of(lease.quote)
                if provider is not None:
                    provider.confirm(_hold_in(lease))
        except _LOST:
            self._give_back(group)
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
            except PROVIDER_PROBLEMS:
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

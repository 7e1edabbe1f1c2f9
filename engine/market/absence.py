"""Providers that could not be asked: what a round can still do, and what it must say. Pure."""

from collections.abc import Sequence

from engine.errors import AuthenticationFailed, NoOfferFits, ProviderUnavailable, ShardwrightError
from engine.market.discovery import MarketView, ProviderFailure
from engine.model.capacity import CapacityTarget

_SIGN_IN = AuthenticationFailed.__name__


def require_a_market(view: MarketView, asked: int) -> None:
    """Raises ProviderUnavailable (AuthenticationFailed where that is all it is) when all who were asked failed."""
    if len(view.failures) < asked:
        return
    kind = AuthenticationFailed if all(one.kind == _SIGN_IN for one in view.failures) else ProviderUnavailable
    raise kind(
        "no provider tells what it sells",
        why="; ".join(_said(one) for one in view.failures),
        next_step="shardwright offers, which asks again and changes nothing",
    )


def with_missing_providers(
    error: NoOfferFits, targets: Sequence[CapacityTarget], failures: Sequence[ProviderFailure]
) -> ShardwrightError:
    """The planner knows only of offers: where a provider is missing, say so beside what it found.

    A pool that may live only at providers that failed is their failure, not the market's.
    """
    if not failures:
        return error
    missing = {one.provider for one in failures}
    short = [target.pool for target in targets if f"pool {target.pool.id}:" in error.what]
    tied = [pool for pool in short if _only_at(pool.placement.providers, missing)]
    reasons = "; ".join(_said(one) for one in failures)
    if not tied:
        return NoOfferFits(error.what, why=f"{error.why}; not asked: {reasons}", next_step=error.next_step)
    pool, mine = tied[0], [one for one in failures if one.provider in tied[0].placement.providers]
    kind = AuthenticationFailed if all(one.kind == _SIGN_IN for one in mine) else ProviderUnavailable
    where = " or ".join(pool.placement.providers)
    return kind(
        f"{error.what}: it may live only at {where}, which could not be asked",
        why="; ".join(_said(one) for one in mine),
        next_step=f"run the round again once {where} answers, or let pool {pool.id} live elsewhere (pools.providers)",
    )


def _only_at(providers: Sequence[str], missing: set[str]) -> bool:
    return bool(providers) and set(providers) <= missing


def _said(failure: ProviderFailure) -> str:
    return failure.reason if failure.reason.startswith(failure.provider) else f"{failure.provider}: {failure.reason}"

"""How often a place takes units back: what is published, corrected by what became of nodes of our own. Pure.

The rate of a correlation group shrinks to the published one, and a place's own to its group's: what was seen little of
counts as what is known in general does.
"""

from math import exp, log

from engine.market.scoring import HOURS_PER_MONTH, lost_in_a_month
from engine.model.market import Offer, OwnHistory, Reliability

BAND_HOURS = 6 * HOURS_PER_MONTH
"""Node-hours for which the published share counts in a group's own rate, and the group's in a place's."""
_MOST_LOST = 0.999


def shrunk_rate(lost: float, exposure: float, prior_rate: float, prior_exposure: float) -> float:
    """Losses per unit of exposure: as seen, where much was seen; else nearly the prior's, which counts as having been
    seen over ``prior_exposure``.
    """
    return (lost + prior_rate * prior_exposure) / (exposure + prior_exposure)


def corrected(offer: Offer, group: OwnHistory, own: OwnHistory) -> Reliability:
    """``group`` is what was seen of everything that is lost together with it, ``own`` the place's part of that.

    Correcting what was corrected before starts from what is published.
    """
    base = published(offer)
    in_general = shrunk_rate(
        group.reclaims, group.node_hours, hourly_rate(lost_in_a_month(_with(offer, base))), BAND_HOURS
    )
    rate = shrunk_rate(own.reclaims, own.node_hours, in_general, BAND_HOURS)
    return Reliability(
        interruption_per_month=monthly_share(rate),
        correlation_group=offer.reliability.correlation_group,
        published_per_month=base.interruption_per_month,
        own=own,
    )


def published(offer: Offer) -> Reliability:
    """As its provider tells it."""
    told = offer.reliability
    if told.own is None:
        return told
    return Reliability(interruption_per_month=told.published_per_month, correlation_group=told.correlation_group)


def hourly_rate(share: float) -> float:
    """Of a share lost within a month; that of nearly all is the most there is."""
    return -log(1 - min(share, _MOST_LOST)) / HOURS_PER_MONTH


def monthly_share(rate: float) -> float:
    return 1 - exp(-rate * HOURS_PER_MONTH)


def _with(offer: Offer, reliability: Reliability) -> Offer:
    return offer.model_copy(update={"reliability": reliability})

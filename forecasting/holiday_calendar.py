"""Public holidays of a country or one of its parts, as a covariate that is known for the past and the future."""

from datetime import datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from engine.errors import UsageError
from forecasting.base import Array


def holiday_shares(region: str, zone: str, start: datetime, freq: timedelta, steps: int) -> Array:
    """Shape (steps,): the share of each step that lies on a public holiday of the region, by its own midnights.

    ``region``: ISO 3166 code of a country or a part of it (``DE``, ``DE-BY``, ``US-CA``); ``zone``: an IANA time zone,
    which says when its days begin. Source: the ``holidays`` package. Raises UsageError for either that is not known.
    """
    midnights = _zone(zone)
    end = start + steps * freq
    first, last = start.astimezone(midnights).date(), end.astimezone(midnights).date()
    found = _dates(region, first.year, last.year)
    shares = np.zeros(steps)
    edges = np.arange(steps, dtype=np.float64)
    day = first
    while day <= last:
        if day in found:
            begins = datetime(day.year, day.month, day.day, tzinfo=midnights)
            following = day + timedelta(days=1)
            ends = datetime(following.year, following.month, following.day, tzinfo=midnights)
            # Differences of aware times in one zone ignore its daylight saving; start is UTC, so these do not.
            begin, stop = (begins - start) / freq, (ends - start) / freq
            shares += np.clip(np.minimum(stop, edges + 1) - np.maximum(begin, edges), 0.0, 1.0)
        day += timedelta(days=1)
    return np.minimum(shares, 1.0)


def _dates(region: str, first_year: int, last_year: int) -> frozenset[object]:
    import holidays

    country, _, part = region.partition("-")
    known = holidays.list_supported_countries()
    if country not in known:
        raise _unknown("country", country, list(known), "DE, US or GB")
    if part and part not in known[country]:
        raise _unknown(f"part of {country}", part, list(known[country]), f"{country} alone")
    years = range(first_year, last_year + 1)
    return frozenset(holidays.country_holidays(country, subdiv=part or None, years=years))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as problem:
        raise UsageError(
            f"there is no time zone {name!r}", why=str(problem), next_step="give one such as Europe/Berlin"
        ) from problem


def _unknown(what: str, given: str, known: list[str], such_as: str) -> UsageError:
    close = get_close_matches(given.upper(), known, 1, 0.5)
    return UsageError(
        f"no holidays are known of the {what} {given!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        why=f"{len(known)} are known",
        next_step=f"give an ISO 3166 code such as {such_as}",
    )

"""Public holidays of a country or one of its parts: events that are known for the past and the future."""

import csv
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.errors import UsageError
from engine.model.value import Utc, Value

KIND = "holiday"
"""What an events file calls all of them: one a year of each is too few to learn from."""
MOST_YEARS = 100


class Holiday(Value):
    """``start`` <= t < ``end``: a whole day by the midnights of its own time zone, so 23 to 25 hours."""

    name: str
    start: Utc
    end: Utc


def holidays_of(region: str, zone: str, first: date, last: date) -> tuple[Holiday, ...]:
    """Those from ``first`` to ``last``, both included, in the order of time.

    ``region``: ISO 3166 code of a country or a part of it (``DE``, ``DE-BY``, ``US-CA``); ``zone``: an IANA time zone.
    Source: the ``holidays`` package. Raises UsageError for either that is not known, and for a span that ends before it
    begins or is longer than a century.
    """
    if not timedelta(0) <= last - first <= timedelta(days=366 * MOST_YEARS):
        raise UsageError(
            f"there is no calendar from {first} to {last}",
            why=f"it ends before it begins, or spans more than {MOST_YEARS} years",
            next_step="give the days in order, such as --start 2026-01-01 --end 2027-12-31",
        )
    midnights = _zone(zone)
    found = _names(region, first.year, last.year)
    return tuple(
        Holiday(name=name, start=_midnight(day, midnights), end=_midnight(day + timedelta(days=1), midnights))
        for day, name in sorted(found.items())
        if first <= day <= last
    )


def write_events(path: Path, found: tuple[Holiday, ...]) -> None:
    """An events file: ``kind, start, end, name``. Raises UsageError where it cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("kind", "start", "end", "name"))
            writer.writerows((KIND, _written(one.start), _written(one.end), one.name) for one in found)
    except OSError as problem:
        raise UsageError(
            f"{path} cannot be written", why=problem.strerror or str(problem), next_step="give another --output-file"
        ) from problem


def _names(region: str, first_year: int, last_year: int) -> dict[date, str]:
    import holidays

    country, _, part = region.partition("-")
    known = holidays.list_supported_countries()
    if country not in known:
        raise _unknown("country", country, list(known), "DE, US or GB")
    if part and part not in known[country]:
        raise _unknown(f"part of {country}", part, list(known[country]), f"{country} alone")
    years = range(first_year, last_year + 1)
    return dict(holidays.country_holidays(country, subdiv=part or None, years=years, language="en_US"))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


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

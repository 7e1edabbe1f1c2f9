"""Numbers on the command line."""

from math import isfinite

import typer


def finite(value: float | None) -> float | None:
    """``inf`` and ``nan`` can be written as numbers, and no limit that an option has refuses ``nan``."""
    if value is not None and not isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value

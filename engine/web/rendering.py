"""How facts become text on a page: money, moments, shares, sizes."""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from engine.model.money import Money

_TEMPLATES = Path(__file__).parent / "templates"
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def render(page: str, **facts: Any) -> str:
    """``templates/<page>.html``; a fact that the template names and that is missing is an error."""
    return _environment().get_template(f"{page}.html").render(**facts)


def money(amount: Money, places: int = 4) -> Markup:
    """``12.3400 USD``; the unit is set apart."""
    shown = round(amount.amount, places) + 0
    return Markup('{} <span class="unit">{}</span>').format(f"{shown:,.{places}f}", amount.currency)


def invoiced(amount: Money) -> Markup:
    """To the currency's minor unit, as an invoice shows it."""
    minor = amount.to_minor_units()
    return money(minor, max(0, -int(minor.amount.as_tuple().exponent)))


def when(moment: datetime) -> Markup:
    """UTC for the eye, ISO 8601 for programs; a small script adds the reader's local time as a title."""
    return Markup('<time datetime="{}"><span>{}</span> <span>{}</span></time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d"), moment.strftime("%H:%M:%S UTC")
    )


def path(name: object) -> Markup:
    """A name with slashes, which may be broken after any of them."""
    return Markup("/<wbr>").join(str(name).split("/")).replace(Markup("/<wbr>/<wbr>"), Markup("//"))


def percent(share: float, places: int = 1) -> str:
    return f"{share * 100:.{places}f} %"


def size(count: int) -> str:
    """Bytes in the largest binary unit that leaves at least 1."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{count} B"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (money, invoiced, when, path, percent, size, milliseconds)
    environment.filters.update({show.__name__: show for show in filters})
    return environment

"""Reading an issuer's rows: text to exact values, with errors that name the row and the column."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TypeVar

from pydantic import ValidationError

from engine.errors import ProviderAnswerInvalid
from engine.model.billing import BillDelivery
from engine.model.value import Interval

_GZIP = b"\x1f\x8b"
_Default = TypeVar("_Default", bound=Decimal | None)


class Row:
    """One row of a delivery by column name; ``number`` counts from 1 for a reader."""

    def __init__(self, delivery: BillDelivery, number: int, cells: Mapping[str, str]) -> None:
        self.delivery, self.number, self._cells = delivery, number, cells

    @property
    def charge_id(self) -> str:
        invoice = self.delivery.invoice
        return f"{invoice.issuer}/{invoice.invoice_id}/{self.number}"

    def text(self, *columns: str) -> str:
        """The first of the columns that is not empty, or ""."""
        return next((self._cells[column] for column in columns if self._cells.get(column)), "")

    def required(self, *columns: str) -> str:
        found = self.text(*columns)
        if not found:
            raise self.bad(columns[0], "empty")
        return found

    def number_or(self, default: _Default, *columns: str) -> Decimal | _Default:
        text = self.text(*columns)
        if not text:
            return default
        try:
            value = Decimal(text.replace(",", ""))
        except InvalidOperation:
            raise self.bad(columns[0], f"{text!r} is not a number") from None
        if not value.is_finite():
            raise self.bad(columns[0], f"{text!r} is not a finite number")
        return value

    def decimal(self, *columns: str) -> Decimal:
        value = self.number_or(None, *columns)
        if value is None:
            raise self.bad(columns[0], "empty")
        return value

    def moment(self, *columns: str) -> datetime:
        """ISO 8601 or m/d/Y; without a zone it is UTC, as the issuers' exports say."""
        text = self.required(*columns)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            try:
                moment = datetime.strptime(text, "%m/%d/%Y").replace(tzinfo=UTC)
            except ValueError:
                raise self.bad(columns[0], f"{text!r} is not a time") from None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def interval(self, start: tuple[str, ...], end: tuple[str, ...]) -> Interval:
        return Interval(start=self.moment(*start), end=self.moment(*end))

    def day(self, *columns: str) -> Interval:
        start = self.moment(*columns)
        return Interval(start=start, end=start + timedelta(days=1))

    def items(self) -> Iterator[tuple[str, str]]:
        yield from self._cells.items()

    @property
    def name(self) -> str:
        return f"{bill_name(self.delivery)}, row {self.number}"

    def bad(self, column: str, why: str) -> ProviderAnswerInvalid:
        return ProviderAnswerInvalid(f"{self.name}, {column}: {why}")


def bill_name(delivery: BillDelivery) -> str:
    return f"{delivery.provider} bill {delivery.invoice.invoice_id}"


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Whoever wrote the row: one that makes no charge is an invalid answer, and nothing else of ours breaks off."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ProviderAnswerInvalid(f"{name} cannot be read", why=f"{where}: {first['msg']}") from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ProviderAnswerInvalid(f"{name} cannot be read", why=str(error)) from error


def text_of(delivery: BillDelivery) -> str:
    """The delivery's content as text, unpacked where it is gzip. Raises ProviderAnswerInvalid."""
    content = delivery.content
    try:
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ProviderAnswerInvalid(f"{bill_name(delivery)} cannot be read", why=str(error)) from error


def csv_rows(delivery: BillDelivery, *required: str) -> Iterator[Row]:
    """Rows of a CSV delivery, plain or gzip; ``required`` columns must be in its header."""
    reader = csv.DictReader(io.StringIO(text_of(delivery)))
    name = bill_name(delivery)
    try:
        missing = [column for column in required if column not in (reader.fieldnames or ())]
        if missing:
            raise ProviderAnswerInvalid(f"{name} lacks the columns {', '.join(missing)}", why="not its stated format")
        for number, cells in enumerate(reader, start=1):
            yield Row(delivery, number, {key: value or "" for key, value in cells.items() if isinstance(key, str)})
    except csv.Error as error:
        raise ProviderAnswerInvalid(f"{name}, line {reader.line_num + 1} is no CSV", why=str(error)) from error

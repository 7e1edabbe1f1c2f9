"""Reading a network's answers: as values of the wire, as ``engine.errors``, or as an invalid answer and why."""

import json
from typing import Any, NamedTuple, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    NotFound,
    PriceMismatch,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
    QuoteExpired,
)
from providers.network import wire

_Parsed = TypeVar("_Parsed", bound=BaseModel)


class OfferFault(NamedTuple):
    """An offer that could not be read, and why; the others on the list are unharmed."""

    offer_id: str
    reason: str


class OfferPage(NamedTuple):
    offers: tuple[wire.WireOffer, ...]
    faults: tuple[OfferFault, ...]


def read(answer: httpx.Response, model: type[_Parsed]) -> _Parsed:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as problem:
        raise invalid(answer, problem) from None


def read_offers(answer: httpx.Response) -> OfferPage:
    """Offer by offer, so that a bad one does not spoil the list."""
    try:
        items: Any = json.loads(answer.content)["offers"]
        if not isinstance(items, list):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise ProviderAnswerInvalid(f"{answer.request.url.path}: not a list of offers", why=kind_of(answer)) from None
    offers: list[wire.WireOffer] = []
    faults: list[OfferFault] = []
    for position, item in enumerate(items):
        try:
            offers.append(wire.WireOffer.model_validate(item))
        except ValidationError as problem:
            faults.append(OfferFault(_offer_name(item, position), first_fault(problem)))
    return OfferPage(tuple(offers), tuple(faults))


def _offer_name(item: object, position: int) -> str:
    name = item.get("offer_id") if isinstance(item, dict) else None
    return name[:200] if isinstance(name, str) and name else f"#{position}"


def first_fault(problem: ValidationError) -> str:
    """Where and what, without the value: an answer may hold anything."""
    first = problem.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the answer"
    return f"{where}: {first['msg'].removeprefix('Value error, ').lower()}"


def kind_of(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.headers.get('content-type', 'no content type')}"


def invalid(answer: httpx.Response, problem: ValidationError) -> ProviderAnswerInvalid:
    return ProviderAnswerInvalid(
        f"{answer.request.method} {answer.request.url.path}: not what the Open Capacity API promises",
        why=f"{first_fault(problem)} ({kind_of(answer)})",
    )


def problem(answer: httpx.Response) -> wire.Problem | None:
    try:
        return wire.Problem.model_validate_json(answer.content)
    except ValidationError:
        return None


def detail(answer: httpx.Response) -> str:
    told = problem(answer)
    return told.detail or told.title if told else kind_of(answer)


_BY_CODE: dict[wire.ProblemCode, type[ProviderError]] = {
    wire.ProblemCode.INSUFFICIENT_CAPACITY: InsufficientCapacity,
    wire.ProblemCode.QUOTE_EXPIRED: QuoteExpired,
    wire.ProblemCode.HOLD_LAPSED: NotFound,
    wire.ProblemCode.PRICE_ABOVE_LIMIT: PriceMismatch,
    wire.ProblemCode.BID_TOO_LOW: PriceMismatch,
    wire.ProblemCode.NOT_FOUND: NotFound,
    wire.ProblemCode.UNAVAILABLE: ProviderUnavailable,
}


def error_of(where: str, answer: httpx.Response) -> Exception:
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return AuthenticationFailed(
            f"{where}: the network refuses the token",
            why=detail(answer),
            next_step="check credentials.token of this provider in shardwright.toml",
        )
    told = problem(answer)
    if told is not None:
        kind = _BY_CODE.get(told.code, ProviderError)
        return kind(f"{where}: {told.title}", why=told.detail)
    return ProviderAnswerInvalid(f"{where}: refused without a problem document", why=kind_of(answer))

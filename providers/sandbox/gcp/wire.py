"""Google's JSON forms that every service of the sandbox shares: errors, paging, list filters, times."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import JSONResponse

Document = dict[str, Any]
"""A JSON object as it goes over the wire; it never leaves the server's edge."""

_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_REASONS = {401: "authError", 404: "notFound", 409: "alreadyExists", 429: "rateLimitExceeded", 503: "backendError"}


Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """A request body: camelCase names, what is not checked is kept as it came."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", strict=True)


class GoogleError(Exception):
    def __init__(self, code: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason or _REASONS.get(code, "invalid")


def checked(kind: type[Model], document: Document) -> Model:
    """The body as its model; raises GoogleError 400 naming the first bad field."""
    try:
        return kind.model_validate(document)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise GoogleError(400, f"Invalid value for field 'resource.{field}': {first['msg']}") from None


def error_response(code: int, message: str, reason: str = "") -> JSONResponse:
    reason = reason or _REASONS.get(code, "invalid")
    body = {
        "error": {
            "code": code,
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
            "status": _STATUS_NAMES.get(code, "UNKNOWN"),
        }
    }
    headers = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'} if code == 401 else None
    return JSONResponse(body, status_code=code, headers=headers)


def not_found(path: str) -> GoogleError:
    return GoogleError(404, f"The resource '{path}' was not found")


def timestamp(moment: datetime) -> str:
    """RFC 3339 with milliseconds, as Compute Engine writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def page(request: Request, documents: Sequence[Document]) -> tuple[Sequence[Document], str]:
    """(the asked-for page after the filter, the next page's token or "")."""
    documents = [found for found in documents if matches(found, request.query_params.get("filter", ""))]
    try:
        size = int(request.query_params.get("maxResults") or request.query_params.get("pageSize") or 500)
        first = int(request.query_params.get("pageToken") or 0)
    except ValueError:
        raise GoogleError(400, "Invalid value for field 'pageToken' or 'maxResults'") from None
    if not 0 < size <= 5000 or first < 0:
        raise GoogleError(400, "Invalid value for field 'maxResults'")
    following = first + size
    return documents[first:following], str(following) if following < len(documents) else ""


_TERM = re.compile(r"\(?\s*(?P<field>[\w.\-]+)\s*(?P<op>=|!=|:|\beq\b|\bne\b)\s*(?P<value>\"[^\"]*\"|[^\s()]+)\s*\)?")


def matches(document: Mapping[str, Any], expression: str) -> bool:
    """A list filter: terms ``field=value``, ``!=``, ``:value``, ``:*``, joined by AND or by brackets."""
    rest = expression.strip()
    while rest:
        term = _TERM.match(rest)
        if term is None:
            raise GoogleError(400, f"Invalid value for field 'filter': '{expression}'. Invalid list filter expression.")
        if not _holds(_field(document, term["field"]), term["op"], term["value"].strip('"')):
            return False
        rest = re.sub(r"^\s*AND\b\s*", "", rest[term.end() :]).strip()
    return True


def _field(document: Mapping[str, Any], path: str) -> str | None:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else str(value)


def _holds(value: str | None, operator: str, wanted: str) -> bool:
    if operator == ":":
        return value is not None and (wanted == "*" or wanted in value)
    return (value == wanted) == (operator in ("=", "eq"))

"""ARM's JSON forms that every part of the sandbox's Azure shares: errors, resource ids, bodies."""

from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse

Document = dict[str, Any]
"""A JSON object as it goes over the wire; it never leaves the server's edge."""

Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """A request body: camelCase names, what is not checked is kept as it came."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow", strict=True)


class Reference(Body):
    """A resource named by its id."""

    id: str


class ArmError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def error_response(status: int, message: str, code: str = "") -> JSONResponse:
    names = {429: "TooManyRequests", 503: "ServiceUnavailable", 401: "InvalidAuthenticationToken"}
    body = {"error": {"code": code or names.get(status, "BadRequest"), "message": message}}
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'} if status == 401 else None
    return JSONResponse(body, status_code=status, headers=headers)


def resource_not_found(kind: str, group: str, name: str) -> ArmError:
    message = f"The Resource '{kind}/{name}' under resource group '{group}' was not found."
    return ArmError(404, "ResourceNotFound", message)


def checked(kind: type[Model], document: object) -> Model:
    """The body as its model; raises ArmError 400 naming the first bad field."""
    try:
        return kind.model_validate(document)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ArmError(400, "InvalidParameter", f"Parameter '{field}' is not valid: {first['msg']}") from None


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def id_key(resource_id: str) -> str:
    """Resource ids are the same whatever their case."""
    return resource_id.strip("/").lower()


def last_part(resource_id: str) -> str:
    return resource_id.rpartition("/")[2]

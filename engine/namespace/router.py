"""The resolver over HTTP: ``GET /v1/resolve?name=shard://…``."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from engine.errors import UnknownName, UsageError
from engine.model.value import Value
from engine.namespace.resolver import Location, Resolver


class Resolved(Value):
    schema_version: int = 1
    name: str
    locations: tuple[Location, ...]


def resolve_router(resolver: Resolver) -> APIRouter:
    """404 for a name that nothing is bound to, 400 for one that is malformed; the detail has what, why, next_step."""
    router = APIRouter(prefix="/v1", tags=["namespace"])

    @router.get("/resolve")
    def resolve(name: Annotated[str, Query(max_length=400)]) -> Resolved:
        try:
            return Resolved(name=name, locations=resolver.resolve(name))
        except UsageError as error:
            status = 404 if isinstance(error, UnknownName) else 400
            detail = {"what": error.what, "why": error.why, "next_step": error.next_step}
            raise HTTPException(status, detail) from error

    return router

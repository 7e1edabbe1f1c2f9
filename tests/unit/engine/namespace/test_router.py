import asyncio

import httpx
from fastapi import FastAPI

from engine.namespace.resolver import Resolver
from engine.namespace.router import resolve_router


def get(resolver: Resolver, **params: str) -> httpx.Response:
    app = FastAPI()
    app.include_router(resolve_router(resolver))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as client:
            return await client.get("/v1/resolve", params=params)

    return asyncio.run(ask())


def test_resolve_answers_where_each_replica_is(resolver: Resolver) -> None:
    answer = get(resolver, name="shard://acme/shop/web")
    assert answer.status_code == 200
    body = answer.json()
    assert body["schema_version"] == 1
    assert [(one["shard"], one["provider"], one["epoch"]) for one in body["locations"]] == [
        ("s1", "aws", 1),
        ("s2", "gcp", 1),
    ]


def test_errors_say_what_and_why(resolver: Resolver) -> None:
    unknown = get(resolver, name="shard://acme/shop/db")
    assert unknown.status_code == 404
    assert "shard://acme/shop/db" in unknown.json()["detail"]["what"]
    malformed = get(resolver, name="acme")
    assert malformed.status_code == 400
    assert malformed.json()["detail"]["why"] == "it does not start with shard://"
    assert get(resolver).status_code == 422

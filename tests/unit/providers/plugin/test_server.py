"""The table plugin, called as the engine calls it, but without a wire."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from pulumi.provider.experimental import provider as protocol
from pulumi.provider.experimental.property_value import PropertyValue

from providers.plugin import server
from providers.plugin.kinds import Made, ResourceKind
from providers.plugin.server import TablePlugin
from providers.plugin.values import UNKNOWN, Properties, plain_map, wrap_map

URN = "urn:pulumi:s::p::t:index:Thing::a-thing"
T = TypeVar("T")


class Shelf(dict[str, dict[str, Any]]):
    """The provider: things by id."""


class ThingKind(ResourceKind[Shelf]):
    named, computed, replace_on = "name", ("weight",), frozenset({"size"})

    def check(self, inputs: dict[str, Any]) -> dict[str, str]:
        return {"size": "must not be huge"} if inputs.get("size") == "huge" else {}

    def create(self, session: Shelf, name: str, inputs: Properties) -> Made:
        session[inputs["name"]] = dict(inputs)
        return Made(inputs["name"], {"weight": 3})

    def read(self, session: Shelf, resource_id: str, inputs: Properties) -> Made | None:
        return Made(resource_id, {"weight": 3}) if resource_id in session else None

    def observed(self, inputs: Properties, outputs: Properties) -> dict[str, Any]:
        return {**inputs, "colour": "as found"}

    def update(self, session: Shelf, resource_id: str, old: Properties, new: Properties) -> Properties:
        session[resource_id] = dict(new)
        return {}

    def delete(self, session: Shelf, resource_id: str, properties: Properties) -> None:
        session.pop(resource_id, None)


@pytest.fixture
def shelves() -> dict[str, Shelf]:
    return {}


@pytest.fixture
def plugin(shelves: dict[str, Shelf]) -> TablePlugin[Shelf]:
    def connect(configuration: Properties) -> Shelf:
        return shelves.setdefault(configuration["shelf"], Shelf())

    return TablePlugin(connect, {"t:index:Thing": ThingKind()}, {"t:index:count": lambda shelf, _: {"n": len(shelf)}})


def call(peer: str, awaited: Awaitable[T], old_inputs: Properties | None = None) -> T:
    async def within() -> T:
        server._peer.set(peer)
        server._old_inputs.set(dict(old_inputs or {}))
        return await awaited

    return asyncio.run(within())


def configure(plugin: TablePlugin[Shelf], peer: str, shelf: str) -> None:
    request = protocol.ConfigureRequest({}, wrap_map({"shelf": shelf}), accept_secrets=True, accept_resources=True)
    call(peer, plugin.configure(request))


def create(plugin: TablePlugin[Shelf], peer: str, *, preview: bool = False, **inputs: Any) -> protocol.CreateResponse:
    return call(peer, plugin.create(protocol.CreateRequest(URN, wrap_map(inputs), 0, preview)))


def test_each_connection_has_a_configuration_of_its_own(plugin: TablePlugin[Shelf], shelves: dict[str, Shelf]) -> None:
    configure(plugin, "one", "left")
    configure(plugin, "two", "right")
    create(plugin, "one", name="x")
    assert (list(shelves["left"]), list(shelves["right"])) == (["x"], [])
    counted = call("two", plugin.invoke(protocol.InvokeRequest("t:index:count", {})))
    assert plain_map(counted.return_value or {}) == {"n": 0.0}


def test_a_preview_creates_nothing_and_says_what_is_not_known(
    plugin: TablePlugin[Shelf], shelves: dict[str, Shelf]
) -> None:
    configure(plugin, "one", "left")
    answer = create(plugin, "one", preview=True, name="x")
    assert shelves["left"] == {}
    assert plain_map(answer.properties) == {"name": "x", "weight": UNKNOWN}


def test_secrets_come_back_as_secrets(plugin: TablePlugin[Shelf], shelves: dict[str, Shelf]) -> None:
    configure(plugin, "one", "left")
    secret = {"name": PropertyValue("x"), "key": PropertyValue("k", is_secret=True)}
    answer = call("one", plugin.create(protocol.CreateRequest(URN, secret, 0, preview=False)))
    assert answer.properties["key"].is_secret
    assert shelves["left"]["x"]["key"] == "k"
    read = call("one", plugin.read(protocol.ReadRequest(URN, "x", answer.properties, secret)))
    assert read.inputs["key"].is_secret
    assert plain_map(read.inputs)["colour"] == "as found"


def test_what_is_gone_reads_as_no_id(plugin: TablePlugin[Shelf]) -> None:
    configure(plugin, "one", "left")
    assert call("one", plugin.read(protocol.ReadRequest(URN, "x", {}, {}))).resource_id == ""


def test_a_name_is_made_once_and_kept(plugin: TablePlugin[Shelf]) -> None:
    first = call("one", plugin.check(protocol.CheckRequest(URN, {}, {}, b"seed")))
    assert first.inputs is not None
    name = plain_map(first.inputs)["name"]
    assert name.startswith("a-thing-")
    again = call("one", plugin.check(protocol.CheckRequest(URN, first.inputs, {}, b"another")))
    assert again.inputs is not None
    assert plain_map(again.inputs)["name"] == name


def test_check_names_the_property(plugin: TablePlugin[Shelf]) -> None:
    answer = call("one", plugin.check(protocol.CheckRequest(URN, {}, wrap_map({"size": "huge"}), b"")))
    assert [(failure.property, failure.reason) for failure in answer.failures or []] == [("size", "must not be huge")]


def diff(plugin: TablePlugin[Shelf], old: Properties, new: Properties) -> protocol.DiffResponse:
    request = protocol.DiffRequest(URN, "x", wrap_map({**old, "weight": 3}), wrap_map(new), [])
    return call("one", plugin.diff(request), old_inputs=old)


def test_only_a_change_of_inputs_is_a_change(plugin: TablePlugin[Shelf]) -> None:
    assert diff(plugin, {"name": "x", "size": "s"}, {"name": "x", "size": "s"}).changes is False
    coloured = diff(plugin, {"name": "x"}, {"name": "x", "colour": "red"})
    assert (coloured.changes, coloured.diffs, coloured.replaces) == (True, ["colour"], [])
    removed = diff(plugin, {"name": "x", "colour": "red"}, {"name": "x"})
    assert removed.diffs == ["colour"]
    assert diff(plugin, {"name": "x", "size": "s"}, {"name": "x", "size": "m"}).replaces == ["size"]


def test_update_keeps_what_was_computed(plugin: TablePlugin[Shelf], shelves: dict[str, Shelf]) -> None:
    configure(plugin, "one", "left")
    olds = create(plugin, "one", name="x").properties
    request = protocol.UpdateRequest(URN, "x", olds, wrap_map({"name": "x", "colour": "red"}), 0, [], preview=False)
    answer = call("one", plugin.update(request))
    assert plain_map(answer.properties) == {"name": "x", "colour": "red", "weight": 3.0}
    call("one", plugin.delete(protocol.DeleteRequest(URN, "x", answer.properties, 0)))
    assert shelves["left"] == {}


def test_unknown_types_are_refused_by_name(plugin: TablePlugin[Shelf]) -> None:
    with pytest.raises(NotImplementedError, match="t:index:Other"):
        call("one", plugin.check(protocol.CheckRequest(URN.replace("Thing", "Other"), {}, {}, b"")))

"""From a name to where it is now. The address stays through every move; node, provider and epoch follow the shard."""

from collections.abc import Callable, Mapping, Sequence

from engine.composition.membership import Standing
from engine.errors import UnknownName
from engine.model.ids import CellId, NodeId, ShardId
from engine.model.placement import Binding, ComponentName, Epoch, Node, Shard, ShardState
from engine.model.value import Value
from engine.namespace.names import NameQuery, parse_query
from engine.store.shard_map import ShardMap


class Location(Value):
    """Where one shard of a component is at this moment."""

    name: ComponentName
    shard: ShardId
    shard_type: str
    state: ShardState
    address: str
    """Overlay address (IPv4)."""
    node: NodeId
    cell: CellId
    provider: str
    region: str
    zone: str
    epoch: Epoch


Members = Callable[[Sequence[Binding]], Mapping[ComponentName, Standing]]
"""Who of the replicas serves now."""


class Resolver:
    """Reads the shard map; keeps nothing, so an answer is as fresh as the store."""

    def __init__(self, shard_map: ShardMap, members: Members | None = None) -> None:
        """``members``: without, every replica counts."""
        self._map, self._members = shard_map, members

    def resolve(self, name: str) -> tuple[Location, ...]:
        """``shard://…``: one location with a number; without, every replica that serves. UsageError, UnknownName."""
        return self.locate(parse_query(name))

    def locate(self, query: NameQuery) -> tuple[Location, ...]:
        """A number names its replica, well or not. Raises UnknownName when nothing is bound to the name, or nobody
        serves under it."""
        bindings = self._map.bindings(namespace=query.namespace)
        names = sorted((one.component for one in bindings if query.matches(one.component)), key=lambda name: name.index)
        if not names:
            raise UnknownName(f"{query} is not bound to a shard", why="the shard map has no binding of that name")
        if query.index is None and self._members is not None:
            standings = self._members(bindings)
            names = [name for name in names if name not in standings or standings[name].serves]
            if not names:
                raise UnknownName(f"nobody serves {query} any more", why="its last replicas are being drained")
        return self._locations(names)

    def _locations(self, names: Sequence[ComponentName]) -> tuple[Location, ...]:
        """A name that is given up between two reads takes no other with it. Raises UnknownName when none is left."""
        found = []
        for name in names:
            try:
                found.append(self._location(name))
            except UnknownName:
                if not found and name == names[-1]:
                    raise
        return tuple(found)

    def _location(self, name: ComponentName) -> Location:
        shard = self._map.resolve(name)
        return _located(name, shard, self._map.node(shard.node))


def _located(name: ComponentName, shard: Shard, node: Node) -> Location:
    provider, _, region = node.cell.split("/", 2)
    return Location(
        name=name,
        shard=shard.id,
        shard_type=shard.shard_type,
        state=shard.state,
        address=shard.address,
        node=node.id,
        cell=node.cell,
        provider=provider,
        region=region,
        zone=node.zone,
        epoch=shard.epoch,
    )

"""Shards joined with where they are and what is bound to them."""

from engine.api.view import shard_views
from engine.model.placement import Binding, ComponentName
from tests.sample_view import NOW, SampleView


def test_a_shard_comes_with_its_node_and_its_component() -> None:
    rows = SampleView().shards()
    name = ComponentName(namespace="a", workload="b", component="c")
    shards = [row.shard for row in rows]
    nodes = [row.node for row in rows]
    views = shard_views(shards, nodes, [Binding(component=name, shard=shards[1].id, bound_at=NOW)])
    assert [view.node.id for view in views] == [shard.node for shard in shards]
    assert [view.component for view in views] == [None, name, None, None, None]


def test_a_shard_of_an_unknown_node_is_left_out() -> None:
    rows = SampleView().shards()
    assert shard_views([row.shard for row in rows], [rows[0].node], []) == (
        rows[0].model_copy(update={"component": None, "standing": None}),
    )

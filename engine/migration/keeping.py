"""A node asks for a shard of its own that a move has left paused. The store decides, once, against the commit."""

from agent.wire import KeepRequest, Verdict
from engine.errors import StaleEpoch, UnknownName
from engine.migration.base import ShardOwnership
from engine.model.ids import NodeId, ShardId


def keep(shards: ShardOwnership, node: NodeId, shard_id: ShardId, request: KeepRequest) -> Verdict:
    """End the move by raising the epoch while the shard is still the node's: the move's own swap fails from then on.

    The same question again finds its own answer. A shard that is nobody's any more is not the node's.
    """
    try:
        shard = shards.get(shard_id)
        if (shard.node, shard.epoch) == (node, request.epoch):
            try:
                shard = shards.move(shard_id, expected_epoch=request.epoch, to_node=node, move_id=request.move)
            except StaleEpoch:
                shard = shards.get(shard_id)
    except UnknownName:
        return Verdict(yours=False, epoch=request.epoch)
    return Verdict(yours=shard.node == node, epoch=shard.epoch)

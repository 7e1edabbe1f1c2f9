"""Shardwright's own policy."""

from tests.contract.policy_contract import PolicyContract


class TestShardwright(PolicyContract):
    name = "shardwright"

"""Runs on a node: carves shards as QEMU guests, limits, measures and moves them, and watches for reclaim notices."""

__version__ = "0.1.0"

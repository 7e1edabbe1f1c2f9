"""Shardwright's control plane."""

"""Policies that the lab plays beside ours, one file each: whose rule it is, and how it became a player here."""

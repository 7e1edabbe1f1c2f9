"""The lab: replays demand, prices and spot availability through policies, and counts what each would have cost."""

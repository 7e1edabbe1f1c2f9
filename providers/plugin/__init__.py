"""Serving Pulumi resources from Python: the mechanics that every provider plugin of this repository shares."""

"""Forecasters that any user would ask about first; no torch here."""

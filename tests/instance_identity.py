"""One sandbox cloud's signing keys for all tests of a process: making them takes a moment."""

import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import SecretStr

from engine.clock import ManualClock
from providers.base import ProviderSettings
from providers.sandbox.signers import InstanceSigners

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ACCOUNT = "acct"


@cache
def signers() -> InstanceSigners:
    """Their certificates were made at NOW."""
    return another_cloud()


def another_cloud() -> InstanceSigners:
    """Keys that nobody trusts."""
    return InstanceSigners(Path(tempfile.mkdtemp(prefix="swt-")), ManualClock(NOW))


def settings(kind: str, keys: str | None = None) -> ProviderSettings:
    """Of a provider whose nodes join by their identity; ``keys``: a file instead of the signers' own."""
    return ProviderSettings(
        name=kind, kind=kind, account=ACCOUNT, regions=("r1",), endpoint="http://127.0.0.1:1",
        credentials={"token": SecretStr("t")}, attestation_keys=keys or str(signers().keys_of(kind)),
    )  # fmt: skip

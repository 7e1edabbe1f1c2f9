"""What a provider says, signed, about one of its instances; and how a challenge is bound to it."""

import hashlib

from engine.model.value import Value

LARGEST_EVIDENCE = 32 * 1024
"""Letters of a signed document; real ones have two to six thousand."""


class AttestedInstance(Value):
    """What a checked document says. ``region`` is None where the provider's document tells none."""

    instance_id: str
    account: str
    region: str | None = None


def audience(challenge: str) -> str:
    """The challenge as the audience of an identity token."""
    return f"shardwright-join-{challenge}"


def ten_digits(challenge: str) -> str:
    """The challenge for documents that take ten decimal digits at most: enough for one that lives for minutes."""
    return f"{int.from_bytes(hashlib.sha256(challenge.encode()).digest()) % 10**10:010d}"

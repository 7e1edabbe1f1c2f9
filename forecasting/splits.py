"""Which series no network is trained on."""

from hashlib import sha256

HELD_OUT_SHARE = 0.25


def held_out(series_id: str, share: float = HELD_OUT_SHARE) -> bool:
    """By a hash of the name up to the first colon from the right, so that all metrics of a series stay together."""
    digest = sha256(series_id.rsplit(":", 1)[0].encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share

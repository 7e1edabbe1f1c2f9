"""Whether there is room to go on: refused before a write, nothing is lost; a file cut off in one is."""

import shutil
from pathlib import Path

from engine.errors import ShardwrightError

LEAST_MIB = 32
"""What a round may write to the state: stacks, plans, records, a model."""


def require_space(folder: Path, *, least_mib: int = LEAST_MIB) -> None:
    """``folder`` must exist. Raises ShardwrightError when less than ``least_mib`` MiB are free there."""
    free = shutil.disk_usage(folder).free / 2**20
    if free < least_mib:
        raise ShardwrightError(
            f"the disk of {folder} is full",
            why=f"{free:.1f} MiB are free, and {least_mib} MiB are needed to go on; nothing was begun",
            next_step="free some space and run the same command again",
        )

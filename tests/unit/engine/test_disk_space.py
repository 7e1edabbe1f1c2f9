from pathlib import Path

import pytest

from engine.disk_space import require_space
from engine.errors import ExitCode, ShardwrightError


def test_with_room_nothing_happens(tmp_path: Path) -> None:
    require_space(tmp_path, least_mib=0)


def test_without_room_the_folder_and_both_amounts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardwrightError) as caught:
        require_space(tmp_path, least_mib=10**9)
    assert str(tmp_path) in caught.value.what
    assert "1000000000 MiB are needed" in caught.value.why
    assert caught.value.next_step
    assert caught.value.exit_code == ExitCode.ERROR

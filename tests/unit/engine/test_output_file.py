from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.output_file import drafted, require_folder


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with drafted(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), drafted(path) as draft:
        draft.write_text("half \udcff", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_and_a_path_without_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written") as refused:
        require_folder(tmp_path)
    assert refused.value.why == "it is a folder"
    with pytest.raises(UsageError, match="cannot be written"), drafted(tmp_path / "none" / "out.json"):
        pass

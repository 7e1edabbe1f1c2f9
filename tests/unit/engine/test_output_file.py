import os
import stat
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.output_file import drafted, drafted_together, require_folder


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


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "out.json"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with drafted(pipe) as draft:
        draft.write_text("new")
    assert os.read(reading, 100) == b"new"
    os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with drafted(Path(os.devnull)) as draft:
        assert draft == Path(os.devnull)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    real, link, new = tmp_path / "kept" / "out.json", tmp_path / "out.json", tmp_path / "new.json"
    real.write_text("old")
    link.symlink_to(real)
    new.symlink_to(tmp_path / "kept" / "new.json")
    for path in (link, new):
        with drafted(path) as draft:
            draft.write_text("new")
        assert path.is_symlink()
        assert path.read_text() == "new"
    assert sorted(one.name for one in real.parent.iterdir()) == ["new.json", "out.json"]
    (tmp_path / "lost.json").symlink_to(tmp_path / "none" / "out.json")
    with pytest.raises(UsageError, match="cannot be written"), drafted(tmp_path / "lost.json"):
        pass


def test_files_that_belong_together_are_replaced_together(tmp_path: Path) -> None:
    folder = tmp_path / "bills"
    with drafted_together(folder) as drafts:
        for name in ("a", "b"):
            (drafts / name).write_text("old")
    with pytest.raises(UnicodeEncodeError), drafted_together(folder) as drafts:
        assert [(drafts / name).write_text(text, encoding="utf-8") for name, text in (("a", "new"), ("b", "\udcff"))]
    assert {one.name: one.read_text() for one in folder.iterdir()} == {"a": "old", "b": "old"}

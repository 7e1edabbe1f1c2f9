"""A guest's record on disk."""

from pathlib import Path

from agent.guest import GuestRecord
from agent.node_guest import Guest
from tests.move_simulator.node import RECORD


def on_disk(folder: Path) -> GuestRecord:
    return GuestRecord.model_validate_json((folder / "shard.json").read_text())


def made(folder: Path) -> Guest:
    here = Guest(folder, RECORD)
    here.save()
    return here


def test_a_staged_change_counts_once_it_is_put_in_place(tmp_path: Path) -> None:
    here = made(tmp_path)
    put = here.staged(incoming=True)
    assert (here.record, on_disk(tmp_path)) == (RECORD, RECORD)
    put()
    assert here.record.incoming
    assert on_disk(tmp_path) == here.record


def test_what_was_saved_meanwhile_is_not_lost(tmp_path: Path) -> None:
    here = made(tmp_path)
    put = here.staged(incoming=True)
    here.save(booting=True)
    put()
    found = on_disk(tmp_path)
    assert (found.incoming, found.booting) == (True, True)

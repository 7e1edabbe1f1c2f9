"""One control plane per state, and none for ever."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.errors import StateInUse
from engine.store.database import Database
from engine.store.state_lock import hold_state, state_is_held


def test_a_second_control_plane_is_refused(database: Database) -> None:
    other = Database(database.url)
    with hold_state(database), pytest.raises(StateInUse, match="held by process"), hold_state(other):
        pytest.fail("two at once")
    with hold_state(other):
        pass
    other.dispose()


def test_whether_somebody_holds_it_can_be_asked_without_holding_it(store: Database) -> None:
    assert not state_is_held(store)
    other = Database(store.url)
    with hold_state(other):
        assert state_is_held(store)
    assert not state_is_held(store)
    other.dispose()


def test_an_in_memory_state_needs_no_lock() -> None:
    with hold_state(Database("sqlite://")):
        pass


def test_the_lock_goes_with_its_process(database: Database) -> None:
    """kill -9 leaves nothing to clean up."""
    program = textwrap.dedent(f"""
        import sys, time
        from engine.store.database import Database
        from engine.store.state_lock import hold_state
        with hold_state(Database({database.url!r})):
            print("held", flush=True)
            sys.stdin.read()
    """)
    root = Path(__file__).parents[4]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateInUse, match=f"process {holder.pid}"), hold_state(database):
            pytest.fail("two at once")
        holder.kill()
        holder.wait()
    with hold_state(database):
        pass

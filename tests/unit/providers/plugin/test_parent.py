"""A process whose parent is killed notices, and ends."""

import signal
import subprocess
import sys

CHILD = """
import os, time
from providers.plugin.parent import when_parent_ends
when_parent_ends(lambda: os.write(1, b"orphaned\\n") and os._exit(0))
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {CHILD!r}]); time.sleep(60)"


def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) != parent.pid
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert parent.stdout.read() == "orphaned\n", "it ends by itself, and its end of the pipe is closed"

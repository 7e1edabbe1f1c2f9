"""Ctrl-C at any moment of the demo leaves nothing behind.

SHARDWRIGHT_INTERRUPTS says at how many moments (default 3, ``make faults`` takes ten over the whole length).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.errors import ExitCode, UsageError
from providers.sandbox.info import SandboxInfo
from providers.sandbox.processes import MARKER
from providers.sandbox.teardown import leftovers

ROOT = Path(__file__).resolve().parents[2]
COUNT = int(os.environ.get("SHARDWRIGHT_INTERRUPTS", "3"))
LONGEST = float(os.environ.get("SHARDWRIGHT_INTERRUPTS_WITHIN", "75"))
SEED = 20261123

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def moments() -> list[float]:
    """Spread over the run, one in each part, so that early and late stages are hit."""
    rng = random.Random(SEED)
    return [round((part + rng.random()) * LONGEST / COUNT, 1) for part in range(COUNT)]


def heirs(folder: Path) -> Iterator[str]:
    """Processes that inherited the demo's temporary folder, however far down."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.environ().get("TMPDIR") == str(folder):
                yield " ".join(process.info["cmdline"] or ())[:200]
        except psutil.Error:
            continue


def tag_in(folder: Path) -> str | None:
    """The running sandbox's tag, once it has one."""
    for path in folder.glob("shardwright-demo-*/sandbox/sandbox.json"):
        try:
            return SandboxInfo.load(path).tag
        except UsageError:
            return None
    return None


@pytest.mark.parametrize("moment", moments())
def test_an_interrupt_leaves_nothing(moment: float, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != MARKER} | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", "from engine.cli import main; main()", "demo", "--state", str(tmp_path / "s")]
    demo = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline, tag = time.monotonic() + moment, None
    while time.monotonic() < deadline and demo.poll() is None:
        tag = tag or tag_in(tmp_path)
        time.sleep(0.1)
    if demo.poll() is None:
        demo.send_signal(signal.SIGINT)
    _, said = demo.communicate(timeout=120)
    assert demo.returncode in (ExitCode.CANCELLED, ExitCode.OK), said[-2000:]
    if tag is not None:
        assert [str(thing) for thing in leftovers(tag)] == []
    assert list(heirs(tmp_path)) == []
    assert [path.name for path in tmp_path.iterdir() if path.name != "s"] == []

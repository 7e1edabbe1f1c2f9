"""What moves and shards must never do, as rows of the same table: simulator, faults, rogue nodes, limits."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import shard_limits
from benchmarks.bars import Bar, percentile, tell
from tests.faults.campaign import campaign
from tests.move_simulator.world import LawBroken, simulate

_ROOT = Path(__file__).resolve().parent.parent
_ROGUE_TESTS = ("tests/e2e/test_rogue_nodes.py", "tests/unit/engine/fleet/test_admission.py")
_ROGUE_SECONDS = 600
SEEDS_BAR, SECONDS_BAR, RUNS_BAR = 2000, 120.0, 100


def simulator(seeds: int) -> Bar:
    broken: list[str] = []
    began = time.perf_counter()
    for seed in range(seeds):
        try:
            simulate(seed)
        except LawBroken as problem:
            broken.append(f"seed {seed}: {problem}")
    seconds = time.perf_counter() - began
    return Bar(
        what="seeded simulator of controller, agents, store and network",
        bar=f">= {SEEDS_BAR:,} seeds under {SECONDS_BAR / 60:.0f} min: no law broken",
        measured=f"{seeds:,} seeds in {seconds:.0f} s, {len(broken)} laws broken",
        reached=not broken and seconds < SECONDS_BAR if seeds >= SEEDS_BAR else None,
        figures={"broken": broken},
    )


def faults(seed: int, runs: int) -> Bar:
    outcomes, wrong = campaign(seed, runs, 0, tell)
    gaps = [one.gap for one in outcomes if one.survived]
    return Bar(
        what="real-QEMU fault campaign: 9 faults in each of 6 states",
        bar=f">= {RUNS_BAR} runs: 0 acknowledged writes lost, never two running copies",
        measured=f"{runs} runs of seed {seed}, {len(wrong)} broke a promise; the guest's memory lived in {len(gaps)}, "
        f"with a longest gap of {percentile(gaps, 0.5):.1f} s (median) to {max(gaps):.1f} s"
        if gaps
        else f"{runs} runs, {len(wrong)} broke a promise",
        reached=not wrong if runs >= RUNS_BAR else None,
        figures={"wrong": wrong, "outcomes": [one.model_dump(mode="json") for one in outcomes]},
    )


def rogue() -> Bar:
    """Every one of these tests is an attack that must be refused."""
    command = [sys.executable, "-m", "pytest", "-q", *_ROGUE_TESTS]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_ROGUE_SECONDS, check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    return Bar(
        what="rogue node: plaintext, wrong name, expired certificate, stale epoch, replayed attestation",
        bar="all refused, source keeps running",
        measured=", ".join(f"{number} {word}" for word, number in counts.items()) + f" of {' and '.join(_ROGUE_TESTS)}",
        reached=done.returncode == 0 and not counts.get("skipped"),
    )


def limits(seconds: int) -> list[Bar]:
    """And the idle agent, as benchmarks.shard_limits measures both."""
    said: list[dict[str, Any]] = []

    def say(**what: Any) -> None:
        said.append(what)
        tell(str(what))

    shard_limits.run(seconds, 30.0, say)
    kept = [one for one in said if "within_5_percent" in one]
    memory = next(one for one in said if "kept" in one)
    idle = {one["what"]: one for one in said if "reached" in one}
    return [
        Bar(
            what="throttles: CPU, IOPS, bandwidth, measured by the guest; memory limit",
            bar="within 5 %; enforced",
            measured="; ".join(f"{one['what']} {one['setting']:g}: {one['measured']}" for one in kept)
            + f"; memory {memory['setting']} MiB: {memory['by_the_guest']}",
            reached=all(one["within_5_percent"] for one in kept) and memory["kept"],
            figures={"said": said},
        ),
        Bar(
            what="idle agent",
            bar="< 1 % of a core, < 80 MB",
            measured="; ".join(f"{name} {one['measured']}" for name, one in idle.items()),
            reached=all(one["reached"] for one in idle.values()),
        ),
    ]

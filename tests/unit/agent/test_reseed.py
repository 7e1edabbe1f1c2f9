import os
import subprocess
from pathlib import Path

import pytest

from agent.reseed import SEED_BYTES, program


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    path = tmp_path / "reseed"
    path.write_bytes(program())
    path.chmod(0o755)
    return path


@pytest.mark.root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program is for x86-64")
def test_a_kernel_takes_the_seed(installed: Path) -> None:
    done = subprocess.run([installed], input=os.urandom(SEED_BYTES), timeout=10, check=False)
    if done.returncode != 0:
        pytest.skip("this process may not give its kernel randomness")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program is for x86-64")
@pytest.mark.parametrize("seed", [b"", b"x" * (SEED_BYTES - 1)])
def test_too_little_is_a_failure(installed: Path, seed: bytes) -> None:
    assert subprocess.run([installed], input=seed, timeout=10, check=False).returncode == 1

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.key_exchange import parameters


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command, to read them independently")
def test_another_library_reads_the_group_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "dh.pem").write_bytes(parameters())
    command = ["openssl", "pkeyparam", "-in", str(tmp_path / "dh.pem"), "-check", "-text", "-noout"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "ffdhe2048" in told.stdout
    assert "Parameters are valid" in told.stdout

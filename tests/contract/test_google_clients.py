"""The official Google clients against the sandbox, in a process of their own.

Both they and Pulumi's plugin protocol register google.rpc.Status with protobuf, from different files, and one process
can hold only one of them.
"""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("official_google_clients.py")


def test_the_official_google_clients_are_served() -> None:
    only = f"python_files={CASES.name}"  # whatever matches is rewritten as it is imported
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", only, str(CASES)]
    result = subprocess.run(command, cwd=CASES.parents[2], capture_output=True, text=True, check=False, timeout=170)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
    assert " passed" in result.stdout

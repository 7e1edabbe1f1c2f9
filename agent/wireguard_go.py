"""Where wireguard-go is, and how to get it: on PATH, in the cache, or built from its Go module.

``python -m agent.wireguard_go --check`` says what was found (exit 0) or what is missing (exit 1); ``--install`` builds
it. It is needed only where the kernel has no WireGuard of its own.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.errors import MissingPart, ShardwrightError

PROGRAM = "wireguard-go"
_BUILD_FOLDER = Path(__file__).resolve().parent.parent / "tools" / "wireguard"
_PACKAGE = "golang.zx2c4.com/wireguard"
_BUILD_SECONDS = 600


def find_wireguard_go() -> Path | None:
    """On PATH, else the one that was built from the present go.mod."""
    on_path = shutil.which(PROGRAM)
    if on_path:
        return Path(on_path)
    cached = _cached()
    return cached if cached is not None and os.access(cached, os.X_OK) else None


def kernel_has_wireguard() -> bool:
    """Loaded, built in, or there to be loaded when the first tunnel is made."""
    if Path("/sys/module/wireguard").exists():
        return True
    modprobe = shutil.which("modprobe") or shutil.which("modprobe", path="/usr/sbin:/sbin")
    if modprobe is None:
        return False
    command = [modprobe, "--dry-run", "--quiet", "wireguard"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def install() -> Path:
    """Idempotent. Raises MissingPart."""
    found, target = find_wireguard_go(), _cached()
    if found is not None:
        return found
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None or target is None:
        why = "Go is not installed" if go is None else f"{_BUILD_FOLDER} is not there (it is part of the checkout)"
        raise MissingPart(
            "wireguard-go cannot be built", why=why, next_step="install wireguard-go, or Go and make setup"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as folder:
        draft = Path(folder) / PROGRAM
        command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(draft), _PACKAGE]
        try:
            done = subprocess.run(
                command, cwd=_BUILD_FOLDER, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as problem:
            raise MissingPart("wireguard-go cannot be built", why=f"not within {_BUILD_SECONDS} s") from problem
        if done.returncode != 0:
            why = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise MissingPart(
                "wireguard-go cannot be built", why=why, next_step="check that Go reaches its module proxy"
            )
        draft.rename(target)
    return target


def _cached() -> Path | None:
    """None where there is nothing that it could be built from."""
    try:
        sums = (_BUILD_FOLDER / "go.sum").read_bytes()
    except OSError:
        return None
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "shardwright" / "wireguard" / hashlib.sha256(sums).hexdigest()[:12] / PROGRAM


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.wireguard_go", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit 0 when it is there")
    action.add_argument("--install", action="store_true", help="build it where it is not there")
    try:
        found = install() if parser.parse_args().install else find_wireguard_go()
    except ShardwrightError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{PROGRAM}: {found or 'not installed'}")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())

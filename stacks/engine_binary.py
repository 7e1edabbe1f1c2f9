"""Where the Pulumi engine is, and how to get it: on PATH, in the cache, by Pulumi's own installer, or built with Go.

``python -m stacks.engine_binary --check`` says what was found (exit 0) or what is missing (exit 1); ``--install`` gets
what is missing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from importlib import metadata
from pathlib import Path

from engine.errors import MissingPart, ShardwrightError
from engine.model.value import Value
from stacks.launchers import missing_launchers, put_launchers

_BUILD_FOLDER = Path(__file__).resolve().parent.parent / "tools" / "pulumi"
_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
_OLDEST = (3, 200, 0)
_PROBE_SECONDS = 20
_BUILD_SECONDS = 1800
Progress = Callable[[str], None]
"""Told one line for each step that may take longer than a moment."""


class EngineBinary(Value):
    """``root``: the folder that holds bin/pulumi."""

    root: str
    version: str
    origin: str
    """PATH or cache."""

    @property
    def path(self) -> Path:
        return Path(self.root) / "bin" / "pulumi"


def wanted_version() -> str:
    """The engine that the installed SDK was released with."""
    return metadata.version("pulumi")


def cache_root(version: str | None = None) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "shardwright" / "pulumi" / (version or wanted_version())


def find_engine() -> EngineBinary | None:
    """The newest that works: on PATH when it is new enough, else in the cache."""
    on_path = shutil.which("pulumi")
    if on_path and Path(on_path).parent.name == "bin":
        version = _version_of(Path(on_path))
        if version is not None and _numbers(version) >= _OLDEST:
            return EngineBinary(root=str(Path(on_path).parent.parent), version=version, origin="PATH")
    cached = cache_root() / "bin" / "pulumi"
    version = _version_of(cached) if cached.exists() else None
    return None if version is None else EngineBinary(root=str(cache_root()), version=version, origin="cache")


def require_engine() -> EngineBinary:
    """With this version's launchers beside it, which the engine prefers to those on PATH. Raises MissingPart."""
    found = find_engine()
    if found is None:
        raise MissingPart(
            "the Pulumi engine is not installed",
            why=f"no pulumi >= {'.'.join(map(str, _OLDEST))} on PATH, none in {cache_root()}",
            next_step="make setup",
        )
    if found.origin == "cache":
        put_launchers(Path(found.root) / "bin")
    return found


def install(progress: Progress) -> EngineBinary:
    """Idempotent. Raises MissingPart with what each way of getting the engine answered."""
    if find_engine() is None:
        root = cache_root()
        root.parent.mkdir(parents=True, exist_ok=True)
        with (root.parent / "install.lock").open("w") as lock:
            flock(lock, LOCK_EX)  # two checkouts that are set up at once build it once
            if find_engine() is None:
                _install_into(root, progress)
    return require_engine()


def _install_into(root: Path, progress: Progress) -> None:
    # Everything is made in a folder beside the final one, so that an interrupted attempt leaves nothing half done.
    with tempfile.TemporaryDirectory(prefix=".install-", dir=root.parent) as folder:
        draft = Path(folder) / "engine"
        _obtain(draft, progress)
        if root.exists():
            shutil.rmtree(root)
        draft.rename(root)


def _obtain(draft: Path, progress: Progress) -> None:
    progress(f"downloading Pulumi {wanted_version()} with its own installer")
    downloaded = _download(draft)
    if downloaded is None:
        return
    progress(
        f"the download is out of reach; building Pulumi {wanted_version()} with Go (about 3 minutes, 2.5 GB of caches)"
    )
    built = _build(draft)
    if built is not None:
        raise MissingPart(
            "the Pulumi engine could not be installed",
            why=f"its installer: {downloaded}; go build: {built}",
            next_step="install Pulumi (or Go >= 1.25 to build it) and run make setup again",
        )


def _download(draft: Path) -> str | None:
    """None, or why not."""
    from stacks.driver import download_engine

    try:
        download_engine(draft, wanted_version())
    except Exception as problem:  # its installer raises whatever a shell script and urllib can raise
        return f"{type(problem).__name__}: {problem}"
    return None


def _build(draft: Path) -> str | None:
    """None, or why not."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return "Go is not installed"
    if not (_BUILD_FOLDER / "go.mod").exists():
        return f"{_BUILD_FOLDER} is not there (it is part of the source checkout)"
    (draft / "bin").mkdir(parents=True, exist_ok=True)
    flags = f"-s -w -X {_VERSION_VARIABLE}={wanted_version()}"
    command = [go, "build", "-trimpath", "-ldflags", flags, "-o", str(draft / "bin" / "pulumi"), _PACKAGE]
    try:
        result = subprocess.run(
            command, cwd=_BUILD_FOLDER, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return None if result.returncode == 0 else "\n".join(result.stderr.strip().splitlines()[-8:])


def _version_of(program: Path) -> str | None:
    env = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        result = subprocess.run(
            [str(program), "version"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False, env=env
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = result.stdout.strip().removeprefix("v")
    return version if result.returncode == 0 and re.match(r"\d+\.\d+\.\d+", version) else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stacks.engine_binary", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit 0 when the engine and its launchers are there")
    action.add_argument("--install", action="store_true", help="get what is missing")
    given = parser.parse_args()
    try:
        if given.install:
            found = install(lambda line: print(line, file=sys.stderr, flush=True))
        else:
            found = require_engine()
            missing = missing_launchers(found.path.parent) if found.origin == "cache" else ()
            if missing:
                raise MissingPart(f"{', '.join(missing)}: not beside {found.path}", next_step="make setup")
    except ShardwrightError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"pulumi {found.version} ({found.origin}: {found.path})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

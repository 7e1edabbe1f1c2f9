"""Set up everything: virtual environment, pinned dependencies, Pulumi engine, QEMU, guest kernel, WireGuard.

Runs on the system's own Python with the standard library alone. Idempotent: what is already right is not touched.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMP = VENV / "shardwright-setup"
SYSTEM_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "nft": "nftables",
    "wg": "wireguard-tools",
}
TEST_PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver", "prometheus": "prometheus"}


class SetupFailed(Exception):
    pass


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


class Step:
    """Says what is going on, every few seconds for as long as it goes on."""

    def __init__(self, title: str) -> None:
        self.title, self.done = title, threading.Event()

    def __enter__(self) -> None:
        self.started = time.monotonic()
        say(f"{self.title} …")
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self.done.wait(10):
            say(f"{self.title}: {time.monotonic() - self.started:.0f} s so far")

    def __exit__(self, *_: object) -> None:
        self.done.set()
        say(f"{self.title}: {time.monotonic() - self.started:.1f} s")


def run(command: Sequence[str], *, remedy: str, env: dict[str, str] | None = None) -> None:
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=env)
    if result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise SetupFailed(f"{' '.join(command[:4])} failed:\n{tail}\nRemedy: {remedy}")


def fingerprint(requirements: Path) -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]}{ROOT}".encode())
    for path in (requirements, ROOT / "requirements/bootstrap.txt", ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_environment() -> None:
    requirements = ROOT / "requirements/dev.txt"
    wanted = fingerprint(requirements)
    if STAMP.exists() and STAMP.read_text() == wanted and (BIN / "shardwright").exists():
        return
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < 9:
        raise SetupFailed(f"{free:.1f} GiB of disk are free; the dependencies need 9.\nRemedy: free some space.")
    if not (BIN / "python").exists():
        with Step("virtual environment .venv"):
            venv.create(VENV, with_pip=True)
    reach = "check that this machine reaches a Python package index (pip's own settings are used), then run it again"
    if not (BIN / "uv").exists():
        with Step("installer"):
            pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--require-hashes"]
            run([*pip, "-r", "requirements/bootstrap.txt"], remedy=reach)
    # Compiled once here: the provider SDKs are thousands of modules, and every engine, plugin and agent starts anew.
    env = {**os.environ, "VIRTUAL_ENV": str(VENV), "UV_COMPILE_BYTECODE_TIMEOUT": "900"}
    with Step("pinned, hashed dependencies (about 7 GB on disk, PyTorch is most of it)"):
        sync = ["pip", "sync", "--require-hashes", "--compile-bytecode", str(requirements)]
        run([str(BIN / "uv"), *sync], remedy=reach, env=env)
    with Step("the command .venv/bin/shardwright"):
        editable = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."]
        run([str(BIN / "uv"), *editable], remedy="rm -rf .venv, then make setup", env=env)
    STAMP.write_text(wanted)


def find(program: str) -> bool:
    return any(shutil.which(program, path=path) for path in (None, "/usr/sbin:/sbin:/usr/bin:/bin"))


def install_system_packages(packages: dict[str, str]) -> None:
    missing = sorted({package for program, package in packages.items() if not find(program)})
    if not missing:
        return
    remedy = f"apt-get install {' '.join(missing)}   (as root; or your distribution's equivalents)"
    if not shutil.which("apt-get"):
        say(f"not found: {', '.join(missing)}. `shardwright doctor` says what for. Remedy: {remedy}")
        return
    if os.geteuid() != 0:
        say(f"not found: {', '.join(missing)}, and this is not root. Remedy: sudo {remedy}")
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with Step(f"system packages: {', '.join(missing)}"):
        run(["apt-get", "update", "-qq"], remedy="check the package sources", env=env)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], remedy=remedy, env=env)


def refresh_package_lists() -> None:
    """A fresh machine has none, and the guest kernel is looked up in them."""
    lists = Path("/var/lib/apt/lists")
    if os.geteuid() == 0 and lists.is_dir() and not any(lists.glob("*_Packages*")):
        with Step("package lists"):
            run(["apt-get", "update", "-qq"], remedy="check the package sources")


def build_parts() -> None:
    """The Pulumi engine and the guest image; their own modules know how."""
    for module, title in (("stacks.engine_binary", "Pulumi engine"), ("agent.image", "guest image")):
        command = [str(BIN / "python"), "-m", module]
        if subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True).returncode == 0:
            continue
        refresh_package_lists()
        with Step(title):
            result = subprocess.run([*command, "--install"], cwd=ROOT)
        if result.returncode != 0:
            raise SetupFailed(f"{title}: see the lines above; `.venv/bin/shardwright doctor` tells what is missing.")


def build_wireguard() -> None:
    """In user space, for a kernel without a module of its own. Nodes do without an overlay where it cannot be had."""
    if Path("/sys/module/wireguard").exists():
        return
    command = [str(BIN / "python"), "-m", "agent.wireguard_go"]
    if subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True).returncode == 0:
        return
    with Step("wireguard-go"):
        result = subprocess.run([*command, "--install"], cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        say(f"{result.stderr.strip()} (shards then get no address of their own, and moves cut their clients off)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--with-tests", action="store_true", help="also what only the tests need")
    options = parser.parse_args()
    steps: list[Callable[[], None]] = [make_environment, lambda: install_system_packages(SYSTEM_PACKAGES)]
    if options.with_tests:
        steps.append(lambda: install_system_packages(TEST_PACKAGES))
    steps += [build_parts, build_wireguard]
    started = time.monotonic()
    try:
        for step in steps:
            step()
    except SetupFailed as failure:
        print(f"setup failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    say(f"ready in {time.monotonic() - started:.1f} s (.venv/bin/shardwright doctor lists every part)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

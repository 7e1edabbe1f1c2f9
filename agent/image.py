"""The workload image: a guest kernel and an initramfs that serves numbered records.

The kernel comes from the distribution's cloud kernel package, downloaded and unpacked into a cache folder and never
installed. The initramfs holds a static busybox, the virtio modules and a record server: over one TCP connection it
reads one decimal number a line, appends it as one 512-byte sector of /dev/vda, flushes, and answers with the number.
Where a second disk is attached, the records of every connection that begins from then on go there.
"""

import argparse
import gzip
import hashlib
import io
import lzma
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

from agent import reseed
from agent.guest_scripts import INIT, POSITION, RECORD_SERVER
from engine.errors import MissingPart, ShardwrightError
from engine.model.value import Value

SECTOR_BYTES = 512
MINIMUM_MEMORY_MIB = 96
"""The cloud kernel with this initramfs panics below about 80 MiB."""

_MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_mmio",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
    "virtio_mem",
)
"""In the order in which they must be loaded."""
_KEPT = "modules-kept"
"""In a fetched kernel's folder: what was looked for, so that what is not there is known to be built in."""
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_BUSYBOX_PATHS = ("/bin/busybox", "/usr/bin/busybox")
_DOWNLOAD_SECONDS = 300

Progress = Callable[[str], None]


class GuestImage(Value):
    """Files on this machine's disk ("": none); ``digest`` is the same on machines that have or built the same."""

    name: str
    kernel: str
    initrd: str
    disk: str = ""
    kernel_version: str
    digest: str


def cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "shardwright" / "guest"


def find_kernel(root: Path | None = None) -> Path | None:
    """The newest unpacked guest kernel in the cache (the folder that holds boot/ and lib/), or None."""
    kernels = sorted((root or cache_root()).glob("kernel-*/boot/vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    folders = [kernel.parent.parent for kernel in kernels]
    return next((folder for folder in reversed(folders) if not _was_kept_without_virtio_mem(folder)), None)


def _was_kept_without_virtio_mem(unpacked: Path) -> bool:
    """By an earlier version, which kept fewer modules of the package; it is fetched again."""
    disk, memory = ([*unpacked.glob(f"lib/modules/*/kernel/**/{name}.ko*")] for name in ("virtio_blk", "virtio_mem"))
    return bool(disk) and not memory and not (unpacked / _KEPT).exists()


def require_kernel(root: Path | None = None) -> Path:
    """The same, or MissingPart: nothing is fetched."""
    found = find_kernel(root)
    if found is None:
        raise MissingPart("the guest kernel is not there", why="shards boot it", next_step="make setup")
    return found


def find_busybox() -> Path:
    """A statically linked busybox. Raises MissingPart."""
    for candidate in _BUSYBOX_PATHS:
        path = Path(candidate)
        if path.is_file() and not _is_dynamic(path):
            return path
    raise MissingPart("no static busybox", why="the guest's only program", next_step="apt-get install busybox-static")


def build_image(progress: Progress = lambda _line: None, root: Path | None = None) -> GuestImage:
    """Build whatever is missing and return the image. Idempotent; under a second once cached. Raises MissingPart."""
    folder = root or cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "build.lock"):
        unpacked = find_kernel(folder) or _fetch_kernel(folder, progress)
        return _build_initrd(folder, unpacked, progress)


def read_records(path: Path) -> list[int]:
    """The numbers stored on a raw disk image, in the order of their sectors. Raises ValueError on a torn sector."""
    found: list[int] = []
    with path.open("rb") as disk:
        for index, sector in _used_sectors(disk):
            text = sector.rstrip(b"\0 \n")
            if not text:
                continue
            if not text.isdigit():
                raise ValueError(f"sector {index} of {path.name} does not hold a number")
            found.append(int(text))
    return found


def _used_sectors(disk: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """Skips holes of a sparse file, so that a mostly empty disk is read at once."""
    size = os.fstat(disk.fileno()).st_size
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(disk.fileno(), offset, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(disk.fileno(), offset, os.SEEK_HOLE)
        offset -= offset % SECTOR_BYTES
        disk.seek(offset)
        while offset < end:
            sector = disk.read(SECTOR_BYTES)
            if not sector:
                return
            yield offset // SECTOR_BYTES, sector
            offset += SECTOR_BYTES


# --- kernel ---------------------------------------------------------------------------------------------------------


def kernel_package() -> str:
    """The name of the package that holds the distribution's current cloud kernel for this architecture."""
    machine = platform.machine().lower()
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None or shutil.which("apt-cache") is None:
        raise MissingPart(
            "no guest kernel can be fetched",
            why=f"needs apt and a cloud kernel package for {machine}",
            next_step="put an unpacked kernel package (boot/, lib/) under the cache folder as kernel-NAME",
        )
    meta = f"linux-image-cloud-{architecture}"
    answer = _run(["apt-cache", "depends", meta])
    match = re.search(r"Depends:\s+(linux-image-\S+)", answer)
    if match is None:
        raise MissingPart(f"the package lists do not name {meta}", next_step="apt-get update")
    return match.group(1)


def _fetch_kernel(root: Path, progress: Progress) -> Path:
    package = kernel_package()
    target = root / f"kernel-{package.removeprefix('linux-image-')}"
    with tempfile.TemporaryDirectory(dir=root, prefix="fetch-") as scratch:
        progress(f"downloading {package}")
        _run(["apt-get", "download", package], cwd=scratch)
        packages = sorted(Path(scratch).glob("*.deb"))
        if not packages:
            raise MissingPart(f"{package} could not be downloaded", next_step="apt-get update")
        progress(f"unpacking {package}")
        unpacked = Path(scratch) / "unpacked"
        _run(["dpkg-deb", "-x", str(packages[0]), str(unpacked)])
        # Only what the guest needs is kept: 100 MB of other modules are not.
        kept = Path(scratch) / "kept"
        (kept / "boot").mkdir(parents=True)
        (kept / _KEPT).write_text("\n".join(_MODULES))
        for kernel in (unpacked / "boot").glob("vmlinuz-*"):
            shutil.move(str(kernel), kept / "boot" / kernel.name)
        for name in _MODULES:
            for module in unpacked.glob(f"lib/modules/*/kernel/**/{name}.ko*"):
                place = kept / module.relative_to(unpacked)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(str(module), place)
        shutil.rmtree(target, ignore_errors=True)
        kept.rename(target)
    return target


# --- initramfs ------------------------------------------------------------------------------------------------------


def _build_initrd(root: Path, unpacked: Path, progress: Progress) -> GuestImage:
    kernel = next(iter(sorted((unpacked / "boot").glob("vmlinuz-*"))))
    version = kernel.name.removeprefix("vmlinuz-")
    busybox = find_busybox()
    scripts = (INIT, POSITION, RECORD_SERVER)
    digest = _digest([kernel, busybox], "\n".join((*scripts, reseed.program().hex(), *_MODULES)))
    initrd = root / f"records-{digest[:16]}.cpio.gz"
    if not initrd.exists():
        progress("building the guest's initramfs")
        archive = gzip.compress(_cpio(_entries(busybox, _modules(unpacked))), compresslevel=6, mtime=0)
        scratch = initrd.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(archive)
        scratch.rename(initrd)
    return GuestImage(name="records", kernel=str(kernel), initrd=str(initrd), kernel_version=version, digest=digest)


def _modules(unpacked: Path) -> list[tuple[str, bytes]]:
    """(name, contents) in load order; what the kernel has built in is simply not there."""
    found: list[tuple[str, bytes]] = []
    for name in _MODULES:
        for path in unpacked.glob(f"lib/modules/*/kernel/**/{name}.ko*"):
            data = path.read_bytes()
            found.append((name, lzma.decompress(data) if path.suffix == ".xz" else data))
    return found


def _entries(busybox: Path, modules: list[tuple[str, bytes]]) -> list[tuple[str, int, bytes]]:
    folders = ["bin", "dev", "lib", "proc", "run", "sys"]
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()))
    entries.append(("init", stat.S_IFREG | 0o755, INIT.encode()))
    entries.append(("bin/position", stat.S_IFREG | 0o755, POSITION.encode()))
    entries.append(("bin/reseed", stat.S_IFREG | 0o755, reseed.program()))
    entries.append(("bin/records", stat.S_IFREG | 0o755, RECORD_SERVER.encode()))
    for order, (name, data) in enumerate(modules):
        entries.append((f"lib/{order:02d}-{name}.ko", stat.S_IFREG | 0o644, data))
    return entries


def _cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A "newc" archive with fixed owners and times, so that equal contents give equal bytes."""
    out = bytearray()

    def add(inode: int, name: str, mode: int, data: bytes) -> None:
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out.extend(b"070701" + b"".join(f"{field:08x}".encode() for field in fields) + name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    for inode, (name, mode, data) in enumerate(entries, start=1):
        add(inode, name, mode, data)
    add(0, "TRAILER!!!", 0, b"")
    return bytes(out)


def _digest(files: Iterable[Path], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for path in files:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _is_dynamic(path: Path) -> bool:
    """A program that needs a loader names it near its start."""
    with path.open("rb") as program:
        head = program.read(4096)
    return b"/ld-linux" in head or b"/ld-musl" in head


def _run(command: list[str], cwd: str | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            check=True,
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as problem:
        said = (getattr(problem, "stderr", "") or str(problem)).strip().splitlines()
        raise MissingPart(
            f"{command[0]} failed while fetching the guest kernel",
            why=said[-1] if said else "",
            next_step="apt-get update",
        ) from problem
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.image", description="The guest image of shards.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit 0 when the kernel and a busybox are there")
    action.add_argument("--install", action="store_true", help="get what is missing and build the image")
    given = parser.parse_args(arguments)
    try:
        if given.install:
            image = build_image(lambda line: print(line, file=sys.stderr, flush=True))
            print(f"guest image {image.name}, kernel {image.kernel_version} ({image.initrd})")
        else:
            print(f"guest kernel {require_kernel()}, busybox {find_busybox()}")
    except ShardwrightError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""An image that has nothing in common with the record server's but the kernel: a web server with a disk of its own."""

import gzip
import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from agent.image import _cpio, _modules, cache_root, find_busybox, require_kernel
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage

PORT = 8080
DISK_MARK = b"what the disk began with"
_INIT = b"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /lib/*.ko; do $b insmod $module; done
for word in $($b cat /proc/cmdline); do
  case $word in
    shard.address=*) address=${word#*=} ;;
    greeting=*) echo ${word#*=} > /www/greeting ;;
  esac
done
$b dd if=/dev/vda of=/www/disk bs=24 count=1 2>/dev/null
$b ip addr add $address dev eth0
$b ip link set eth0 up
echo 0 > /www/count
(n=0; while :; do n=$((n+1)); echo $n > /www/next; $b mv /www/next /www/count; $b usleep 20000; done) &
$b httpd -f -p 8080 -h /www
"""


@contextmanager
def offered(**changes: object) -> Iterator[WorkloadImage]:
    """The image, its files in this machine's image folder; gone afterwards."""
    folder, kernel = cache_root(), next((require_kernel() / "boot").glob("vmlinuz-*"))
    modules = [
        (f"lib/{n:02d}-{name}.ko", stat.S_IFREG | 0o644, data)
        for n, (name, data) in enumerate(_modules(require_kernel()))
    ]
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "lib", "proc", "www")]
    entries += [
        ("bin/busybox", stat.S_IFREG | 0o755, find_busybox().read_bytes()),
        ("init", stat.S_IFREG | 0o755, _INIT),
        *modules,
    ]
    contents = {
        "kernel": kernel.read_bytes(),
        "initrd": gzip.compress(_cpio(entries), compresslevel=1),
        "disk": DISK_MARK.ljust(4 << 20, b"\0"),
    }
    files = {name: _put(folder, name, content) for name, content in contents.items()}
    try:
        yield WorkloadImage(
            name="mine", kernel=files["kernel"], initrd=files["initrd"], disk=files["disk"],
            kernel_words="greeting=hello", ready=ReadyCheck(tcp_port=PORT),
        ).model_copy(update=changes)  # fmt: skip
    finally:
        for file in files.values():
            (folder / file.source).unlink(missing_ok=True)
            (folder / "files" / file.sha256).unlink(missing_ok=True)


def _put(folder: Path, name: str, content: bytes) -> ImageFile:
    source = f"test-{uuid4().hex[:8]}-{name}"
    (folder / source).write_bytes(content)
    return ImageFile(source=source, sha256=hashlib.sha256(content).hexdigest())

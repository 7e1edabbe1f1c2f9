"""How long until a shard's workload is up: booted, against restored from a template?

    python -m benchmarks.guest_boots [--guests 10]

Root, QEMU and network namespaces are needed. Prints one line of JSON a figure. Both ways run the same kernel and
initramfs, one guest after the other on one node, in turn, so that other work on the machine slows both.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.guest_scripts import READY_MARK
from agent.image import build_image, cache_root
from engine.model.capacity import Resources
from engine.model.ids import NodeId
from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage
from tests.small_fleet import SmallFleet

NODE = NodeId("nA")
SMALL = Resources(vcpus=1.0, memory_gib=0.125)


def without_template() -> WorkloadImage:
    """The record server's own files as an image that does not speak: it has to boot."""
    built = build_image()
    files = {}
    for name in ("kernel", "initrd"):
        content = Path(getattr(built, name)).read_bytes()
        files[name] = ImageFile(source=f"bench-{name}", sha256=hashlib.sha256(content).hexdigest())
        (cache_root() / files[name].source).write_bytes(content)
    return WorkloadImage(
        name="booted", kernel=files["kernel"], initrd=files["initrd"], ready=ReadyCheck(console=READY_MARK)
    )


def remove(image: WorkloadImage) -> None:
    for file in (image.kernel, image.initrd):
        if file is not None:
            (cache_root() / file.source).unlink(missing_ok=True)
            (cache_root() / "files" / file.sha256).unlink(missing_ok=True)


def run(fleet: SmallFleet, image: WorkloadImage, guests: int) -> None:
    seconds: dict[str, list[float]] = {"booted": [], "restored": []}
    first, _ = fleet.carve("first", NODE, SMALL, disk_mib=16)  # makes the template, where there is none
    fleet.clients(NODE).release(first.id, 1)
    for number in range(guests):
        for how, own in (("booted", image), ("restored", None)):
            began = time.monotonic()
            shard, status = fleet.carve(f"{how}{number}", NODE, SMALL, disk_mib=16, image=own)
            took = status.measured.boot_seconds or 0.0
            seconds[how].append(took)
            if status.measured.from_template != (own is None):
                raise SystemExit(f"{shard.id} was not {how}")
            say(what=how, seconds=took, with_waiting=round(time.monotonic() - began, 2), load=os.getloadavg()[0])
            fleet.clients(NODE).release(shard.id, 1)
    for how, took_each in seconds.items():
        say(what=f"{how}, {guests} guests", p50=statistics.median(took_each), least=min(took_each), most=max(took_each))
    say(what="restored against booted", ratio=round(sum(seconds["restored"]) / sum(seconds["booted"]), 3))


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Boot guests and restore guests.")
    parser.add_argument("--guests", type=int, default=10)
    options = parser.parse_args()
    image = without_template()
    try:
        with tempfile.TemporaryDirectory(prefix="swt-") as folder, SmallFleet(Path(folder), nodes=(NODE,)) as fleet:
            run(fleet, image, options.guests)
    finally:
        remove(image)


if __name__ == "__main__":
    main()

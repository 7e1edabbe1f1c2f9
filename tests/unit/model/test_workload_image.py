from typing import Any

import pytest
from pydantic import ValidationError

from engine.model.workload_image import ImageFile, ReadyCheck, WorkloadImage

A, B = "a" * 64, "b" * 64
KERNEL, DISK = ImageFile(source="vmlinuz", sha256=A), ImageFile(source="https://images.example/d.raw", sha256=B)
UP = ReadyCheck(console="up")


@pytest.mark.parametrize("source", ["vmlinuz-6.1", "https://images.example/vmlinuz", "HTTPS://images.example/vmlinuz"])
def test_a_file_is_in_the_nodes_folder_or_behind_https(source: str) -> None:
    assert ImageFile(source=source, sha256=A).is_fetched == source.lower().startswith("https")


@pytest.mark.parametrize(
    "source",
    ["", "../disk", "/etc/passwd", "a/b", ".hidden", "http://e/x", "file:///x", "https://me:word@e/x"],
)
def test_nowhere_else(source: str) -> None:
    with pytest.raises(ValidationError):
        ImageFile(source=source, sha256=A)


def test_a_digest_is_pinned() -> None:
    with pytest.raises(ValidationError):
        ImageFile(source="x", sha256="a")


@pytest.mark.parametrize("given", [{}, {"console": "up", "tcp_port": 80}, {"tcp_port": 0}, {"console": "a\nb"}])
def test_a_guest_says_in_one_way_that_it_is_up(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReadyCheck(**given)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "records"}, {"kernel": None, "disk": None}, {"kernel": None, "initrd": KERNEL}, {"kernel_words": "a\nb"}],
)
def test_what_cannot_boot_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WorkloadImage(**({"name": "mine", "kernel": KERNEL, "disk": DISK, "ready": UP} | wrong))


def test_the_digest_is_of_what_boots_and_not_of_where_it_comes_from() -> None:
    image = WorkloadImage(name="mine", kernel=KERNEL, ready=UP)
    elsewhere = image.model_copy(update={"kernel": ImageFile(source="https://e/x", sha256=A)})
    others = [{"kernel": ImageFile(source="vmlinuz", sha256=B)}, {"disk": KERNEL}, {"kernel_words": "debug"}]
    assert elsewhere.digest == image.digest
    assert len({image.digest, *(image.model_copy(update=other).digest for other in others)}) == 4

"""A shard's own image: what its guest boots from instead of the record server's, and how one sees that it is up."""

import hashlib
import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from engine.model.value import Value

RECORDS = "records"
"""The image that is built in: a server of numbered records."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _source(text: str) -> str:
    """An https URL without credentials, or the name of a file in the node's image folder."""
    parts = urlsplit(text)
    if parts.scheme == "https" and parts.hostname and parts.username is None and parts.password is None:
        return text
    if not _FILE_NAME.fullmatch(text):
        raise ValueError("must be an https URL without credentials, or a file name in the nodes' image folder")
    return text


def _words(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable")
    return text


class ImageFile(Value):
    """One file of an image. Whatever comes from ``source`` is used only if its digest is this one."""

    source: Annotated[str, Field(max_length=2000), AfterValidator(_source)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def is_fetched(self) -> bool:
        return urlsplit(self.source).scheme == "https"


class ReadyCheck(Value):
    """What tells that the guest is up: text in a line on its serial console, or a TCP port that answers."""

    console: Annotated[str, Field(max_length=200), AfterValidator(_words)] = ""
    tcp_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    seconds: Annotated[float, Field(gt=0, le=200)] = 90.0
    """How long it may take."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.console == "") == (self.tcp_port is None):
            raise ValueError("give console or tcp_port")
        return self


class WorkloadImage(Value):
    """A kernel (with initramfs and root disk, where wanted), or a bootable disk alone. Disks are raw files."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
    kernel: ImageFile | None = None
    initrd: ImageFile | None = None
    disk: ImageFile | None = None
    """What a shard's disk begins as; a shard without is given an empty one."""
    kernel_words: Annotated[str, Field(max_length=1000), AfterValidator(_words)] = ""
    """The kernel's command line, behind what every guest is told (its console and its address)."""
    ready: ReadyCheck
    speaks: bool = False
    """It obeys the words on its console that the record server's image obeys: measures itself, takes an identity."""

    @model_validator(mode="after")
    def _boots(self) -> Self:
        if self.name == RECORDS:
            raise ValueError(f"the name {RECORDS} belongs to the image that is built in")
        if self.kernel is None and self.disk is None:
            raise ValueError("give a kernel, or a disk to boot from")
        if self.kernel is None and (self.initrd is not None or self.kernel_words):
            raise ValueError("initrd and kernel_words belong to a kernel")
        return self

    @property
    def digest(self) -> str:
        """Of what boots: the same wherever the files come from."""
        files = [one.sha256 if one else "-" for one in (self.kernel, self.initrd, self.disk)]
        return hashlib.sha256("\n".join((*files, self.kernel_words)).encode()).hexdigest()

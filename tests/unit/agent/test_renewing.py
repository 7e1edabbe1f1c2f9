"""A node's certificate at a real listener: renewed, joined for anew, and taken up by the agent's own server."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.identity import Identity
from agent.renewing import keep_renewed
from engine.clock import ManualClock, SystemClock
from engine.fleet.certificates import LEAF_LIFE, CertificateAuthority
from engine.model.ids import NodeId
from engine.store.database import Database
from tests.unit.engine.fleet.test_join import Control, join

URL = "https://127.0.0.1:7443"


@pytest.fixture
def control(tmp_path: Path, database: Database) -> Iterator[Control]:
    running = Control(tmp_path, database)
    yield running
    running.listener.stop()


@pytest.fixture
def node(control: Control, tmp_path: Path) -> Identity:
    joined = control.identity(tmp_path / "n1", "n1")
    join(joined)
    return joined


class EnoughError(Exception):
    """Where the test stops waiting."""


def kept_renewed(node: Identity, load: Callable[[], None] = lambda: None, *, checks: int = 1) -> None:
    """Until it has looked ``checks`` times."""
    left = [None] * (checks - 1)

    async def pause(_seconds: float) -> None:
        if not left:
            raise EnoughError
        left.pop()

    with pytest.raises(EnoughError):
        asyncio.run(keep_renewed(node, URL, SystemClock(), load=load, sleep=pause))


def age(node: Identity, folder: Path, by: float) -> str:
    """The node's certificate was issued ``by`` of a certificate's life ago."""
    then = ManualClock(SystemClock().now() - by * LEAF_LIFE)
    authority = CertificateAuthority.load_or_create(folder / "fleet", then)
    pem = authority.sign_node(NodeId("n1"), node._csr()).certificate_pem
    node.certificate_file.write_text(pem)
    return pem


def test_it_is_renewed_at_half_life_and_read_once(node: Identity, tmp_path: Path) -> None:
    old, loads = age(node, tmp_path, 0.6), list[str]()
    kept_renewed(node, lambda: loads.append(node.certificate_file.read_text()), checks=3)
    assert loads == [node.certificate_file.read_text()]
    assert old not in loads
    assert (node.folder / "server-cert.pem").read_text() == loads[0]


def test_a_node_whose_certificate_ended_while_nobody_could_renew_it_joins_anew(node: Identity, tmp_path: Path) -> None:
    """The control plane was away for an hour; with this certificate it lets nobody in."""
    age(node, tmp_path, 2.0)
    assert not node.usable()
    kept_renewed(node)
    assert node.usable()


def test_a_node_that_is_refused_goes_on_asking(
    control: Control, node: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    age(node, tmp_path, 2.0)
    control.tokens.replace(NodeId("n1"))
    kept_renewed(node, checks=2)
    assert [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "agent.renewing"] == [
        "cannot renew the certificate yet"
    ] * 2


def test_a_certificate_that_could_not_be_read_is_read_again(node: Identity, tmp_path: Path) -> None:
    age(node, tmp_path, 0.6)

    def refuse() -> None:
        raise OSError("too many open files")

    with pytest.raises(OSError, match="open files"):
        asyncio.run(keep_renewed(node, URL, SystemClock(), load=refuse))
    loads: list[str] = []
    kept_renewed(node, lambda: loads.append(node.certificate_file.read_text()))
    assert loads == [node.certificate_file.read_text()]


def test_a_certificate_that_is_half_installed_is_not_taken_for_the_present_one(node: Identity, tmp_path: Path) -> None:
    """What QEMU reads comes first: a disk that is full in between must not end the renewing for half an hour."""
    old = age(node, tmp_path, 0.6)
    in_the_way = node.folder / "client-cert.pem"
    in_the_way.unlink()
    in_the_way.mkdir()
    with pytest.raises(OSError, match="directory"):
        asyncio.run(node.renew())
    assert node.certificate_file.read_text() == old
    in_the_way.rmdir()
    kept_renewed(node)
    assert in_the_way.read_text() == node.certificate_file.read_text() != old

import json

from agent.attached_disk import client_options, device_options, disk_arguments
from agent.guest import command_line
from agent.wire import AttachedDisk
from engine.model.ids import NodeId, ShardId
from tests.unit.agent.conftest import guest_record

DISK = AttachedDisk(storage=ShardId("d1"), epoch=2, node=NodeId("nS"), host="192.0.2.1", port=10900)


def test_a_guest_that_starts_with_the_disk_names_it_as_one_that_got_it_later() -> None:
    """Both ends of a move must have the same device at the same slot."""
    line = disk_arguments(DISK)
    assert json.loads(line[line.index("-device") + 1]) == device_options()
    blocks = [json.loads(line[at + 1]) for at, word in enumerate(line) if word == "-blockdev"]
    assert blocks[0] == client_options(DISK, 0)
    assert blocks[1]["file"] == blocks[0]["node-name"]
    assert device_options()["drive"] == blocks[1]["node-name"]


def test_the_connection_is_encrypted_and_names_the_node() -> None:
    options = client_options(DISK, 3)
    assert (options["tls-creds"], options["tls-hostname"], options["server"]["port"]) == ("tls-remote-3", "nS", "10900")
    assert options["reconnect-delay"] >= 30


def test_only_a_guest_with_a_disk_has_it_on_its_command_line() -> None:
    plain = command_line(guest_record(), direct_io=True, mtu=None, tap=None)
    with_disk = command_line(guest_record(attached=DISK), direct_io=True, mtu=None, tap=None)
    assert with_disk == plain + disk_arguments(DISK)
    waiting = command_line(guest_record(attached=DISK, incoming=True), direct_io=True, mtu=None, tap=None)
    assert waiting[-3:] == ["-incoming", "defer", "-S"]

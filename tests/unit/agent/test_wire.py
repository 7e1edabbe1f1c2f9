import pytest
from pydantic import ValidationError

from agent.wire import (
    CarveRequest,
    JoinRequest,
    ReserveRequest,
    SourceStatus,
    TuneRequest,
    control_identity,
    node_identity,
)
from engine.model.capacity import Resources
from engine.model.ids import MoveId, NodeId, ShardId

CARVE = {
    "shard": "s1", "epoch": 1, "resources": {"vcpus": 1.0, "memory_gib": 0.125}, "address": "10.9.0.2/16",
    "mac": "52:54:00:09:00:02", "disk_mib": 64,
}  # fmt: skip


def carve(**changes: object) -> CarveRequest:
    return CarveRequest.model_validate(CARVE | {"resources": Resources(vcpus=1, memory_gib=0.125)} | changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shard", "../../etc/passwd"),
        ("shard", ""),
        ("shard", ".hidden"),
        ("epoch", -1),
        ("epoch", "1"),
        ("address", "10.9.0.2,hostfwd=x"),
        ("address", "nonsense"),
        ("mac", "52:54:00:09:00:02,romfile=/etc/shadow"),
        ("mac", "525400090002"),
        ("disk_mib", 0),
        ("surprise", 1),
    ],
)
def test_what_would_reach_a_command_line_is_bounded(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        carve(**{field: value})


def test_bodies_survive_json() -> None:
    request = carve()
    assert CarveRequest.model_validate_json(request.model_dump_json()) == request
    status = SourceStatus(running=True, mirror_ready=False, mirror_present=True, migration="active")
    assert SourceStatus.model_validate_json(status.model_dump_json()) == status


def test_a_reservation_ends() -> None:
    kept = {"move": MoveId("m"), "epoch": 1, "resources": Resources(vcpus=1, memory_gib=1)}
    with pytest.raises(ValidationError):
        ReserveRequest.model_validate(kept | {"ttl_seconds": 0.0})
    assert ReserveRequest.model_validate(kept).ttl_seconds == 60


def test_a_downtime_limit_is_one_that_qemu_takes() -> None:
    with pytest.raises(ValidationError):
        TuneRequest(move=MoveId("m"), epoch=1, downtime_limit_ms=10_000_000)


def test_identities_cannot_be_confused() -> None:
    assert node_identity(NodeId("control")) != control_identity()
    assert ShardId("x") == "x"


def test_a_join_names_an_address_that_can_be_called() -> None:
    size = '{"vcpus": 1, "memory_gib": 1}'
    said = f'{{"node": "n1", "csr_pem": "", "agent_url": "URL", "underlay_address": "10.0.0.1", "capacity": {size}}}'
    asked = JoinRequest.model_validate_json(said.replace("URL", "https://10.0.0.1:7443"))
    assert asked.agent_url == "https://10.0.0.1:7443"
    with pytest.raises(ValidationError, match="not https://HOST:PORT"):
        JoinRequest.model_validate_json(said.replace("URL", "https://a:b"))

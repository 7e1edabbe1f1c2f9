"""More nodes join than there are threads, over real TLS."""

import asyncio
from pathlib import Path
from threading import Event, Lock

import httpx
import pytest

from agent.peer import client_context
from agent.wire import CONTROL_NAME, HeldShard, JoinRequest
from engine.fleet.join import JOINS_AT_ONCE
from engine.model.capacity import Resources
from engine.model.ids import NodeId, ShardId
from tests.unit.engine.fleet import test_join
from tests.unit.engine.fleet.test_join import Control, join

control = test_join.control


def test_joins_that_wait_for_their_provider_hold_up_no_run_lease(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, lock, over, inside, most = control.identity(tmp_path / "n1", "n1"), Lock(), Event(), [0], [0]
    join(node)
    asked = JoinRequest(
        node=NodeId("n2"), csr_pem=node._csr(), agent_url="https://127.0.0.1:1", underlay_address="127.0.0.1",
        capacity=Resources(vcpus=1, memory_gib=1),
    ).model_dump_json()  # fmt: skip

    def wait(_asked: JoinRequest) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        over.wait(30)
        with lock:
            inside[0] -= 1

    async def go() -> None:
        context = client_context(ca=control.credentials.ca_file)
        async with httpx.AsyncClient(verify=context, base_url=control.url, trust_env=False, timeout=30) as client:
            many = [
                asyncio.create_task(client.post("/v1/join", content=asked, extensions={"sni_hostname": CONTROL_NAME}))
                for _ in range(60)
            ]
            while inside[0] < JOINS_AT_ONCE:
                await asyncio.sleep(0.01)
            await node.renew_leases((HeldShard(shard=ShardId("s1"), epoch=1),))
            over.set()
            await asyncio.gather(*many)

    monkeypatch.setattr(control.admission, "admit", wait)
    asyncio.run(asyncio.wait_for(go(), 60))
    assert most == [JOINS_AT_ONCE]

"""Controllers of single moves, for tests to hold and kill: one process loads every part once and forks one at a time.

Each is a process of its own, with the fleet's store and workflows, as a control plane has them. It says every phase as
the move enters it, waits where it is told to, and says the report at the end; run again with the same request, it goes
on where the one before was killed.

A line on the nursery's socket is an Order, and with it come two descriptors: what the controller says goes to the
first, and it reads one byte from the second before it leaves a phase that it is to wait in.
"""

import gc
import os
import random
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path

from engine.model.move import MovePhase, MoveRequest
from engine.model.value import Value

LOADED = b"loaded\n"


class Order(Value):
    folder: Path
    """The fleet's."""
    request: MoveRequest
    wait_in: MovePhase | None = None
    limits_json: str


def main() -> None:
    link = socket.socket(fileno=0)
    load()
    link.sendall(LOADED)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: who reads what they say sees their end
    while True:
        content, descriptors, _, _ = socket.recv_fds(link, 65536, 2)
        if not content:
            return
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            link.close()
            control(Order.model_validate_json(content), *descriptors)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        link.sendall(f"{pid}\n".encode())


def load() -> None:
    for part in ("dbos", "engine.migration.workflow", "engine.store.shard_map", "engine.fleet.certificates"):
        import_module(part)
    gc.freeze()


def control(order: Order, said: int, told: int) -> None:
    """One move, from its start or from where it was left, to its report."""
    from dbos import DBOS

    from engine.clock import SystemClock
    from engine.fleet.agent_client import AgentClients
    from engine.fleet.certificates import CertificateAuthority, ControlCredentials
    from engine.migration.base import MoveContext, MoveLimits
    from engine.migration.workflow import DurableMover, configure
    from engine.model.ids import MoveId
    from engine.store.database import Database
    from engine.store.shard_map import ShardMap

    clock, fleet = SystemClock(), order.folder / "fleet"
    shard_map = ShardMap(Database(f"sqlite:///{order.folder / 'control.sqlite'}"), clock)
    credentials = ControlCredentials(CertificateAuthority.load_or_create(fleet, clock), fleet, clock)

    def say(line: str) -> None:
        os.write(said, line.encode() + b"\n")

    def observe(_move: MoveId, phase: MovePhase) -> None:
        say(phase)
        if phase == order.wait_in:
            os.read(told, 1)

    DBOS(
        config={
            "name": "shardwright-test",
            "system_database_url": f"sqlite:///{order.folder / 'dbos-faults.sqlite'}",
            "application_version": "test",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    agents = AgentClients(shard_map.node, credentials, clock, random.Random(2))
    limits = MoveLimits.model_validate_json(order.limits_json)
    configure(MoveContext(agents=agents, shards=shard_map, clock=clock, limits=limits, observer=observe))
    DBOS.launch()
    say(DurableMover().move(order.request).model_dump_json())
    sys.stdout.flush()


if __name__ == "__main__":
    main()

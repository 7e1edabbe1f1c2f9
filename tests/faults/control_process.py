"""A control plane that does one move and kills itself at a given phase; run again, it finishes what it began.

python tests/faults/control_process.py FOLDER REQUEST_JSON [PHASE]
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from dbos import DBOS

from engine.clock import SystemClock
from engine.fleet.agent_client import AgentClients
from engine.fleet.certificates import CertificateAuthority, ControlCredentials
from engine.migration.base import MoveContext
from engine.migration.workflow import DurableMover, configure
from engine.model.ids import MoveId
from engine.model.move import MovePhase, MoveRequest
from engine.store.database import Database
from engine.store.shard_map import ShardMap


def main(folder: Path, request_json: str, die_at: str | None) -> None:
    clock, fleet = SystemClock(), folder / "fleet"
    shard_map = ShardMap(Database(f"sqlite:///{folder / 'control.sqlite'}"), clock)
    credentials = ControlCredentials(CertificateAuthority.load_or_create(fleet, clock), fleet, clock)

    def observe(_move: MoveId, phase: MovePhase) -> None:
        print(f"{time.monotonic():.3f} {phase}", flush=True)
        if phase == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    agents = AgentClients(shard_map.node, credentials, clock, random.Random(2))
    DBOS(
        config={
            "name": "shardwright-test",
            "system_database_url": f"sqlite:///{folder / 'dbos-faults.sqlite'}",
            "application_version": "test",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    configure(MoveContext(agents=agents, shards=shard_map, clock=clock, observer=observe))
    DBOS.launch()
    mover, request = DurableMover(), MoveRequest.model_validate_json(request_json)
    print(mover.move(request).model_dump_json(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)

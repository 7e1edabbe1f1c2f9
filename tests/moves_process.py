"""Four moves off one node, asked for by a workflow; kills itself in the middle, and finishes when it is run again.

python tests/moves_process.py FOLDER [die]

The shards do not exist, so each move ends as soon as it has looked for its own. With ``die`` the first one never does:
the process is killed when the second has ended and the third has begun in its place. Prints the shards that are looked
for, then the shards of the reports that were kept, and the last those of the reports that came back.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, cast

from dbos import DBOS, SetWorkflowID

from engine.clock import SystemClock
from engine.durable import durable_workflows
from engine.errors import UnknownName
from engine.events import unseen
from engine.migration.base import MoveContext
from engine.migration.several import Moves
from engine.migration.workflow import DurableMover, configure
from engine.model.ids import MoveId, ShardId
from engine.model.move import MoveReport, MoveRequest
from tests.small_orders import a_request

SHARDS = [ShardId(f"s{number}") for number in range(4)]
BATCH = "batch"
_moves: list[Moves] = []


class Gates:
    """The shard map of a fleet without shards, which every move asks first; a shard's gate lets its move go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed: set[ShardId] = set()
        self._inside: set[ShardId] = set()
        self.begun: list[ShardId] = []
        self.most = 0
        """So many were inside at once."""

    def close(self, shards: Sequence[ShardId]) -> None:
        self._closed |= set(shards)

    def open(self, shard: ShardId) -> None:
        with self._changed:
            self._closed.discard(shard)
            self._changed.notify_all()

    def wait_begun(self, *shards: ShardId) -> None:
        """Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: set(shards) <= set(self.begun), timeout=30):
                raise TimeoutError(f"only {self.begun} have begun")

    def get(self, shard: ShardId) -> Any:
        with self._changed:
            self.begun.append(shard)
            self._inside.add(shard)
            self.most = max(self.most, len(self._inside))
            self._changed.notify_all()
            self._changed.wait_for(lambda: shard not in self._closed, timeout=60)
            self._inside.discard(shard)
        raise UnknownName(f"shard {shard} is not known")


def serve(
    gates: Gates,
    keep: Callable[[MoveReport], None],
    announce: Callable[[Sequence[MoveRequest], str | None], None] = lambda _all, _by: None,
    held: Collection[MoveId] = (),
) -> None:
    """Before DBOS is launched."""
    configure(MoveContext(agents=cast(Any, None), shards=cast(Any, gates), clock=SystemClock()))
    _moves[:] = [
        Moves(
            DurableMover(), unseen, clock=SystemClock(), keep=keep, announce=announce,
            held_back=lambda _waiting, _seconds: held,
        )
    ]  # fmt: skip


def requests() -> list[MoveRequest]:
    return [a_request().model_copy(update={"id": MoveId(f"move-{shard}"), "shard": shard}) for shard in SHARDS]


@DBOS.workflow(name="batch")
def batch() -> tuple[MoveReport, ...]:
    return _moves[0].run(requests())


class Dying(Gates):
    def get(self, shard: ShardId) -> Any:
        dies = self._closed and shard == SHARDS[2]
        if dies:
            self.wait_begun(SHARDS[0])
        print(f"{shard}\n", end="", flush=True)  # in one piece: two moves tell of themselves at once
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get(shard)


def main(folder: Path, *, die: bool) -> None:
    gates, kept = Dying(), list[MoveReport]()
    gates.close(SHARDS[:1] if die else [])
    serve(gates, kept.append)
    with durable_workflows("moves", f"sqlite:///{folder / 'dbos.sqlite'}"):
        with SetWorkflowID(BATCH):
            reports = DBOS.start_workflow(batch).get_result()
        for told in (kept, reports):
            print(*(report.request.shard for report in told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), die=sys.argv[2:] == ["die"])

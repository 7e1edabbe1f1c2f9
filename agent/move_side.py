"""What both ends of a live move share: whose commands they obey, and in which turn; how they prove who they are."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent import fences, guest
from agent.config import AgentConfig
from agent.guest import GuestRecord
from agent.node_guest import Guest
from agent.shards import ShardHost
from agent.wire import MoveCommand
from engine.model.ids import ShardId

# AES-GCM makes GnuTLS renegotiate keys after 16 M records and QEMU crash with a return path; ChaCha20 does not.
TLS_PRIORITY = "NORMAL:-AES-256-GCM:-AES-128-GCM:-AES-128-CCM"
TLS = "tls-move"
"""The object in QEMU that holds the node's certificate while the move lasts."""
LOOK_SECONDS = 0.02
"""Between two looks at a QEMU that tells by itself when something happens: often enough if it once should not."""
GONE_SECONDS = 1.0
"""For a process whose monitor is closed to be gone; a look must be answered before the controller gives it up."""
Rule = Callable[[GuestRecord, MoveCommand], None]


class MoveSide:
    """One end, over the same guests as ShardHost."""

    def __init__(self, host: ShardHost, config: AgentConfig) -> None:
        self._host, self._config = host, config

    @asynccontextmanager
    async def driven(
        self, shard: ShardId, command: MoveCommand, allowed: Rule = fences.in_move
    ) -> AsyncIterator[Guest]:
        """Alone with the guest. What was right when the command came is read again when its turn comes."""
        here = self._host.guest(shard)
        self.admit(here, command, allowed)
        async with here.busy:
            self.admit(here, command, allowed)
            yield here

    def admit(self, here: Guest, command: MoveCommand, allowed: Rule) -> None:
        allowed(here.record, command)
        self._host.epochs.accept(here.record.shard, command.epoch)
        here.heard_now()

    def tls_object(self, here: Guest, endpoint: str) -> dict[str, Any]:
        # Added for one move, so that QEMU reads the certificate that is valid now.
        user = guest.user_for(here.folder, here.record.profile.accelerator)
        return {
            "qom-type": "tls-creds-x509",
            "id": TLS,
            "dir": guest.lend_tls(self._config.work / "tls", here.folder, user),
            "endpoint": endpoint,
            "verify-peer": True,
            "priority": TLS_PRIORITY,
        }

"""Who may join: an instance by what its provider signed about it, or, where that is not configured, by a token.

A challenge is bound to the node and to the public key that asks for a certificate, so that a signed document which
somebody else got hold of answers no challenge of theirs. It is derived, not stored: it outlives the control plane.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from agent.wire import JoinRequest
from engine.clock import Clock
from engine.errors import AuthenticationFailed, ProviderError, ProviderUnavailable
from engine.fleet.certificates import public_key_digest, require_no_control_name
from engine.model.attestation import AttestedInstance
from engine.model.ids import NodeId
from engine.store.attested_instances import AttestedInstances
from engine.store.join_tokens import JoinTokens
from providers.base import Attestor, InstanceRecord, SupportsInventory

CHALLENGE_LIFE = timedelta(minutes=5)
FIRST_JOIN_WITHIN = timedelta(hours=24)
"""Of the launch: a copy of a document that has no end is worth nothing afterwards."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Attestation:
    """How one provider's instances prove who they are."""

    provider: str
    account: str
    attestor: Attestor
    inventory: SupportsInventory


class Admission:
    """Safe to share between threads."""

    def __init__(
        self,
        *,
        tokens: JoinTokens,
        instances: AttestedInstances,
        secret: bytes,
        clock: Clock,
        attestation_of: Callable[[NodeId], Attestation | None],
    ) -> None:
        """``attestation_of``: how the node's provider does it, None: by token. May raise UnknownName."""
        self._tokens, self._instances, self._attestation_of = tokens, instances, attestation_of
        self._secret, self._clock = secret, clock

    def challenge(self, node: NodeId, csr_pem: str) -> str:
        """What the node's provider shall sign; good for CHALLENGE_LIFE. Raises AuthenticationFailed (a bad request)."""
        ends = int((self._clock.now() + CHALLENGE_LIFE).timestamp())
        return f"{ends}.{self._seal(node, public_key_digest(csr_pem), ends)}"

    def admit(self, asked: JoinRequest) -> None:
        """Returns for a node that may have its certificate. Raises AuthenticationFailed, or ProviderUnavailable where
        the provider cannot say yet."""
        require_no_control_name(asked.node)  # before anything is used up for it
        key = public_key_digest(asked.csr_pem)
        how = self._attestation_of(asked.node)
        if how is None:
            self._tokens.redeem(asked.node, asked.token, key)
            return
        if not asked.evidence:
            raise _refused(asked.node, f"nodes of {how.provider} join by their signed identity")
        self._require_own_challenge(asked.node, key, asked.challenge)
        instance = how.attestor.attested(asked.evidence, asked.challenge)
        record = self._listed(how, instance, asked.node)
        if self._instances.key_of(how.provider, instance.instance_id) is None:
            self._require_young(record, asked.node)
        self._instances.use(how.provider, instance.instance_id, asked.node, key)

    def _require_own_challenge(self, node: NodeId, key: str, challenge: str) -> None:
        text, _, seal = challenge.partition(".")
        ends = int(text) if text.isdecimal() and len(text) < 12 else 0
        if not hmac.compare_digest(seal.encode(), self._seal(node, key, ends).encode()):
            raise _refused(node, "its challenge was given to another node or key")
        if datetime.fromtimestamp(ends, UTC) < self._clock.now():
            raise _refused(node, "its challenge is too old")

    def _listed(self, how: Attestation, instance: AttestedInstance, node: NodeId) -> InstanceRecord:
        """The provider's own record of the instance, which must be this node's."""
        if instance.account != how.account:
            raise _refused(node, f"its instance belongs to another account of {how.provider}")
        try:
            records = how.inventory.instances()
        except (ProviderError, AuthenticationFailed) as problem:
            _log.warning("a node waits to join", node=node, error=str(problem))
            raise ProviderUnavailable(f"{how.provider} cannot say yet which instance node {node} is") from problem
        record = next((one for one in records if one.instance_id == instance.instance_id), None)
        if record is None:
            raise ProviderUnavailable(
                f"{how.provider} does not list the instance of node {node}",
                why="a new instance may take a moment to appear",
            )
        if record.node != node:
            raise _refused(node, "its instance is another node's")
        if instance.region is not None and instance.region != record.region:
            raise _refused(node, "its instance runs in another region")
        return record

    def _require_young(self, record: InstanceRecord, node: NodeId) -> None:
        if record.launched_at + FIRST_JOIN_WITHIN < self._clock.now():
            raise _refused(node, "its instance was launched too long ago to join for the first time")

    def _seal(self, node: NodeId, key: str, ends: int) -> str:
        return hmac.new(self._secret, f"attest:{node}:{key}:{ends}".encode(), hashlib.sha256).hexdigest()


def _refused(node: NodeId, why: str) -> AuthenticationFailed:
    return AuthenticationFailed(f"node {node} may not join", why=why)

"""The Reservation resource, over the Open Capacity API."""

from typing import Any, ClassVar

from engine.clock import SystemClock
from engine.errors import ConfigurationError, NotFound, ProviderError
from providers.network.client import NetworkClient
from providers.network.plugin.sdk import RESERVATION
from providers.network.wire import ReservationState, WireReservation
from providers.plugin.kinds import Made, ResourceKind
from providers.plugin.values import Plain, Properties


def connect(configuration: Properties) -> NetworkClient:
    """A session from the Provider resource's configuration."""
    missing = [key for key in ("endpoint", "token") if not configuration.get(key)]
    if missing:
        raise ConfigurationError(f"the shardnet provider lacks {', '.join(missing)}")
    return NetworkClient(
        configuration["endpoint"],
        configuration["token"],
        timeout=float(configuration.get("timeoutSeconds") or 10.0),
        clock=SystemClock(),
        ca_file=configuration.get("caFile"),
    )


class ReservationKind(ResourceKind[NetworkClient]):
    """The token is the idempotency key of the hold and of its confirmation, so that one token is one unit."""

    computed: ClassVar[tuple[str, ...]] = ("address", "unitPrice")
    replace_on: ClassVar[frozenset[str]] = frozenset(
        {"node", "token", "region", "zone", "instanceType", "option", "userData"}
    )
    delete_before_replace = False

    def check(self, inputs: dict[str, Plain]) -> dict[str, str]:
        return {
            key: "required, but missing"
            for key in ("node", "token", "region", "instanceType", "option")
            if not inputs.get(key)
        }

    def create(self, session: NetworkClient, name: str, inputs: Properties) -> Made:
        token = inputs["token"]
        running = next((known for known in session.reservations() if known.token == token), None)
        if running is None:
            running = session.confirm(
                _hold_of(session, name, inputs),
                key=f"{token}:confirm",
                node=inputs["node"],
                token=token,
                user_data=inputs.get("userData") or "",
                tags=inputs.get("tags") or {},
            )
        return _made(running)

    def read(self, session: NetworkClient, resource_id: str, inputs: Properties) -> Made | None:
        try:
            found = session.reservation(resource_id)
        except NotFound:
            return None
        return None if found.state is ReservationState.ENDED else _made(found)

    def update(self, session: NetworkClient, resource_id: str, old: Properties, new: Properties) -> Properties:
        """A network takes a unit's tags when it starts; later ones are kept in the state alone."""
        return _made(session.reservation(resource_id)).outputs

    def delete(self, session: NetworkClient, resource_id: str, properties: Properties) -> None:
        session.delete_reservation(resource_id)


def _hold_of(session: NetworkClient, name: str, inputs: Properties) -> str:
    """The hold that the allocation took; where there is none, one is taken now, with the token as its key."""
    if inputs.get("heldId"):
        return str(inputs["heldId"])
    if not inputs.get("quoteId"):
        raise ProviderError(f"shardnet: {name} is to be bought, but there is no quote to buy it on")
    return session.hold(inputs["quoteId"], quantity=1, key=inputs["token"]).hold_id


def _made(found: WireReservation) -> Made:
    price = found.unit_price
    return Made(
        found.reservation_id,
        {"address": found.address or "", "unitPrice": f"{price.amount:f} {price.currency}", "holdId": found.hold_id},
    )


KINDS: dict[str, ResourceKind[Any]] = {RESERVATION: ReservationKind()}

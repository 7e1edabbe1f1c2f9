"""The classes with which a Pulumi program declares ``shardnet`` resources."""

from collections.abc import Mapping
from typing import Any

import pulumi

PLUGIN = "shardnet"
RESERVATION = "shardnet:index:Reservation"


class Provider(pulumi.ProviderResource):
    """``endpoint``: base URL of the network; ``token``: its bearer token; ``ca_file``: PEM file of a private CA."""

    def __init__(
        self,
        name: str,
        *,
        endpoint: pulumi.Input[str],
        token: pulumi.Input[str],
        ca_file: str | None = None,
        timeout_seconds: float = 10.0,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        given = {
            "endpoint": endpoint,
            "token": pulumi.Output.secret(token),
            "caFile": ca_file,
            "timeoutSeconds": str(timeout_seconds),
        }
        super().__init__(PLUGIN, name, {key: value for key, value in given.items() if value is not None}, opts)


class Reservation(pulumi.CustomResource):
    """One unit of a network, running as ``node``. ``address`` is where it is reached, once it runs."""

    address: pulumi.Output[str]
    unit_price: pulumi.Output[str]
    """Per hour, e.g. ``0.0560 USD``."""

    def __init__(
        self,
        name: str,
        *,
        node: str,
        token: str,
        region: str,
        zone: str,
        instance_type: str,
        option: str,
        quote_id: str | None,
        hold_id: str | None,
        user_data: pulumi.Input[str],
        tags: Mapping[str, str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """``hold_id``: the hold that the unit uses up; without one it is bought on ``quote_id``.

        Both are None for a unit that runs already.
        """
        inputs: dict[str, Any] = {
            "node": node,
            "token": token,
            "region": region,
            "zone": zone,
            "instanceType": instance_type,
            "option": option,
            "quoteId": quote_id,
            "heldId": hold_id,
            "userData": pulumi.Output.secret(user_data),
            "tags": dict(tags),
            "address": None,
            "unitPrice": None,
        }
        super().__init__(RESERVATION, name, inputs, opts)

    def translate_output_property(self, prop: str) -> str:
        return {"unitPrice": "unit_price"}.get(prop, prop)

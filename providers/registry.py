"""Which module serves which kind of provider; imported only when used.

A new provider is one module, one line here, one program in stacks/, one ingester in engine/billing/.
"""

from importlib import import_module
from typing import Protocol, cast

from engine.clock import Clock
from engine.errors import ConfigurationError
from providers.base import Attestor, Provider, ProviderSettings

_KINDS = {
    "aws": "providers.aws:AwsProvider",
    "gcp": "providers.gcp:GcpProvider",
    "azure": "providers.azure:AzureProvider",
    "network": "providers.network.provider:NetworkProvider",
}

KINDS = tuple(_KINDS)

_ATTESTORS = {
    "aws": "providers.aws_attestation:AwsAttestor",
    "gcp": "providers.gcp_attestation:GcpAttestor",
    "azure": "providers.azure_attestation:AzureAttestor",
}
"""Kinds whose instances can prove by their provider's signature who they are."""


class _Factory(Protocol):
    def __call__(self, settings: ProviderSettings, *, clock: Clock) -> Provider: ...


class _AttestorFactory(Protocol):
    def __call__(self, settings: ProviderSettings, *, clock: Clock) -> Attestor: ...


def open_provider(settings: ProviderSettings, *, clock: Clock) -> Provider:
    """Build the adapter for ``settings.kind``. Raises ConfigurationError on an unknown kind."""
    path = _KINDS.get(settings.kind)
    if path is None:
        raise ConfigurationError(
            f"providers.{settings.name}.kind: unknown kind {settings.kind!r}", why=f"known kinds: {', '.join(KINDS)}"
        )
    return cast(_Factory, _named(path))(settings, clock=clock)


def open_attestor(settings: ProviderSettings, *, clock: Clock) -> Attestor | None:
    """What checks the identity of this provider's instances; None: they join with tokens.

    Raises ConfigurationError where keys are configured and cannot be used.
    """
    if settings.attestation_keys is None:
        return None
    path = _ATTESTORS.get(settings.kind)
    if path is None:
        raise ConfigurationError(
            f"providers.{settings.name}.attestation_keys: nodes of kind {settings.kind!r} join with tokens",
            why=f"signed identities are known of {', '.join(_ATTESTORS)}",
            next_step="leave attestation_keys out",
        )
    return cast(_AttestorFactory, _named(path))(settings, clock=clock)


def _named(path: str) -> object:
    module, _, name = path.partition(":")
    return cast(object, getattr(import_module(module), name))

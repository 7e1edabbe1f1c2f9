"""Which module serves which kind of provider; imported only when used.

A new provider is one module, one line here, one program in stacks/, one ingester in engine/billing/.
"""

from importlib import import_module
from typing import Protocol, cast

from engine.clock import Clock
from engine.errors import ConfigurationError
from providers.base import Provider, ProviderSettings

_KINDS = {
    "aws": "providers.aws:AwsProvider",
    "gcp": "providers.gcp:GcpProvider",
    "azure": "providers.azure:AzureProvider",
    "network": "providers.network.provider:NetworkProvider",
}

KINDS = tuple(_KINDS)


class _Factory(Protocol):
    def __call__(self, settings: ProviderSettings, *, clock: Clock) -> Provider: ...


def open_provider(settings: ProviderSettings, *, clock: Clock) -> Provider:
    """Build the adapter for ``settings.kind``. Raises ConfigurationError on an unknown kind."""
    path = _KINDS.get(settings.kind)
    if path is None:
        raise ConfigurationError(
            f"providers.{settings.name}.kind: unknown kind {settings.kind!r}", why=f"known kinds: {', '.join(KINDS)}"
        )
    module, _, name = path.partition(":")
    return cast(_Factory, getattr(import_module(module), name))(settings, clock=clock)

"""Whose signatures count: the keys that networks publish beside those that are taken, and the operator's word."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.clock import SystemClock
from engine.config import Configuration
from engine.errors import ShardwrightError, UnknownName, UsageError
from engine.model.value import Value
from providers.base import KeyMemory, Provider, SupportsSigningKeys

if TYPE_CHECKING:
    from engine.store.opened import Store


class ProviderKey(Value):
    """One key of one provider, by its thumbprint (RFC 7638)."""

    provider: str
    thumbprint: str
    published: bool
    """The provider publishes it now."""
    taken: bool
    """Prices signed with it are believed."""
    why: str


def remember_keys(providers: Iterable[Provider], memory: KeyMemory) -> None:
    for provider in providers:
        if isinstance(provider, SupportsSigningKeys):
            provider.remember_keys_in(memory)


def provider_keys(configuration: Configuration, store: "Store") -> tuple[tuple[ProviderKey, ...], tuple[str, ...]]:
    """(keys, what could not be asked). Changes nothing: looking at a key is no meeting."""
    found: list[ProviderKey] = []
    problems: list[str] = []
    for name, provider in _signing(configuration).items():
        pinned = set(configuration.provider(name).signing_keys)
        known = store.provider_keys.known(name)
        try:
            published = set(provider.signing_keys())
        except ShardwrightError as problem:
            problems.append(f"{name}: {problem}")
            published = set()
        taken = pinned or known or published
        why = "pinned" if pinned else "known" if known else "first meeting"
        found += [
            ProviderKey(
                provider=name,
                thumbprint=key,
                published=key in published,
                taken=key in taken,
                why=why if key in taken else "another is " + why,
            )
            for key in sorted(taken | published)
        ]
    return tuple(found), tuple(problems)


def accept_key(configuration: Configuration, store: "Store", name: str, key: str) -> frozenset[str]:
    """From now on that provider is known by this key alone; those it was known by before.

    Raises UnknownName, UsageError (pinned in the configuration, or not published), ProviderError.
    """
    providers = _signing(configuration)
    if name not in providers:
        raise UnknownName(
            f"no provider {name} that signs its prices",
            why=f"there are: {', '.join(sorted(providers)) or 'none'}",
            next_step="shardwright network keys",
        )
    if configuration.provider(name).signing_keys:
        raise UsageError(
            f"the keys of {name} are pinned in the configuration",
            why=f"providers.{name}.signing_keys counts, whatever is accepted",
            next_step=f"change providers.{name}.signing_keys, then shardwright network keys",
        )
    if key not in providers[name].signing_keys():
        raise UsageError(
            f"{name} does not publish a key {key}", why="only what is published can be accepted",
            next_step="shardwright network keys",
        )  # fmt: skip
    before = store.provider_keys.known(name)
    store.provider_keys.accept(name, [key])
    return before


def _signing(configuration: Configuration) -> dict[str, SupportsSigningKeys]:
    from engine.app.configured import open_providers

    providers = open_providers(configuration, SystemClock())
    return {name: provider for name, provider in providers.items() if isinstance(provider, SupportsSigningKeys)}

"""Which program brings up which kind of cell; imported only when used, since the provider SDKs are large."""

from importlib import import_module
from types import ModuleType
from typing import cast

from engine.errors import ConfigurationError
from stacks.base import Program

_PROGRAMS = {
    "aws": "stacks.aws",
    "gcp": "stacks.gcp",
    "azure": "stacks.azure",
    "network": "stacks.network",
}
KINDS = tuple(_PROGRAMS)


def program_module(kind: str) -> ModuleType:
    """Holds ``program`` (stacks.base.Program), ``adoption`` (stacks.adoption.Adoption), ``PLUGIN`` (the Pulumi plugin
    that the program needs) and ``NO_CAPACITY`` (what its errors say when there is none to be had).

    Import it in the main thread before stacks run side by side: the SDKs' lazy modules race otherwise.
    Raises ConfigurationError on an unknown kind.
    """
    path = _PROGRAMS.get(kind)
    if path is None:
        raise ConfigurationError(f"no program for cells of kind {kind!r}", why=f"known kinds: {', '.join(KINDS)}")
    return import_module(path)


def program_for(kind: str) -> Program:
    return cast(Program, program_module(kind).program)

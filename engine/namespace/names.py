"""Names of components: ``shard://NAMESPACE/WORKLOAD/COMPONENT[/N]``, and the same as a DNS name."""

import re

from engine.errors import UsageError
from engine.model.placement import ComponentName
from engine.model.value import Value

SCHEME = "shard://"
DNS_SUFFIX = ("shard", "internal")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_SHAPE = f"{SCHEME}NAMESPACE/WORKLOAD/COMPONENT[/N]"


class NameQuery(Value):
    """A name as it was asked for; ``index`` None: every shard of the component."""

    namespace: str
    workload: str
    component: str
    index: int | None = None

    def matches(self, name: ComponentName) -> bool:
        same = (self.namespace, self.workload, self.component) == (name.namespace, name.workload, name.component)
        return same and self.index in (None, name.index)

    def __str__(self) -> str:
        path = f"{SCHEME}{self.namespace}/{self.workload}/{self.component}"
        return path if self.index is None else f"{path}/{self.index}"


def parse_query(text: str) -> NameQuery:
    """Raises UsageError that says which part is wrong."""
    if not text.startswith(SCHEME):
        raise _wrong(text, f"it does not start with {SCHEME}")
    parts = text.removeprefix(SCHEME).split("/")
    if not 3 <= len(parts) <= 4:
        raise _wrong(text, f"it has {len(parts)} parts, not 3 or 4")
    for what, part in zip(("namespace", "workload", "component"), parts, strict=False):
        if not _LABEL.fullmatch(part):
            raise _wrong(text, f"the {what} {part!r} is not 1 to 63 lower-case letters, digits and inner dashes")
    if len(parts) == 4 and not _NUMBER.fullmatch(parts[3]):
        raise _wrong(text, f"the number {parts[3]!r} is not a whole number from 0")
    return NameQuery(
        namespace=parts[0],
        workload=parts[1],
        component=parts[2],
        index=int(parts[3]) if len(parts) == 4 else None,
    )


def parse(text: str) -> ComponentName:
    """The name of one shard of a component; without a number, number 0. Raises UsageError."""
    query = parse_query(text)
    return ComponentName(
        namespace=query.namespace, workload=query.workload, component=query.component, index=query.index or 0
    )


def dns_name(name: ComponentName) -> str:
    """``N.COMPONENT.WORKLOAD.NAMESPACE.shard.internal``"""
    return ".".join((str(name.index), name.component, name.workload, name.namespace, *DNS_SUFFIX))


def parse_dns(text: str) -> NameQuery | None:
    """The name that a DNS name stands for, in any case and with or without the final dot; None: not one of ours."""
    labels = tuple(text.lower().removesuffix(".").split("."))
    if labels[-len(DNS_SUFFIX) :] != DNS_SUFFIX:
        return None
    inner = labels[: -len(DNS_SUFFIX)]
    index = None
    if len(inner) == 4 and _NUMBER.fullmatch(inner[0]):
        index, inner = int(inner[0]), inner[1:]
    if len(inner) != 3 or not all(_LABEL.fullmatch(label) for label in inner):
        return None
    component, workload, namespace = inner
    return NameQuery(namespace=namespace, workload=workload, component=component, index=index)


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is not a shard name", why=why, next_step=f"names look like {_SHAPE}")

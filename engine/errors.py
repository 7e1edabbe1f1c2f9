"""Every error the project raises on purpose.

ShardwrightError
├── UsageError                    exit 2: what the user gave cannot be used
│   ├── ConfigurationError        every problem of a configuration file at once
│   ├── BadUsageData              a usage history that cannot be read
│   ├── BadCase                   a case of the capacity game that cannot be played
│   └── UnknownName               no shard, node or shard:// name of that name
├── MissingPart                   exit 1: Pulumi, QEMU, a kernel … is not installed
├── ScaleOutFailed                exit 1: a cluster of workers did not come up, or lost a piece of work too often
├── PlayFailed                   exit 1: a case of the lab could not be played with a policy; both are named
├── StateInUse                    exit 1: a second control plane on the same state
├── AuthenticationFailed          exit 3
├── ProviderError                 exit 4
│   ├── ProviderUnavailable       down, slow, or answering 429/5xx after the retries
│   │   ├── NodeSilent            a node's agent does not answer -> no use in asking it the next thing right away
│   │   └── NotGivenUp            a node answers, and still has what it was told to give up -> again, later
│   ├── ProviderAnswerInvalid     it answered, but not what its API promises
│   │   └── AnswerTooLarge        more than it gives, or than we read, at once -> ask for less
│   ├── InsufficientCapacity      -> next quote
│   ├── QuoteExpired              -> quote again
│   ├── PriceMismatch             -> stop and read back
│   └── NotFound                  on delete -> done
├── ConcurrentUpdate              -> requeue
├── StaleEpoch                    a newer epoch owns the shard; the caller must stop
├── NoOfferFits                   exit 5: nothing on the market meets the need
├── PolicyViolation               exit 5
├── BudgetExceeded                exit 5
├── MoveFailed                    exit 1: the move ended without success; the source still runs
│   └── MoveCancelled             an operator did not want it any more, before its commit point
└── BillDoesNotReconcile          exit 6
"""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    ERROR = 1
    USAGE = 2
    AUTHENTICATION = 3
    PROVIDER = 4
    BLOCKED = 5
    BILL = 6
    CANCELLED = 130


class ShardwrightError(Exception):
    """``what`` happened, ``why``, and the ``next_step`` (a command, where there is one)."""

    exit_code = ExitCode.ERROR

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        self.what, self.why, self.next_step = what, why, next_step
        super().__init__("; ".join(part for part in (what, why, next_step) if part))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.why, self.next_step))


def _rebuild(kind: type[ShardwrightError], what: str, why: str, next_step: str) -> ShardwrightError:
    return kind(what, why=why, next_step=next_step)


class UsageError(ShardwrightError):
    exit_code = ExitCode.USAGE


class ConfigurationError(UsageError):
    pass


class BadUsageData(UsageError):
    pass


class BadCase(UsageError):
    pass


class UnknownName(UsageError):
    pass


class MissingPart(ShardwrightError):
    pass


class ScaleOutFailed(ShardwrightError):
    pass


class PlayFailed(ShardwrightError):
    pass


class StateInUse(ShardwrightError):
    pass


class AuthenticationFailed(ShardwrightError):
    exit_code = ExitCode.AUTHENTICATION


class ProviderError(ShardwrightError):
    exit_code = ExitCode.PROVIDER


class ProviderUnavailable(ProviderError):
    pass


class NodeSilent(ProviderUnavailable):
    pass


class NotGivenUp(ProviderUnavailable):
    pass


class ProviderAnswerInvalid(ProviderError):
    pass


class AnswerTooLarge(ProviderAnswerInvalid):
    pass


class InsufficientCapacity(ProviderError):
    """``nodes``: names of those that could not be had, where a whole cell was asked for and they are known."""

    def __init__(self, what: str, *, why: str = "", next_step: str = "", nodes: tuple[str, ...] = ()) -> None:
        super().__init__(what, why=why, next_step=next_step)
        self.nodes = nodes

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"nodes": self.nodes})


class QuoteExpired(ProviderError):
    pass


class PriceMismatch(ProviderError):
    pass


class NotFound(ProviderError):
    pass


PROVIDER_PROBLEMS = (ProviderError, AuthenticationFailed)
"""Whatever a call to a provider may raise: its own trouble, or that it does not know us (any more)."""
PROVIDER_GONE = (ProviderUnavailable, AuthenticationFailed)
"""Those of them that the next call to the same provider would meet too."""


class ConcurrentUpdate(ShardwrightError):
    pass


class StaleEpoch(ShardwrightError):
    pass


class NoOfferFits(ShardwrightError):
    exit_code = ExitCode.BLOCKED


class PolicyViolation(ShardwrightError):
    exit_code = ExitCode.BLOCKED


class BudgetExceeded(ShardwrightError):
    exit_code = ExitCode.BLOCKED


class MoveFailed(ShardwrightError):
    pass


class MoveCancelled(MoveFailed):
    pass


class BillDoesNotReconcile(ShardwrightError):
    exit_code = ExitCode.BILL

"""Plays a policy of ours in a game that somebody else hosts: reads messages, writes answers, one JSON object a line."""

from collections.abc import Callable, Iterable

from pydantic import ValidationError

from engine.errors import UsageError
from lab.host import Policy
from lab.wire import End, Init, Missed, Observe, Ready, read_message


def play_messages(lines: Iterable[str], policy: Policy, say: Callable[[str], None]) -> End | None:
    """Until ``end``, or until the lines stop (None: the game was cut off).

    Raises UsageError for a line that is no message of the game, and for an ``observe`` before ``init``.
    """
    begun = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        message = _message(line, number)
        match message:
            case Init():
                policy.start(message)
                begun = True
                say(Ready().line())
            case Observe():
                if not begun:
                    raise UsageError(
                        "the game sent an observation before it began",
                        why="what the fleets and offers are is told by init",
                        next_step="start the policy anew for every game, and send init first",
                    )
                answer = policy.answer(message)
                if not isinstance(answer, Missed):
                    say(answer.line())
            case End():
                return message
    return None


def _message(line: str, number: int) -> Init | Observe | End:
    try:
        return read_message(line)
    except (ValidationError, ValueError) as problem:
        raise UsageError(
            f"line {number} is no message of the capacity game",
            why=str(problem).splitlines()[0],
            next_step="send init, observe and end as the rules of play describe them, one JSON object a line",
        ) from problem

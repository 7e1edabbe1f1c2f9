"""``python -m providers.sandbox up|down|status|reclaim|leftovers``: the sandbox from the command line."""

import argparse
import os
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

# Kept light: `reap` stays in memory for as long as a sandbox runs, and must start at once.
from providers.sandbox.processes import MARKER
from providers.sandbox.teardown import TAG_PATTERN, leftovers, new_tag, tear_down


def main(argv: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    if given.command == "reap":
        return _reap(given.tag, given.state)
    if given.command == "leftovers":
        return _leftovers(given.tag)
    if given.command == "up":
        _carry_tag()
    from engine.errors import ShardwrightError

    try:
        return _with_sandbox(given)
    except ShardwrightError as error:
        print(f"{error.what}" + (f"\n  {error.why}" if error.why else ""), file=sys.stderr)
        if error.next_step:
            print(f"  next: {error.next_step}", file=sys.stderr)
        return int(error.exit_code)


def _with_sandbox(given: argparse.Namespace) -> int:
    from engine.clock import SystemClock
    from providers.sandbox import supervisor
    from providers.sandbox.assembly import SandboxOptions
    from providers.sandbox.control import SandboxClient
    from providers.sandbox.info import DEFAULT_PROVIDERS, SandboxInfo

    if given.command == "up":
        options = SandboxOptions(
            state_dir=given.state.resolve(),
            seed=given.seed,
            meter_speed=given.meter_speed,
            providers=tuple(given.providers.split(",")) if given.providers else DEFAULT_PROVIDERS,
            namespaces=not given.no_namespaces,
            reclaims=given.reclaims,
            control_ports=tuple(given.control_port),
        )
        options.specs()
        return supervisor.supervise(options, os.environ[MARKER], SystemClock(), parent_pid=given.parent_pid)
    if given.command == "down":
        left = supervisor.stop(given.state.resolve())
        for leftover in left:
            print(f"left over: {leftover}", file=sys.stderr)
        return 1 if left else 0
    client = SandboxClient(SandboxInfo.load(given.state))
    if given.command == "reclaim":
        print(client.reclaim(given.node, given.notice).model_dump_json(indent=2))
    else:
        print(client.status().model_dump_json(indent=2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run a sandbox in the foreground; prints 'ready' once it is")
    up.add_argument("--state", type=Path, required=True, help="folder of its files")
    up.add_argument("--seed", type=int, default=0)
    up.add_argument("--meter-speed", type=_speed, default=Decimal(1), help="metered hours per real hour")
    up.add_argument("--providers", help="comma-separated; all of them where not given")
    up.add_argument("--parent-pid", type=int, help="tear down when this process is gone")
    up.add_argument("--no-namespaces", action="store_true", help="nodes as processes on loopback addresses")
    up.add_argument("--reclaims", action="store_true", help="let the market reclaim spot nodes by itself")
    up.add_argument("--control-port", type=int, action="append", default=[], help="loopback port that nodes may reach")
    for name, text in (("down", "take a sandbox away"), ("status", "servers and nodes, as JSON")):
        commands.add_parser(name, help=text).add_argument("--state", type=Path, required=True)
    reclaim = commands.add_parser("reclaim", help="have a node's provider take it back")
    reclaim.add_argument("node")
    reclaim.add_argument("--state", type=Path, required=True)
    reclaim.add_argument("--notice", type=float, help="seconds; the provider's usual notice where not given")
    commands.add_parser("leftovers", help="list what sandboxes left; exit 1 if anything").add_argument("--tag")
    reap = commands.add_parser("reap")
    reap.add_argument("--tag", required=True)
    reap.add_argument("--state", type=Path, required=True)
    return parser


def _speed(text: str) -> Decimal:
    try:
        speed = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not speed.is_finite() or speed <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return speed


def _carry_tag() -> None:
    """The tag must be in this very process's environment, where a teardown looks: start over with it if need be."""
    if not TAG_PATTERN.fullmatch(os.environ.get(MARKER, "")):
        os.environ[MARKER] = new_tag()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 (this very command line)


def _leftovers(tag: str | None) -> int:
    found = leftovers(tag)
    for leftover in found:
        print(leftover)
    return 1 if found else 0


def _reap(tag: str, state: Path) -> int:
    """Wait until the supervisor is gone; unless it said that it was done, do its teardown."""
    if sys.stdin.buffer.read() == b"done":
        return 0
    return 1 if tear_down(tag, state) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every verb of ``shardwright``; heavy parts are imported when their verb runs."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from engine.cli import (
    bills,
    configure,
    control,
    demo,
    doctor,
    forecast,
    gateway,
    lab,
    market,
    moves,
    network,
    resize,
    sandbox,
    shards,
    storage,
)
from engine.cli.console import err
from engine.cli.failures import LOG_LEVEL, quiet_stdout, shows_tracebacks, tell, translated
from engine.errors import ExitCode, UsageError

app = typer.Typer(
    name="shardwright",
    help="Forecast, buy, reconcile, move and account for compute capacity across providers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(forecast.app, name="forecast")
app.add_typer(configure.app, name="config")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(bills.app, name="bills")
app.add_typer(lab.app, name="lab")
app.add_typer(network.app, name="network")
app.add_typer(storage.app, name="storage")
app.add_typer(gateway.app, name="gateway")
for command in (doctor, demo, control, market, shards, moves, resize):
    command.register(app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("shardwright"))
        raise typer.Exit


@app.callback()
def _common(
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text (as NO_COLOR does).")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if no_color:
        os.environ["NO_COLOR"] = "1"


def run() -> NoReturn:
    """The whole command. Always ends in SystemExit, with a code of ``ExitCode``."""
    _log_to_stderr()
    sys.exit(_run())


def _run() -> int:
    try:
        # Not standalone: typer would print its own errors. It then returns the code of a typer.Exit, 130 for Ctrl-C.
        code = app(prog_name="shardwright", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        quiet_stdout()
        return ExitCode.ERROR
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.CANCELLED
    except Exception as error:
        return _told(error)
    if code == ExitCode.CANCELLED:
        err().print("cancelled")
    return code if isinstance(code, int) else ExitCode.OK


def _told(error: Exception) -> int:
    usage = getattr(error, "format_message", None)  # a usage error of the command line itself
    if usage is not None:
        return _usage_told(error, usage())
    if shows_tracebacks():
        err().print_exception()
    return tell(translated(error))


def _usage_told(error: Exception, message: str) -> int:
    """An empty command line shows the help as it is; anything else says which help to read."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        err().print(message, soft_wrap=True)
    else:
        path = context.command_path if context is not None else "shardwright"
        tell(UsageError(message, next_step=f"{path} --help"))
    return ExitCode.USAGE


def _log_to_stderr() -> None:
    """Warnings and worse; SHARDWRIGHT_LOG_LEVEL (debug, info …) shows more. Nothing but data goes to stdout."""
    import logging

    import structlog

    levels = logging.getLevelNamesMapping()
    level = levels.get(os.environ.get(LOG_LEVEL, "warning").upper(), logging.WARNING)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )

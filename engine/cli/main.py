"""Every verb of ``shardwright``; heavy parts are imported when their verb runs."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from engine.cli import bills, configure, control, demo, doctor, forecast, market, sandbox, shards
from engine.cli.console import err
from engine.errors import ExitCode, ShardwrightError

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
for command in (doctor, demo, control, market, shards):
    command.register(app)


@app.callback()
def _common(
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text (as NO_COLOR does).")] = False,
) -> None:
    if no_color:
        os.environ["NO_COLOR"] = "1"


def run() -> None:
    _log_to_stderr()
    try:
        app(standalone_mode=False)
    except ShardwrightError as error:
        _fail(error)
    except typer.Abort:
        sys.exit(ExitCode.CANCELLED)
    except KeyboardInterrupt:
        err().print("cancelled")
        sys.exit(ExitCode.CANCELLED)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except OSError as error:
        _fail(_system_error(error))
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's own usage errors
        if usage is None:
            raise
        err().print(f"[bold red]error:[/] {usage()}", markup=True)
        sys.exit(ExitCode.USAGE)


def _log_to_stderr() -> None:
    """Warnings and worse; SHARDWRIGHT_LOG_LEVEL (debug, info …) shows more. Nothing but data goes to stdout."""
    import logging

    import structlog

    levels = logging.getLevelNamesMapping()
    level = levels.get(os.environ.get("SHARDWRIGHT_LOG_LEVEL", "warning").upper(), logging.WARNING)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _system_error(error: OSError) -> ShardwrightError:
    where = f" ({error.filename})" if error.filename else ""
    return ShardwrightError(f"{error.strerror or error}{where}", why="the operating system refused", next_step="")


def _fail(error: ShardwrightError) -> NoReturn:
    console = err()
    console.print(f"error: {error.what}", style="bold red", markup=False)
    if error.why:
        console.print(f"why:   {error.why}", markup=False)
    if error.next_step:
        console.print(f"next:  {error.next_step}", markup=False)
    sys.exit(error.exit_code)

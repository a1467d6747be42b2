"""The command line: which commands there are, and how errors become messages and exit codes.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

import bridge
from bridge.commands.check import check
from bridge.commands.demo import demo
from bridge.commands.doctor import doctor
from bridge.commands.parked import parked_app
from bridge.commands.pause import pause, resume
from bridge.commands.plan import plan
from bridge.commands.replay import replay
from bridge.commands.report import report
from bridge.commands.run import run
from bridge.commands.status import status
from bridge.commands.transcode import transcode
from bridge.core.errors import EXIT_BUG, EXIT_DONE, EXIT_INTERRUPTED, BridgeError

app = typer.Typer(
    name="orthanc-bridge",
    help="Moves every new instance from one Orthanc to another, uncompressed, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 a bug, 2 usage or configuration, 3 done but instances are "
    "parked or differences remain, 10 source unreachable, 11 target unreachable, 12 state file "
    "unusable or held, 13 the feed went backwards, 130 interrupted. Settings: BRIDGE_* variables "
    "and .env.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(bridge.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and end."),
    ] = False,
) -> None:
    """Moves every new instance from one Orthanc to another, uncompressed, with proof."""


app.command("run")(run)
app.command("replay")(replay)
app.command("status")(status)
app.add_typer(parked_app, name="parked")
app.command("transcode")(transcode)
app.command("plan")(plan)
app.command("check")(check)
app.command("report")(report)
app.command("doctor")(doctor)
app.command("demo")(demo)
app.command("pause")(pause)
app.command("resume")(resume)


def run_command_line(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
    sys.exit(exit_code_of(arguments))


def exit_code_of(arguments: list[str] | None = None) -> int:
    """Run a command; every error becomes one message on stderr and a documented exit code."""
    code: object = EXIT_DONE
    try:
        code = app(arguments, standalone_mode=False)
    except BridgeError as exc:
        _complain(str(exc))
        code = exc.exit_code
    except typer.Exit as exc:
        code = exc.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except typer.TyperException as exc:
        _complain(f"{exc.format_message()}\nSee orthanc-bridge --help.")
        code = exc.exit_code
    except Exception as exc:  # noqa: BLE001
        # The second of two places that catch everything: a bug must end with its own exit code,
        # and its text may quote values, so only its kind and place are told.
        _complain(
            f"A bug in the bridge: {type(exc).__name__}. Please report it.\n"
            + "".join(traceback.format_tb(exc.__traceback__))
        )
        code = EXIT_BUG
    return code if isinstance(code, int) else EXIT_DONE


def _complain(text: str) -> None:
    typer.echo(f"orthanc-bridge: {text}", err=True)

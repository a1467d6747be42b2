"""The command line: which commands there are, and how errors become messages and exit codes.

Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Annotated, Any

import typer
from typer import completion
from typer.core import TyperGroup

import bridge
from bridge.commands.check import check
from bridge.commands.demo import demo
from bridge.commands.docs import docs
from bridge.commands.doctor import doctor
from bridge.commands.events import events_app
from bridge.commands.init import init
from bridge.commands.output import say
from bridge.commands.parked import parked_app
from bridge.commands.pause import pause, resume
from bridge.commands.plan import plan
from bridge.commands.replay import replay
from bridge.commands.report import report
from bridge.commands.retention import retention
from bridge.commands.rules import rules_app
from bridge.commands.run import run
from bridge.commands.state import state_app
from bridge.commands.status import status
from bridge.commands.studies import studies_app
from bridge.commands.transcode import transcode
from bridge.commands.try_folder import try_
from bridge.commands.unknown_settings import warn_of_unknown_settings
from bridge.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    BridgeError,
    ConfigurationError,
)
from bridge.standard_streams import begin_log_thread
from bridge.untrusted_text import visible

COMPLETION = {
    "--show-completion": completion.show_callback,
    "--install-completion": completion.install_callback,
}
SHELLS = ("bash", "zsh", "fish")


class _Commands(TyperGroup):
    """All commands. Ctrl-C in a command that does not catch it itself is reported here.

    The caller in typer would turn it into an exit code and print nothing.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (see invoke)
        """Parse the options before the command. Those for completion may name a shell.

        typer takes the shell that it was started from, whatever is named, and ends with the exit
        code of a bug where that is none that it can complete in (sh in a script).
        """
        option, _, shell = args[0].partition("=") if args else ("", "", "")
        if option in COMPLETION:
            self._complete_in(ctx, option, shell or (args[1] if len(args) > 1 else None))
        return super().parse_args(ctx, args)

    def _complete_in(self, ctx: Any, option: str, shell: str | None) -> None:  # noqa: ANN401
        param = next(param for param in self.params if option in param.opts)
        if shell is None or shell in SHELLS:
            with suppress(typer.Exit):
                COMPLETION[option](ctx, param, shell or True)
        which = "this shell" if shell is None else f"the shell {shell}"
        raise ConfigurationError(
            f"There is no completion for {which}.",
            advice=f"Name a shell: orthanc-bridge {option} bash (or zsh, or fish).",
        )

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401 (typer keeps the type of it to itself)
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain("interrupted")
            return EXIT_INTERRUPTED


NAME = "orthanc-bridge"
ABOUT = (
    "Deliver every new instance of one Orthanc to a second one, decoded, and prove that it arrived."
)

app = typer.Typer(
    name=NAME,
    cls=_Commands,
    help=ABOUT,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done; 1 bug in the bridge; 2 wrong usage or configuration; 3 done, but "
    "instances are parked or refused, the feed has gaps, or differences remain; 10 source cannot "
    "be used; 11 target cannot be used; 12 state file cannot be used; 13 the source's feed (its "
    "change log) was reset or replaced; 130 interrupted. Settings come from BRIDGE_* variables "
    "and from .env.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(bridge.__version__)
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand == "run":
        begin_log_thread()
    if context.invoked_subcommand != "doctor":  # its findings tell them
        warn_of_unknown_settings()


app.command("init")(init)
app.command("run")(run)
app.command("replay")(replay)
app.command("status")(status)
app.add_typer(parked_app, name="parked")
app.add_typer(state_app, name="state")
app.add_typer(rules_app, name="rules")
app.add_typer(studies_app, name="studies")
app.add_typer(events_app, name="events")
app.command("transcode")(transcode)
app.command("plan")(plan)
app.command("check")(check)
app.command("report")(report)
app.command("retention")(retention)
app.command("doctor")(doctor)
app.command("docs")(docs)
app.command("demo")(demo)
app.command("try")(try_)
app.command("pause")(pause)
app.command("resume")(resume)


@cache
def program() -> Callable[..., object]:
    """Build all commands from their functions: most of the time that a short command takes."""
    return typer.main.get_command(app)


def run_command_line(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
    sys.exit(exit_code_of(arguments))


def exit_code_of(arguments: list[str] | None = None) -> int:
    """Run a command; every error becomes one message on stderr and a documented exit code."""
    code: object = EXIT_DONE
    try:
        code = program()(arguments, standalone_mode=False, prog_name=NAME)
    except BridgeError as exc:
        _complain(visible(str(exc)))
        code = exc.exit_code
    except typer.Exit as exc:
        code = exc.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted")
        code = EXIT_INTERRUPTED
    except typer.TyperException as exc:
        if exc.format_message().startswith("Usage: "):  # nothing was asked for: the help is shown
            say(exc.format_message(), err=True)
            return exc.exit_code
        context = getattr(exc, "ctx", None)  # of a mistake in usage: where it was made
        command = _command_in(arguments) if context is None else context.command_path
        _complain(f"{_plain(exc.format_message())}\nSee {command} --help.")
        code = exc.exit_code
    except Exception as exc:  # noqa: BLE001
        # The second of two places that catch everything: a bug ends with its own exit code. Its
        # text may quote values, so only its class and its place are printed.
        _complain(
            f"A bug in the bridge: {type(exc).__name__}. Please report it.\n"
            + "".join(traceback.format_tb(exc.__traceback__))
        )
        code = EXIT_BUG
    return code if isinstance(code, int) else EXIT_DONE


def _command_in(arguments: list[str] | None) -> str:
    """Return the command that the first words name, as far as they name one."""
    said, command = [NAME], typer.main.get_command(app)
    for word in sys.argv[1:] if arguments is None else arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        said.append(word)
        command = inner
    return " ".join(said)


PLAINER = {
    ": Value error, ": ": ",
    "Input should be a valid integer, unable to parse string as an integer": "not a whole number",
    "Input should be a valid number, unable to parse string as a number": "not a number",
    "Input should be greater than or equal to ": "must not be below ",
    "Input should be less than or equal to ": "must not be above ",
}
"""What typer says of a wrong value, and what we say."""


def _plain(message: str) -> str:
    for said, plainer in PLAINER.items():
        message = message.replace(said, plainer)
    return message


def _complain(text: str) -> None:
    say(f"orthanc-bridge: {text}", err=True)

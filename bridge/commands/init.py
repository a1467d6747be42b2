"""``orthanc-bridge init``: asks for the two servers, tries them, writes the settings."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import EXIT_DONE, BridgeError, ConfigurationError

if TYPE_CHECKING:
    from bridge.model import SideName

TRIAL_TIMEOUT_S = 10.0
AGAIN = "  Try again? (n: keep these answers as they are)"
USUAL_URLS = {"source": "http://127.0.0.1:8042", "target": "http://127.0.0.1:8043"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What was told of one server. ``username`` is "" where it asks for no login."""

    url: str
    username: str
    password: str
    ca_file: str


def init(
    env_file: Annotated[
        Path, typer.Option("--env-file", metavar="FILE", help="Settings file to write.")
    ] = Path(".env"),
    secrets: Annotated[
        Path | None,
        typer.Option(
            "--secrets",
            metavar="FOLDER",
            help="Folder for the password files; default: `secrets` beside the settings file.",
        ),
    ] = None,
) -> int:
    """Ask for both servers, test them and write the settings.

    Writes a commented settings file and one password file for each login, readable only for you.
    Overwrites nothing. Changes nothing on the servers.
    """
    from bridge.commands.docs import env_template
    from bridge.commands.output import say
    from bridge.model import SideName
    from bridge.monitoring.health import counted
    from bridge.own_files import why_not_trusted

    env_file = env_file.absolute()
    folder = (secrets or env_file.parent / "secrets").absolute()
    if env_file.exists():
        raise ConfigurationError(
            f"{env_file} exists already; init overwrites nothing.",
            advice="Edit it, or name another file with --env-file.",
        )
    if not env_file.parent.is_dir():
        raise ConfigurationError(f"There is no folder {env_file.parent}.", advice="Create it.")
    if reason := why_not_trusted(env_file.parent):
        raise ConfigurationError(
            f"The folder {env_file.parent} {reason}.",
            advice="Run init in a folder that only you may write to.",
        )
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "init asks questions and needs a terminal.",
            advice="To write the settings by hand: orthanc-bridge docs configuration.",
        )
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        del os.environ[name]  # other settings stay out of the test
    given: dict[SideName, Answers] = {}
    held = 0
    for side in SideName:
        given[side], count = _settle(side, taken=[answers.url for answers in given.values()])
        held = count if side is SideName.SOURCE else held
    settings = _settings(given, folder)
    if held:
        wanted = typer.confirm(
            f"Deliver what the source holds already ({counted(held, 'instance')})?", default=True
        )
        settings["BRIDGE_START"] = "snapshot" if wanted else "now"
    for side, answers in given.items():
        if answers.username:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(folder / f"{side}-password", answers.password + "\n")
    _write(env_file, filled(env_template(), settings))
    here = env_file == Path(".env").absolute()
    say(f"\nWrote {env_file}.\n\nNext:")
    if not here:
        say(f"  export BRIDGE_ENV_FILE={env_file}")
    say("  orthanc-bridge doctor    check everything, change nothing")
    say("  orthanc-bridge run       deliver; its status page: http://127.0.0.1:8080/")
    say("  orthanc-bridge check     later: compare both servers")
    say("  orthanc-bridge report --study ID    later: show whether a study arrived")
    return EXIT_DONE


def _settle(side: SideName, *, taken: list[str]) -> tuple[Answers, int]:
    """Ask for a server until it works or the person keeps the answers as they are.

    Returns the answers and how many instances the server holds.
    """
    from bridge.commands.output import say
    from bridge.monitoring.health import counted
    from bridge.untrusted_text import visible

    say(f"\nThe {side}: {'where instances come from' if side == 'source' else 'where they go'}")
    suggested = USUAL_URLS[side]
    while True:
        answers = _ask(suggested)
        try:
            if answers.url in taken:
                raise ConfigurationError("This is the address of the source.")
            version, count = _try(side, answers)
        except BridgeError as exc:
            say(f"  Failed: {visible(_without_settings(exc))}")
            if answers.url in taken or typer.confirm(AGAIN, default=True):
                if answers.url not in taken:
                    suggested = answers.url or suggested
                continue
            return answers, 0
        say(f"  OK: Orthanc {visible(version)}, {counted(count, 'instance')}")
        return answers, count


ASKED = {
    "URL": "the address",
    "USERNAME": "the user name",
    "PASSWORD": "the password",
    "CA_FILE": "the CA certificate file",
}
"""What the questions call these settings, which are not written yet."""


def _without_settings(exc: BridgeError) -> str:
    """Say what failed, in the words of the questions instead of the names of settings."""
    from bridge.errors import SideError
    from bridge.model import SideProblem

    refused = isinstance(exc, SideError) and exc.problem is SideProblem.LOGIN_REFUSED
    said = f"{exc.message} Check the user name and the password." if refused else str(exc)
    setting = rf"BRIDGE_(?:SOURCE|TARGET)_({'|'.join(ASKED)})\b"
    said = re.sub(setting, lambda name: ASKED[name[1]], said)
    return said[:1].upper() + said[1:]


def _ask(suggested: str) -> Answers:
    from bridge.commands.output import say
    from bridge.config import checked_url

    while True:
        try:
            url = checked_url(typer.prompt("  Address of its REST API", default=suggested))
            break
        except ValueError as exc:
            say(f"  The address {exc}.")
    ca_file = ""
    if url.startswith("https:"):
        ca_file = typer.prompt("  CA certificate file (empty: those of the system)", default="")
    username = typer.prompt("  User name (empty: no login)", default="", show_default=False)
    password = typer.prompt("  Password", hide_input=True) if username else ""
    return Answers(url, username.strip(), password, ca_file.strip())


def _try(side: SideName, answers: Answers) -> tuple[str, int]:
    """Ask the server for its version and its number of instances. Raises BridgeError."""
    from bridge.model import Endpoint
    from bridge.orthanc.session import SideClient

    # Credentials are looked up in the environment where they are used: this process's alone.
    login = {"USERNAME": answers.username, "PASSWORD": answers.password}
    for name, value in login.items():
        os.environ[f"BRIDGE_{side.upper()}_{name}"] = value
    endpoint = Endpoint(
        side=side, url=answers.url, ca_file=answers.ca_file or None, timeout_s=TRIAL_TIMEOUT_S
    )
    client = SideClient(endpoint)
    try:
        return client.system().version, client.count_instances()
    finally:
        client.close()
        for name in login:
            del os.environ[f"BRIDGE_{side.upper()}_{name}"]


def _settings(given: dict[SideName, Answers], folder: Path) -> dict[str, str]:
    settings = {}
    for side, answers in given.items():
        prefix = f"BRIDGE_{side.upper()}_"
        settings[f"{prefix}URL"] = answers.url
        if answers.ca_file:
            settings[f"{prefix}CA_FILE"] = str(Path(answers.ca_file).absolute())
        if answers.username:
            settings[f"{prefix}USERNAME"] = answers.username
            settings[f"{prefix}PASSWORD_FILE"] = str(folder / f"{side}-password")
    return settings


def filled(template: str, settings: dict[str, str]) -> str:
    """Return a settings file: the template with these values in the place of its own.

    Raises ConfigurationError for a value that a line of the file cannot hold.
    """
    lines = template.splitlines()
    for name, value in settings.items():
        if not value.isprintable() or "'" in value:
            raise ConfigurationError(
                f"{name} contains a character that the settings file cannot hold.",
                advice="Set it in the environment instead.",
            )
        at = next(i for i, line in enumerate(lines) if line.lstrip("#").startswith(f"{name}="))
        lines[at] = f"{name}='{value}'"
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    """Write a new file that only this user may read. Raises ConfigurationError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(
            f"{path} exists already; init overwrites nothing.",
            advice="Remove it, or name another folder with --secrets.",
        ) from None
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc.strerror}.") from exc

"""Write the manual page and the shell completions from the command line itself.

    make docs        writes packaging/orthanc-bridge.1 and packaging/completions/
    tests/unit/test_man_page.py calls the same functions and compares

The wheel and the Debian package bring them. Every text is that of --help.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from bridge.cli import ABOUT, NAME, app

ROOT = Path(__file__).resolve().parents[1]
PAGE_PATH = ROOT / "packaging" / f"{NAME}.1"
COMPLETIONS = {
    "bash": ROOT / "packaging" / "completions" / f"{NAME}.bash",
    "zsh": ROOT / "packaging" / "completions" / f"_{NAME}",
    "fish": ROOT / "packaging" / "completions" / f"{NAME}.fish",
}
FILES = (
    ("BRIDGE_*", "Settings, in the environment or in .env. All of them: orthanc-bridge docs "
     "configuration."),
    (".env", "Settings, in the directory that the bridge is started in. Another file: "
     "BRIDGE_ENV_FILE."),
)  # fmt: skip


def escaped(text: str) -> str:
    """Write text so that roff takes none of it for a request or a hyphen."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (typer's)
    """List every command with its whole name, those of a group after each other."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def _parameter(parameter: Any, context: Any) -> tuple[str, str]:  # noqa: ANN401 (typer's)
    """Return how --help shows a parameter, and what it says of it."""
    shown, told = parameter.get_help_record(context) or ("", "")
    return " ".join(shown.split()), " ".join(told.split())


def page() -> str:
    """Return the manual page."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root, info_name=NAME)
    lines = [
        f'.TH {NAME.upper().replace("-", chr(92) + "-")} 1 "" "{NAME}" "User Commands"',
        ".SH NAME",
        f"{escaped(NAME)} \\- {escaped(ABOUT[0].lower() + ABOUT[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {escaped(NAME)}",
        "COMMAND [OPTIONS] [ARGUMENTS]",
        ".SH COMMANDS",
    ]
    for name, command in commands(root):
        inner = typer.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [f".SS {escaped(f'{NAME} {name} {usage}')}"]
        for paragraph in _paragraphs(command.help or ""):
            lines += [escaped(paragraph), ".PP"]
        for parameter in command.get_params(inner):
            shown, told = _parameter(parameter, inner)
            if shown and "--help" not in shown:
                lines += [".TP", f".B {escaped(shown)}", escaped(told)]
    codes = re.sub(r"^Exit codes: ", "", _paragraphs(root.epilog)[0]).partition(" Settings ")[0]
    lines += [".SH EXIT STATUS"]
    for part in codes.rstrip(".").split("; "):
        number, _, meaning = part.partition(" ")
        lines += [".TP", f".B {number}", escaped(meaning)]
    lines += [".SH FILES AND ENVIRONMENT"]
    for name, meaning in FILES:
        lines += [".TP", f".B {escaped(name)}", escaped(meaning)]
    lines += [".SH SEE ALSO", escaped(f"All pages of the documentation: {NAME} docs"), ""]
    return "\n".join(lines)


def completion(shell: str) -> str:
    """Return the script that completes the command in a shell, as the program prints it."""
    told = subprocess.run(
        [sys.executable, "-c", "from bridge.cli import run_command_line; run_command_line()"],
        env={**os.environ, "_ORTHANC_BRIDGE_COMPLETE": f"source_{shell}"},
        check=True,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip() + "\n"


def main() -> int:
    """Write all files."""
    PAGE_PATH.write_text(page(), "utf-8")
    for shell, path in COMPLETIONS.items():
        path.write_text(completion(shell), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write the settings into docs/configuration.md and .env.example, from bridge.config.

    make docs        writes both files
    tests/unit/test_docs.py calls the same functions and compares

The description of a field in bridge.config.Settings is its documentation; only secrets, which
are not fields, are described here.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from bridge.config import SECRETS, Settings, variable_of
from bridge.credentials import POKE_TOKEN
from bridge.values import WORKERS_BEYOND_CPUS

ROOT = Path(__file__).resolve().parents[1]
TABLE_PATH = ROOT / "docs" / "configuration.md"
EXAMPLE_PATH = ROOT / ".env.example"
BEGIN = "<!-- settings: written by make docs -->"
END = "<!-- settings: end -->"

EXAMPLE_WIDTH = 98
EXAMPLE_URLS = {
    "source_url": "http://127.0.0.1:8042",
    "target_url": "http://127.0.0.1:8043",
}
SECRET_MEANINGS = {
    "USERNAME": "User name for HTTP basic authentication at the {side}.",
    "PASSWORD": "Password of that user.",
    "TOKEN": "Bearer token for the {side}, instead of a user name and a password.",
}
POKE_MEANING = (
    "Token that a POST to /poke must bring (docs/poke.md), 16 characters or more; without it "
    "nobody can poke."
)
EXAMPLE_HEAD = """\
# The settings of orthanc-bridge, each with its default. Written by 'make docs'.
#
# Copy this file to .env in the directory that the bridge is started in, and change what differs.
# The environment wins over .env. docs/configuration.md says more.
"""
EXAMPLE_SECRETS = """\

# Secrets. Each can be given by a file instead, whose only line is the secret: name the file in
# the variable that ends in _FILE. Prefer that: environments are easily read by others.
"""


def accepted(field: FieldInfo) -> str:
    """Say which values a field takes, as far as its type tells."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    low = high = ""
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            low = f"{rule.ge}"
        elif isinstance(rule, annotated_types.Gt):
            low = f"more than {rule.gt}"
        elif isinstance(rule, annotated_types.Le):
            high = f"{rule.le}"
    if low and high:
        return f"{low} to {high}"
    if low:
        return low if low.startswith("more") else f"{low} or more"
    return ""


def default(name: str, field: FieldInfo) -> str:
    """Return the default as it would be written, "" when there is none to write."""
    if field.is_required() or field.default is None or name == "workers":
        return ""
    return str(field.default)


def table() -> str:
    """Return the Markdown table of every setting that is not a secret."""
    lines = ["| variable | default | accepts | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        shown = f"`{default(name, field)}`" if default(name, field) else "none"
        if field.is_required():
            shown = "**required**"
        elif name == "workers":
            shown = f"number of CPUs + {WORKERS_BEYOND_CPUS}"
        lines.append(
            f"| `{variable_of(name)}` | {shown} | {accepted(field)} | {field.description} |"
        )
    return "\n".join(lines)


def comment(text: str) -> str:
    """Return the text as comment lines of a bounded width."""
    lines = textwrap.wrap(text, EXAMPLE_WIDTH, initial_indent="# ", subsequent_indent="# ")
    return "\n".join(lines) + "\n"


def example() -> str:
    """Return the text of .env.example."""
    parts = [EXAMPLE_HEAD]
    for name, field in Settings.model_fields.items():
        takes = accepted(field)
        # The descriptions name the words that a setting takes; they leave out its limits.
        limits = f" ({takes})" if takes and "`" not in takes else ""
        parts.append("\n" + comment(f"{field.description}{limits}"))
        if name in EXAMPLE_URLS:
            parts.append(f"{variable_of(name)}={EXAMPLE_URLS[name]}\n")
        else:
            parts.append(f"#{variable_of(name)}={default(name, field)}\n")
    parts.append(EXAMPLE_SECRETS)
    for secret in SECRETS:
        side = "source" if "_SOURCE_" in secret else "target"
        meaning = SECRET_MEANINGS[secret.rpartition("_")[2]].format(side=side)
        if secret == POKE_TOKEN:
            meaning = POKE_MEANING
        parts.append(f"\n# {meaning}\n#{secret}=\n#{secret}_FILE=\n")
    return "".join(parts)


def with_table(text: str) -> str:
    """Return the text of docs/configuration.md with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{TABLE_PATH} has lost its marks: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Write both files."""
    TABLE_PATH.write_text(with_table(TABLE_PATH.read_text("utf-8")), "utf-8")
    EXAMPLE_PATH.write_text(example(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

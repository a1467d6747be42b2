"""``orthanc-bridge docs``: the pages of this version, without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import bridge
from bridge.errors import EXIT_DONE, ConfigurationError

PACKAGE = Path(bridge.__file__).parent
PACKAGED = PACKAGE / "docs"
"""Where an installed package has the pages (pyproject.toml, force-include)."""
PLACES_MAX = 8
"""Sections that are listed where no heading has a word."""


def pages() -> dict[str, Path]:
    """Every page by its topic: the file's name in small letters, without its ending."""
    installed = PACKAGED.is_dir()
    folder = PACKAGED if installed else PACKAGE.parent / "docs"
    front = folder if installed else PACKAGE.parent
    first, last = front / "README.md", front / "CHANGELOG.md"
    between = [*sorted(folder.glob("*.md")), *sorted(folder.glob("reference/*.md"))]
    files = [first, *(file for file in between if file not in (first, last)), last]
    return {file.stem.lower(): file for file in files if file.is_file()}


def env_template() -> str:
    """Return the text of .env.example: every setting with its default, commented."""
    installed = PACKAGED / "env.example"
    path = installed if installed.is_file() else PACKAGE.parent / ".env.example"
    return path.read_text("utf-8")


def docs(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="[TOPIC]",
            help="Page to print; without it, all are listed. Any other word: the sections that "
            "are about it are listed.",
        ),
    ] = "",
    section: Annotated[
        str,
        typer.Argument(metavar="[SECTION]", help="Print only sections with this in the heading."),
    ] = "",
) -> int:
    """Print the documentation of this version, offline.

    Messages name the page to read, for example: orthanc-bridge docs operations
    """
    from bridge.commands.output import print_table, say

    known = pages()
    if not topic:
        print_table(("TOPIC", "PAGE"), [(name, title(file)) for name, file in known.items()])
        return EXIT_DONE
    name = topic.lower().removeprefix("docs/").removesuffix(".md")
    if name not in known:
        found = [] if section else places(known, topic)
        if not found:
            raise ConfigurationError(
                f"There is no page {topic}.", advice="All pages: orthanc-bridge docs"
            )
        print_table(("TOPIC", "SECTION"), found)
        return EXIT_DONE
    text = known[name].read_text("utf-8")
    if section:
        text = "\n".join(sections(text, section))
        if not text:
            raise ConfigurationError(
                f"The page {name} has no heading that contains {section!r}.",
                advice=f"The whole page: orthanc-bridge docs {name}",
            )
    say(text.rstrip())
    return EXIT_DONE


def title(page: Path) -> str:
    """Return the heading of a page."""
    with page.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), "")


def places(known: Mapping[str, Path], word: str) -> list[tuple[str, str]]:
    """List where a word stands, in any case: page and section.

    Those sections (headings of level 2) that have it in their heading, or else those that have it
    most often in their text.
    """
    named, counted = [], []
    for name, file in known.items():
        for part in _parts(file.read_text("utf-8")):
            heading, _, text = part.partition("\n")
            place = (name, heading.removeprefix("## "))
            if word.lower() in heading.lower():
                named.append(place)
            elif count := text.lower().count(word.lower()):
                counted.append((-count, place))
    return named or [place for _, place in sorted(counted)[:PLACES_MAX]]


def sections(text: str, wanted: str) -> list[str]:
    """Return the sections (headings of level 2) whose heading has ``wanted``, in any case."""
    return [part for part in _parts(text) if wanted.lower() in part.partition("\n")[0].lower()]


def _parts(text: str) -> list[str]:
    return re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]

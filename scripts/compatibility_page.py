"""docs/compatibility.md: each check of what the bridge runs with writes its own section."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

PAGE_PATH = Path(__file__).resolve().parents[1] / "docs" / "compatibility.md"


class PageBroken(Exception):
    """The page has lost the marks between which a section is written."""


def replace_section(text: str, name: str, section: str) -> str:
    """Return the page with what stands between the marks of ``name`` replaced."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise PageBroken(f"the page has lost its marks: {begin} and {end}")
    return f"{before}{begin}\n{section.strip()}\n{end}{after}"


def write_section(name: str, section: str) -> None:
    """Write one section of the page. Raises PageBroken."""
    PAGE_PATH.write_text(replace_section(PAGE_PATH.read_text("utf-8"), name, section), "utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def when_and_where() -> str:
    """Tell date and class of machine, as every figure in the documentation does."""
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{today:%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores"

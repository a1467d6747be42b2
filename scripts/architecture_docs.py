"""Write what docs/architecture.md shows of the tree: the picture and the table of rooms.

python -m scripts.architecture_docs         writes docs/images/flow.svg and the table
tests/unit/test_architecture_docs.py        calls the same functions and compares

The table has its sentences from the head of bridge/__init__.py and its imports from the code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

import bridge

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "flow.svg"

# The table


def rooms() -> dict[str, str]:
    """Every room and file of bridge/ and what it does, in the order of its head."""
    listed = re.findall(r"^([\w/]+(?:/|\.py)) +(.+)$", bridge.__doc__ or "", re.M)
    return dict(listed)


VALUES = ("model", "errors", "events", "untrusted_text", "bridge")
"""Everybody may know these: they are not told in the table."""


@cache
def _imports() -> dict[str, set[str]]:
    import grimp  # a package for development; the picture needs none

    graph = grimp.build_graph("bridge", cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        room = module.split(".")[1] if "." in module else module
        imported = graph.find_modules_directly_imported_by(module)
        names = {name.split(".")[1] if "." in name else name for name in imported}
        found.setdefault(room, set()).update(names - {room, *VALUES})
    return found


def table() -> str:
    """What stands where, what it does, and which other rooms it imports."""
    lines = ["| room or file | does | imports |", "|---|---|---|"]
    names = {re.sub(r"/$|\.py$", "", name): name for name in rooms()}
    for plain, name in names.items():
        imported = _imports().get(plain, set())
        knows = ", ".join(f"`{shown}`" for other, shown in names.items() if other in imported)
        lines.append(f"| `{name}` | {rooms()[name]} | {knows or 'nothing'} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Put the table between its marks."""
    begin, end = "<!-- rooms: generated -->\n", "\n<!-- rooms: end -->"
    head, rest = page.split(begin)
    return f"{head}{begin}{table()}{end}{rest.split(end)[1]}"


# The picture


@dataclass(frozen=True, slots=True)
class Box:
    """A server or a room: its middle, its name, and what it does in few words."""

    x: int
    y: int
    name: str
    says: tuple[str, ...]
    kind: str = "room"
    width: int = 150
    height: int = 74


BOXES = (
    Box(90, 150, "source", ("Orthanc", "that is followed"), "server"),
    Box(300, 150, "feed/", ("gaps, late rows,", "still the same feed?")),
    Box(510, 150, "pipeline/", ("what starts,", "what follows")),
    Box(740, 150, "worker/", ("fetch, transcode,", "deliver, prove"), width=170),
    Box(970, 150, "target", ("Orthanc", "that gets the instances"), "server", width=170),
    Box(300, 300, "monitoring/", ("/health, metrics,", "status page, log")),
    Box(510, 300, "ledger/", ("settled, parked,", "checkpoint")),
    Box(690, 300, "orthanc/", ("REST",), width=90),
    Box(800, 300, "dicom/", ("bytes",), width=90),
    Box(510, 420, "retention/", ("delivered, proved", "and old enough")),
)
# From, to, the words on it and where they stand.
ARROWS = (
    ("M165,150 H223", "changes", 194, 140),
    ("M375,150 H433", "moves", 404, 140),
    ("M585,138 H653", "task", 619, 129),
    ("M655,164 H587", "outcome", 620, 182),
    ("M825,150 H883", "files", 854, 140),
    ("M90,113 V50 H740 V111", "files: they go to workers only", 415, 41),
    ("M510,187 V261", "one transaction", 566, 229),
    ("M455,187 L345,261", "events", 372, 218),
    ("M715,187 L697,261", "", 0, 0),
    ("M770,187 L793,261", "uses", 743, 229),
    ("M510,337 V381", "", 0, 0),
    ("M435,420 H90 V189", "deletes, if BRIDGE_SOURCE_RETENTION is set", 265, 411),
)
STYLE = """
  .room { fill: #f5f7f9; stroke: #5b6975; } .server { fill: #e3eefa; stroke: #0b5cad; }
  .name { fill: #16202b; font-weight: 600; font-size: 15px; } .says { fill: #3d4a56; }
  .arrow { fill: none; stroke: #3d4a56; stroke-width: 1.5; } .tip { fill: #3d4a56; }
  .paper { fill: #ffffff; }
  text { font: 13px system-ui, sans-serif; text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    .room { fill: #1a222b; stroke: #8a98a5; } .server { fill: #12304f; stroke: #7cb8f5; }
    .name { fill: #e9eef3; } .says { fill: #c3ced8; }
    .arrow { stroke: #c3ced8; } .tip { fill: #c3ced8; } .paper { fill: #11161c; }
  }
"""


def picture() -> str:
    """Draw the flow of an instance as SVG, readable on a light and on a dark page."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1070 470" role="img" '
        'aria-labelledby="title">',
        '<title id="title">From source to target: feed/, pipeline/, worker/, with ledger/, '
        "orthanc/ and dicom/ below them</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path class="tip" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        '<rect class="paper" width="1070" height="470"/>',
    ]
    for path, words, x, y in ARROWS:
        parts.append(f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>')
        if words:
            parts.append(f'<text class="says" x="{x}" y="{y}">{escape(words)}</text>')
    for box in BOXES:
        parts.append(
            f'<rect class="{box.kind}" x="{box.x - box.width // 2}" y="{box.y - box.height // 2}" '
            f'width="{box.width}" height="{box.height}" rx="6"/>'
        )
        top = box.y - 9 * len(box.says) + 5
        parts.append(f'<text class="name" x="{box.x}" y="{top}">{escape(box.name)}</text>')
        parts += [
            f'<text class="says" x="{box.x}" y="{top + 18 * (line + 1)}">{escape(words)}</text>'
            for line, words in enumerate(box.says)
        ]
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Write both."""
    PICTURE.write_text(picture(), "utf-8")
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()

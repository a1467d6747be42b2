"""The demo's result: one row an instance, as a table for people or JSON for scripts."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TextIO

from rich.console import Console
from rich.table import Table

from bridge.dicom.syntaxes import syntax_of
from bridge.model import StageTimes
from bridge.standard_streams import told_if_lost
from bridge.untrusted_text import visible

SHORTER = (
    ("ExplicitVR", "Explicit"),
    ("ImplicitVR", "Implicit"),
    ("LittleEndian", "LE"),
    ("BigEndian", "BE"),
    ("EncapsulatedUncompressedExplicitLE", "EncapsulatedUncompressed"),
    ("DeflatedImageFrameCompression", "DeflatedImageFrame"),
)
"""Applied in this order to the DICOM keyword of a transfer syntax."""

REFUSED_BY_SOURCE = "refused by source"
DELIVERED = "delivered"

COLUMNS = (
    "instance", "before", "after", "bytes before", "bytes after",
    "fetch ms", "transcode ms", "deliver ms", "prove ms", "pixels equal", "compared with",
)  # fmt: skip
NUMERIC = frozenset(range(3, 9))


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one instance.

    ``state`` is ``delivered``, or in a few words why not. ``pixels_equal`` is None when there are
    no pixels, or nothing to compare. ``after`` and ``bytes_after`` are read from what the target
    holds. Syntaxes are UIDs, sizes bytes.
    """

    name: str
    state: str
    before: str
    bytes_before: int
    after: str = ""
    bytes_after: int = 0
    stages: StageTimes = field(default_factory=StageTimes)
    pixels_equal: bool | None = None
    compared_with: str = ""
    largest_difference: int = 0
    decoder: str = ""
    problems: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """False for what the source itself would not take: no concern of the bridge."""
        return self.state != REFUSED_BY_SOURCE

    @property
    def right(self) -> bool:
        """Delivered, and nothing about it is wrong."""
        return self.state == DELIVERED and not self.problems and self.pixels_equal is not False


def short_syntax(uid: str) -> str:
    """Return a short name of a transfer syntax: its DICOM keyword, abbreviated."""
    if not uid:
        return "-"
    name = syntax_of(uid).keyword
    for long, short in SHORTER:
        name = name.replace(long, short)
    return name


def all_right(rows: Sequence[Row]) -> bool:
    """Whether every instance that the source took arrived and is right; False for none at all."""
    counted = [row for row in rows if row.counted]
    return bool(counted) and all(row.right for row in counted)


def summary(rows: Sequence[Row], took_s: float) -> str:
    """Return the one line at the end."""
    counted = [row for row in rows if row.counted]
    pixels = Counter(row.pixels_equal for row in counted if row.state == DELIVERED)
    syntaxes = len({row.before for row in counted})
    parts = [
        f"{len(counted)} instances in {syntaxes} transfer syntaxes",
        f"{sum(row.state == DELIVERED for row in counted)} delivered",
        f"{pixels[True]} with equal pixels",
        f"{pixels[None]} without pixels",
        f"{sum(not row.right for row in counted)} wrong",
    ]
    refused = len(rows) - len(counted)
    if refused:
        parts.append(f"{refused} refused by the source and not counted")
    return f"{', '.join(parts)}; took {took_s:.1f} s"


def print_rows(rows: Sequence[Row], took_s: float, *, stream: TextIO | None = None) -> None:
    """Print the table and the summary: with rich on a terminal, else aligned plain text."""
    out = stream or sys.stdout
    cells = [_cells(row) for row in rows]
    with told_if_lost():
        if out.isatty():
            _print_rich(cells, rows, out)
        else:
            _print_plain(cells, out)
        for row in rows:
            for problem in row.problems:
                out.write(visible(f"{row.name}: {problem}") + "\n")
        out.write(summary(rows, took_s) + "\n")


def print_rows_as_json(rows: Sequence[Row], *, stream: TextIO | None = None) -> None:
    """Print the rows as a JSON list of objects."""
    listed = [
        {
            **asdict(row),
            "before_name": syntax_of(row.before).keyword,
            "after_name": syntax_of(row.after).keyword if row.after else "",
            "right": row.right,
        }
        for row in rows
    ]
    with told_if_lost():
        json.dump(listed, stream or sys.stdout, indent=2)
        (stream or sys.stdout).write("\n")


def _cells(row: Row) -> tuple[str, ...]:
    stages = row.stages
    times = (stages.fetch_s, stages.transcode_s, stages.deliver_s, stages.prove_s)
    delivered = row.state == DELIVERED
    equal = {True: "yes", False: "NO", None: "-"}[row.pixels_equal] if delivered else row.state
    if delivered and row.problems and row.pixels_equal is not False:
        equal += ", but"  # the problems follow the table
    return (
        row.name,
        short_syntax(row.before),
        short_syntax(row.after),
        str(row.bytes_before),
        str(row.bytes_after) if delivered else "-",
        *(f"{time * 1000:.1f}" if delivered else "-" for time in times),
        equal,
        row.compared_with,
    )


def _print_plain(cells: Sequence[Sequence[str]], out: TextIO) -> None:
    widths = [max(len(line[at]) for line in [COLUMNS, *cells]) for at in range(len(COLUMNS))]
    for line in [COLUMNS, *cells]:
        padded = (
            text.rjust(width) if at in NUMERIC else text.ljust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        out.write("  ".join(padded).rstrip() + "\n")


def _print_rich(cells: Sequence[Sequence[str]], rows: Sequence[Row], out: TextIO) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(COLUMNS):
        table.add_column(title, justify="right" if at in NUMERIC else "left")
    for line, row in zip(cells, rows, strict=True):
        style = "dim" if not row.counted else None if row.right else "bold red"
        table.add_row(*line, style=style)
    Console(file=out, markup=False, highlight=False).print(table)

"""How commands print: tables for people, JSON for programs, both on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import typer

from bridge.summary import Summary


def print_json(value: object) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values, aligned."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        typer.echo(f"{name:<{width}}  {'-' if value in (None, '') else value}")


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a header, columns aligned."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def on_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()


def moment(epoch_s: float) -> str:
    """Write a time of the epoch as UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def summary_fields(summary: Summary) -> dict[str, object]:
    """Return a summary as JSON-ready values."""
    return {
        "delivered": summary.delivered,
        "already_there": summary.already_there,
        "skipped": dict(summary.skipped),
        "parked": dict(summary.parked),
        "abandoned": summary.abandoned,
        "interrupted": summary.stopped,
    }


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Print what a command did."""
    if as_json:
        print_json(summary_fields(summary))
        return
    print_pairs(
        {
            "delivered": summary.delivered,
            "already there": summary.already_there,
            "skipped": _counted(summary.skipped),
            "parked": _counted(summary.parked),
        }
    )
    if summary.abandoned:
        typer.echo(f"interrupted with {summary.abandoned} instances unfinished")


def _counted(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    if not total:
        return "0"
    parts = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    return f"{total} ({parts})"

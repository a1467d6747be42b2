"""How commands print: tables for people, JSON for programs, both on stdout."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import typer

from bridge.dicom.syntaxes import keyword_of
from bridge.events import Summary
from bridge.model import Reason
from bridge.monitoring.health import counted
from bridge.standard_streams import told_if_lost
from bridge.untrusted_text import visible, visible_lines


def say(text: str = "", *, err: bool = False, end: str = "\n") -> None:
    """Print text for people: the one place where a command writes to a terminal.

    Servers, files and other users have chosen some of it: what acts on a terminal is written out.
    Its line breaks are ours; what comes from outside goes through ``visible`` before.
    """
    with told_if_lost():
        typer.echo(visible_lines(text) + end, err=err, nl=False)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=2, default=str))


def print_pairs(pairs: Mapping[str, object]) -> None:
    """Print names and values, aligned."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
        shown = "-" if value in (None, "") else visible(text)
        say(f"{visible(name):<{width}}  {shown}")


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a header, columns aligned."""
    lines = [[visible(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        say("  ".join(cells).rstrip())


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
        "present": summary.present,
        "skipped": dict(summary.skipped),
        "parked": dict(summary.parked),
        "gaps": summary.gaps,
        "abandoned": summary.abandoned,
        "interrupted": summary.stopped,
        **({"would_be": dict(summary.would)} if summary.dry_run else {}),
    }


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Print what a command did."""
    if as_json:
        print_json(summary_fields(summary))
        return
    if summary.dry_run:
        _print_dry_run(summary)
    else:
        print_pairs(
            {
                "delivered": summary.delivered,
                "already there": summary.already_there,
                **({"not sent, at the target": summary.present} if summary.present else {}),
                "skipped": _counted(summary.skipped),
                "parked": _counted(summary.parked),
            }
        )
    if summary.gaps:
        say(
            f"{summary.gaps} sequences of the feed have no row yet. They may be instances that "
            "become visible later, or nothing. See: orthanc-bridge docs operations gaps."
        )
    if summary.stopped:
        left = f" with {counted(summary.abandoned, 'instance')} in progress" * bool(
            summary.abandoned
        )
        say(f"interrupted{left}: only what is listed above is done")


def _print_dry_run(summary: Summary) -> None:
    """Print what would have been done, in words that cannot be taken for what was done."""
    say("dry run: nothing was moved")
    gone = summary.skipped[Reason.GONE]
    print_pairs(
        {f"would be {word}": count for word, count in sorted(summary.would.items())}
        | ({"would not be sent, at the target": summary.present} if summary.present else {})
        | ({"deleted at the source": gone} if gone else {})
        | ({"cannot be predicted": _counted(summary.parked)} if summary.parked else {})
    )


def _counted(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    if not total:
        return "0"
    parts = ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))
    return f"{total} ({parts})"


# Results of any length, as a table, JSON or CSV, row by row: nothing is gathered in memory.

TABLE_ROWS_MAX = 50
"""Rows shown to a person; the other formats have all of them."""
CSV_END = "\r\n"
"""RFC 4180."""

SYNTAX_COLUMNS = ("source_syntax", "target_syntax")

Row = Mapping[str, object]


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def chosen_format(wanted: Format, *, as_json: bool) -> Format:
    """Let ``--json`` stand for ``--format json``."""
    return Format.JSON if as_json else wanted


def print_result(
    how: Format,
    *,
    summary: Mapping[str, object],
    name: str,
    rows: Iterable[Row],
    columns: Sequence[str],
    matters: Callable[[Row], bool] = lambda _: True,
) -> None:
    """Print a summary and rows; ``name`` is what the rows are called in JSON.

    A CSV has the rows alone on stdout; its summary goes to stderr. A table, which has not room for
    all, begins with those that matter; it is for people and names transfer syntaxes by keyword,
    where the others have the UIDs.
    """
    match how:
        case Format.JSON:
            _print_json(summary, name, rows)
        case Format.CSV:
            _print_csv(rows, columns)
            text = ", ".join(f"{key} {value}" for key, value in _for_people(summary).items())
            say(visible(text), err=True)
        case Format.TABLE:
            _print_table(rows, columns, matters)
            print_pairs(_for_people(summary))


def _for_people(summary: Mapping[str, object]) -> dict[str, object]:
    """Return a summary as text. The counts of what was found, by kind, get a clearer name."""
    told: dict[str, object] = {}
    for key, value in summary.items():
        if key == "found":
            told["findings"] = _cell(value) if value else "none"
        else:
            told[key] = value if isinstance(value, bool) else _cell(value)
    return told


def _print_json(summary: Mapping[str, object], name: str, rows: Iterable[Row]) -> None:
    head = json.dumps({"summary": summary}, indent=2, default=str)
    say(f'{head[:-2]},\n  "{name}": [', end="")
    for number, row in enumerate(rows):
        comma = "," if number else ""
        say(f"{comma}\n    {json.dumps(row, default=str)}", end="")
    say("\n  ]\n}")


def _print_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    say(_csv_line([visible(column) for column in columns]), end=CSV_END)
    for row in rows:
        say(_csv_line([visible(_cell(row.get(column))) for column in columns]), end=CSV_END)


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _print_table(
    rows: Iterable[Row], columns: Sequence[str], matters: Callable[[Row], bool]
) -> None:
    first: list[Row] = []
    others: list[Row] = []
    total = 0
    for row in rows:
        total += 1
        kept = first if matters(row) else others
        if len(kept) < TABLE_ROWS_MAX:
            kept.append(row)
    shown = [*first, *others][:TABLE_ROWS_MAX]
    if not shown:
        return
    header = [column.replace("_", " ").upper() for column in columns]
    print_table(header, ([_shown(column, row) for column in columns] for row in shown))
    more = total - len(shown)
    if more:
        say(f"... and {more} more: --format csv and --format json list all of them")
    say()


def _shown(column: str, row: Row) -> str:
    text = _cell(row.get(column))
    return (keyword_of(text) if column in SYNTAX_COLUMNS else text) or "-"


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case Mapping():
            return ", ".join(f"{key}: {count}" for key, count in value.items()) or "0"
        case _:
            return str(value)

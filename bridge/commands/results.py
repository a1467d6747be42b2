"""Results of any length, as a table, JSON or CSV, row by row: nothing is gathered in memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

import typer

from bridge.commands.output import print_pairs, print_table

TABLE_ROWS_MAX = 50
"""Rows shown to a person; the other formats have all of them."""

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
    all, begins with those that matter.
    """
    match how:
        case Format.JSON:
            _print_json(summary, name, rows)
        case Format.CSV:
            _print_csv(rows, columns)
            text = ", ".join(f"{key} {_cell(value)}" for key, value in summary.items())
            typer.echo(text, err=True)
        case Format.TABLE:
            _print_table(rows, columns, matters)
            print_pairs({key: _cell(value) for key, value in summary.items()})


def _print_json(summary: Mapping[str, object], name: str, rows: Iterable[Row]) -> None:
    head = json.dumps({"summary": summary}, indent=2, default=str)
    typer.echo(f'{head[:-2]},\n  "{name}": [', nl=False)
    for number, row in enumerate(rows):
        comma = "," if number else ""
        typer.echo(f"{comma}\n    {json.dumps(row, default=str)}", nl=False)
    typer.echo("\n  ]\n}")


def _print_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    typer.echo(_csv_line(columns), nl=False)
    for row in rows:
        typer.echo(_csv_line([_cell(row.get(column)) for column in columns]), nl=False)


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
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
    print_table(header, ([_cell(row.get(column)) or "-" for column in columns] for row in shown))
    more = total - len(shown)
    if more:
        typer.echo(f"... and {more} more: --format csv and --format json list all of them")
    typer.echo()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case Mapping():
            return ", ".join(f"{key}: {count}" for key, count in value.items()) or "0"
        case _:
            return str(value)

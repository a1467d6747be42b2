"""``make mutants-tables``: are the rows of tables held by tests?

mutmut leaves alone what stands outside functions. Here each row of each table of a part is left
out, exchanged with the next one, or changed (a word, a number, a flag, the private function that
makes it), one at a time, and the part's tests are run against it, in a fork of this process that
reads the changed text in place of the file. The working tree is not touched. Processes that a test
starts read the file as it is. A run that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import TypeGuard

from tests.mutants.__main__ import (
    REPOSITORY,
    SURVIVED,
    WORK,
    Survivor,
    explanations,
    files_of,
    is_explained,
    note_tables,
    tests_of,
)
from tests.mutants.modules import PARTS

NOTES = WORK / "tables.json"
"""By the changed text: that it was noticed, or the digest of the tests that it survived."""
NOTICED = "noticed"
HEAVY = ("hypothesis", "imagecodecs", "numpy", "pydicom", "pebble", "pytest", "uvicorn", "xdist")
"""Imported once, before the forks."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Row:
    """A change of a table: the file, what it is, and the whole changed text."""

    path: str
    what: str
    text: str


def rows_of(path: str, source: str) -> Iterator[Row]:
    """Yield the changes of all tables of a module, each a text of its own."""
    lines = source.encode().splitlines(keepends=True)
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line))
    raw = source.encode()

    def span(node: ast.AST) -> Span:
        assert isinstance(node, ast.expr)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = begins[node.lineno - 1] + node.col_offset
        return begin, begins[node.end_lineno - 1] + node.end_col_offset

    def changed(what: str, *changes: tuple[Span, bytes]) -> Row:
        new = raw
        for (begin, end), by in sorted(changes, reverse=True):
            new = new[:begin] + by + new[end:]
        ast.parse(new)
        line = raw[: min(change[0][0] for change in changes)].count(b"\n") + 1
        return Row(path, f"line {line}: {what}", new.decode())

    for statement in ast.parse(source).body:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if value is None or not _is_table(value):
            continue
        makers = sorted({_maker(node) for node in ast.walk(value)} - {""})
        types = {id(node.slice) for node in ast.walk(value) if _is_type(node)}
        for node in ast.walk(value):
            rows = [] if id(node) in types else _rows(node)
            for number, row in enumerate(rows):
                whole = [(_with_comma(raw, row, span), b"")]
                if isinstance(node, ast.Tuple) and len(rows) == 2 and number == 0:
                    last = span(rows[1][-1])[1]
                    if _with_comma(raw, rows[1], span)[1] == last:
                        whole.append(((last, last), b","))  # a tuple still
                yield changed("left out", *whole)
                if number + 1 < len(rows) and not isinstance(node, ast.Set):
                    here, there = span(row[-1]), span(rows[number + 1][-1])
                    one, other = raw[slice(*here)], raw[slice(*there)]
                    if one != other:
                        yield changed("exchanged with the next", (here, other), (there, one))
            by = _otherwise(node)
            if by:
                yield changed("another value", (span(node), by))
            if len(makers) > 1 and _maker(node):
                assert isinstance(node, ast.Call)
                next_one = makers[(makers.index(_maker(node)) + 1) % len(makers)]
                yield changed("made otherwise", (span(node.func), next_one.encode()))


def _is_table(value: ast.expr) -> bool:
    return any(
        isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.Set) for node in ast.walk(value)
    )


def _is_type(node: ast.AST) -> TypeGuard[ast.Subscript]:
    """Tell whether a node is a type with parameters, which are no rows."""
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)):
        return False
    return node.value.id != "Annotated"


def _rows(node: ast.AST) -> Sequence[tuple[ast.expr, ...]]:
    """Return the rows of a display: its elements, or keys with values."""
    if isinstance(node, ast.Dict):
        return [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k is not None]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return [(element,) for element in node.elts]
    return []


def _with_comma(raw: bytes, row: tuple[ast.expr, ...], span: object) -> Span:
    assert callable(span)
    begin, end = span(row[0])[0], span(row[-1])[1]
    rest = raw[end:]
    gap = len(rest) - len(rest.lstrip(b" \n)"))
    comma = rest[gap : gap + 1] == b"," and b")" not in rest[:gap]
    return begin, end + (gap + 1 if comma else 0)


def _maker(node: ast.AST) -> str:
    """Return the private function of the module by which a cell is made, or ""."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id if node.func.id.startswith("_") else ""
    return ""


def _otherwise(node: ast.AST) -> bytes:
    """Return another value than a constant's, or nothing. Texts for people stay."""
    if not isinstance(node, ast.Constant):
        return b""
    value = node.value
    if isinstance(value, str | bytes) and value:
        if (" " if isinstance(value, str) else b" ") in value:  # type: ignore[operator]
            return b""
        return repr(value + ("X" if isinstance(value, str) else b"X")).encode()  # type: ignore[operator]
    if isinstance(value, int | float):
        return repr(not value if isinstance(value, bool) else value + 1).encode()
    return b""


def main() -> int:
    """Run; 1 when something unexplained survived."""
    parser = argparse.ArgumentParser(prog="make mutants-tables", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {' '.join(PARTS)}")
    parser.add_argument("--file", help="only files with this in their path")
    parser.add_argument("--no-page", action="store_true", help="leave docs as they are")
    wanted = parser.parse_args()
    for name in HEAVY:
        importlib.import_module(name)
    left = 0
    for part in wanted.parts or PARTS:
        paths = [path for path in files_of(PARTS[part]) if (wanted.file or "") in path]
        found = [row for path in paths for row in rows_of(path, (REPOSITORY / path).read_text())]
        if not found:
            continue
        tests = tests_of(PARTS[part])
        if _exit_code(None, tests):
            _say(f"{part}: its tests fail without any change")
            return 2
        survivors = [row for row in found if not _is_noticed(row, tests)]
        reasons = explanations()
        unexplained = [row for row in survivors if not is_explained(_survivor(row), reasons)]
        for row in unexplained:
            _say(f"\n{row.path}: {row.what}\n" + "\n".join(_survivor(row).diff.splitlines()[2:]))
        left += len(unexplained)
        explained = len(survivors) - len(unexplained)
        noticed = len(found) - len(survivors)
        _say(f"\n{part}: {noticed} of {len(found)} noticed, {explained} are explained")
        if not (wanted.no_page or wanted.file):
            note_tables(part, total=len(found), noticed=noticed, explained=explained)
    return 1 if left else 0


def _survivor(row: Row) -> Survivor:
    before = (REPOSITORY / row.path).read_text().splitlines()
    diff = difflib.unified_diff(before, row.text.splitlines(), n=0, lineterm="")
    return Survivor(row.what, SURVIVED, row.path, "\n".join(diff))


def _is_noticed(row: Row, tests: list[str]) -> bool:
    """Try a change, unless it was noticed before, or survived just these tests."""
    known: dict[str, str] = json.loads(NOTES.read_text()) if NOTES.is_file() else {}
    key = hashlib.sha256(f"{row.path}\n{row.text}".encode()).hexdigest()
    these = hashlib.sha256(b"".join((REPOSITORY / test).read_bytes() for test in tests)).hexdigest()
    if known.get(key) not in (NOTICED, these):
        known[key] = NOTICED if _exit_code(row, tests) else these
        NOTES.parent.mkdir(parents=True, exist_ok=True)
        NOTES.write_text(json.dumps(known))
    return known[key] == NOTICED


def _exit_code(row: Row | None, tests: list[str]) -> int:
    """Run tests in a fork, with a row changed; 0 when they all pass."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            code = _run(row, tests)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(row: Row | None, tests: list[str]) -> int:
    import pytest

    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bridge", "tests")]:
        del sys.modules[name]
    if row is not None:
        sys.meta_path.insert(0, _Changed(row))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-n", "0"]
    return int(pytest.main([*options, *(str(REPOSITORY / test) for test in tests)]))


class _Changed(MetaPathFinder):
    """Finds one module with a changed text."""

    def __init__(self, row: Row) -> None:
        self._row = row
        module = row.path.removesuffix(".py").replace("/", ".")
        self._module = module.removesuffix(".__init__")

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        path = str(REPOSITORY / self._row.path)
        loader = _ChangedLoader(fullname, path, self._row.text)
        return importlib.util.spec_from_file_location(fullname, path, loader=loader)


class _ChangedLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, _fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

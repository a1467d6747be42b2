"""The tool that plants bugs: what it tries, what it counts, and what it leaves out."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import libcst as cst
import pytest

from tests.mutants import __main__ as tool
from tests.mutants.engine import (
    left_out,
    no_condition,
    no_other_false,
    no_other_false_argument,
    no_text,
    one_side,
)
from tests.mutants.modules import PARTS
from tests.mutants.tables import rows_of

DIFF = """--- a/bridge/x.py
+++ b/bridge/x.py
@@ -1,2 +3,2 @@ def f():
-old
+new
+new
@@ -9 +11 @@
-old
+new
@@ -20,3 +21,0 @@
-gone
"""


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_files_and_tests(name: str) -> None:
    assert tool.files_of(PARTS[name])
    assert tool.tests_of(PARTS[name])


def test_no_file_is_in_two_parts() -> None:
    files = Counter(path for part in PARTS.values() for path in tool.files_of(part))
    assert [path for path, count in files.items() if count > 1] == []


def test_changed_lines_are_those_that_are_there_now() -> None:
    assert tool.lines_of_diff(DIFF) == {"bridge/x.py": {3, 4, 11}}


def test_functions_are_named_as_mutmut_names_them() -> None:
    path = "bridge/ledger/checkpoint.py"
    text = (tool.REPOSITORY / path).read_text()
    line = 1 + text[: text.index("def settle(")].count("\n")
    (found,) = tool.functions_at([path], {path: {line}})
    assert found == "bridge.ledger.checkpoint.xǁOpenChangesǁsettle__mutmut_*"


DECORATED = """
class A:
    @property
    def one(self):
        return 1

    @staticmethod
    def two():
        return 2

@contextmanager
@other(3)
def three(
    x,
):
    yield x
"""


def test_decorators_become_assignments() -> None:
    found = tool.undecorated(DECORATED)
    ast.parse(found)
    assert "@property" not in found
    assert "    one = property(one)\n" in found
    assert "    @staticmethod\n" in found, "mutmut knows it"
    assert "\nthree = contextmanager(other(3)(three))\n" in found


def test_the_code_with_assignments_does_the_same() -> None:
    for path in ("bridge/worker/payload.py", "bridge/pipeline/window.py", "bridge/model.py"):
        source = (tool.REPOSITORY / path).read_text()
        found = tool.undecorated(source)
        assert ast.parse(found)
        assert "@contextmanager" not in found
        assert found.count("def ") == source.count("def ")


def test_a_call_is_left_out_and_nothing_else() -> None:
    call, text = (cst.Expr(cst.parse_expression(code)) for code in ("spool.flush()", "'words'"))
    assert [type(node) for node in left_out(call)] == [cst.Pass]
    assert list(left_out(text)) == []


def test_words_are_changed_and_texts_are_not() -> None:
    assert list(no_text(cst.SimpleString("'word'")))
    assert not list(no_text(cst.SimpleString("'some words'")))
    assert len(list(no_text(cst.SimpleString("'utf-8'")))) == 1, "in capitals it is the same"


def code_of(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node).strip()


def test_none_is_not_put_where_false_is() -> None:
    assigned = [cst.parse_statement(code).body[0] for code in ("a = False", "a = 1")]  # type: ignore[index]
    assert [code_of(n) for node in assigned for n in no_other_false(node)] == ["a = None"]  # type: ignore[arg-type]
    call = cst.ensure_type(cst.parse_expression("f(1, b=False)"), cst.Call)
    found = [code_of(node) for node in no_other_false_argument(call)]
    assert found == ["f(None, b=False)", "f(b=False)", "f(1, )"]


def test_conditions_are_dropped() -> None:
    both = cst.ensure_type(cst.parse_expression("a and (b or c)"), cst.BooleanOperation)
    assert [code_of(node) for node in one_side(both)] == ["(a)", "((b or c))"]
    branch = cst.ensure_type(cst.parse_statement("if a < b:\n    f()"), cst.If)
    tests = [code_of(node).partition(":")[0] for node in no_condition(branch)]
    assert tests == ["if True", "if False"]


def survivor(before: str, after: str) -> tool.Survivor:
    diff = f"# name: survived\n--- bridge/x.py\n+++ bridge/x.py\n-    {before}\n+    {after}\n"
    return tool.Survivor("bridge.x.x_f__mutmut_1", tool.SURVIVED, "bridge/x.py", diff)


def test_what_is_explained_is_known_by_its_lines() -> None:
    reasons = [{"file": "bridge/x.py", "before": "a < b", "after": "a <= b", "why": "..."}]
    assert tool.is_explained(survivor("a < b", "a <= b"), reasons)
    assert not tool.is_explained(survivor("a < b", "a > b"), reasons)
    assert not tool.is_explained(survivor("c < b", "a <= b"), reasons)


def test_every_explanation_is_of_a_line_that_is_there_and_has_a_reason() -> None:
    """A line that has changed since needs another look."""
    for entry in tool.explanations():
        lines = (tool.REPOSITORY / entry["file"]).read_text().splitlines()
        assert entry["before"].strip() in [line.strip() for line in lines], entry
        assert len(entry["why"]) > 20, entry


def test_the_share_is_of_what_changes_something() -> None:
    counts = Counter({"killed": 18, tool.SURVIVED: 3, tool.NOT_TRIED: 9})
    result = tool.Result(counts, [survivor("a", "b")] * 2, explained=1)
    assert result.share == 0.9
    assert result.tried == "21 of 30"


def test_figures_of_parts_and_of_the_simulation_keep_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "mutants.md"
    monkeypatch.setattr(tool, "PAGE", page)
    monkeypatch.setattr(tool, "moment", lambda: ("2026-01-01", "abc1234"))
    result = tool.Result(Counter(killed=3, survived=1), [], explained=0)
    tool.note("feed", PARTS["feed"], result)
    tool.note_simulated(drawn=10, of=100, seeds=50, noticed=7)
    tool.note_simulated(drawn=20, of=100, seeds=50, noticed=15)
    tool.note_tables("orthanc", total=9, noticed=7, explained=1)
    tool.note("pipeline", PARTS["pipeline"], result)
    tool.note_tables("feed", total=5, noticed=5, explained=0)
    text = page.read_text()
    assert text.count("| `feed` |") == 2
    assert text.count("| `pipeline` |") == text.count("| `orthanc` |") == 1
    assert "| `orthanc` | 2026-01-01 | abc1234 | 9 | 7 | 1 | 1 |\n" in text
    assert text.count(tool.SIMULATION_HEAD) == text.count(tool.TABLES_HEAD) == 1
    assert text.endswith("| 2026-01-01 | abc1234 | 20 | 100 | 50 | 15 | 75% |\n")


TABLE = """
SIZE = 3
NAMES = ("one", "two")
ROWS: dict[int, object] = {
    1: _a(5),  # five
    # six
    2: _b("some words"),
}


def f():
    return {1: 2}
"""


def test_rows_of_tables_are_left_out_exchanged_and_changed() -> None:
    rows = list(rows_of("bridge/x.py", TABLE))
    names = [ast.parse(row.text).body[1] for row in rows if "line 3" in row.what]
    assert [ast.unparse(node) for node in names] == [
        "NAMES = ('two',)",
        "NAMES = ('two', 'one')",
        "NAMES = ('one',)",
        "NAMES = ('oneX', 'two')",
        "NAMES = ('one', 'twoX')",
    ]
    whole = [ast.unparse(ast.parse(row.text).body[2]).partition("= ")[2] for row in rows]
    assert set(whole[5:]) == {
        "{2: _b('some words')}",
        "{1: _b('some words'), 2: _a(5)}",
        "{1: _a(5)}",
        "{2: _a(5), 2: _b('some words')}",
        "{1: _a(5), 3: _b('some words')}",
        "{1: _a(6), 2: _b('some words')}",
        "{1: _b(5), 2: _b('some words')}",
        "{1: _a(5), 2: _a('some words')}",
    }
    assert all("return {1: 2}" in row.text for row in rows)


def test_no_test_is_named_by_bytes_as_text() -> None:
    """pytest writes the backslashes of such a name twice when it collects a second time in one
    process, as mutmut does: the tests that it then asks for are not there, and nothing is tried.
    """
    named = re.compile(r"ids=(?:repr|ascii|lambda (\w+): (?:repr|ascii|str)\(\1\[:)")
    paths = sorted((tool.REPOSITORY / "tests" / "unit").rglob("test_*.py"))
    assert len(paths) > 100
    assert [path.name for path in paths if named.search(path.read_text())] == []

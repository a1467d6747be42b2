"""The tests are the same in each process that collects them, or pytest-xdist refuses to begin."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def _unordered(tree: ast.Module) -> list[int]:
    """Return the lines where tests are made from a set: its order is another in each process."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "parametrize"
        for values in call.args[1:2]
        if isinstance(values, ast.Set | ast.SetComp)
        or (
            isinstance(values, ast.Call)
            and isinstance(values.func, ast.Name)
            and values.func.id in ("set", "frozenset")
        )
    ]


def test_no_parameters_come_from_a_set() -> None:
    found = {
        f"{path.relative_to(TESTS)}:{line}"
        for path in TESTS.rglob("test_*.py")
        for line in _unordered(ast.parse(path.read_text()))
    }
    assert found == set()


def test_a_set_is_noticed() -> None:
    for values in ("{1, 2, 3}", "{x for x in y}", "set(y)", "frozenset(y)"):
        assert _unordered(ast.parse(f'pytest.mark.parametrize("name", {values})')) == [1]
    assert _unordered(ast.parse('pytest.mark.parametrize("name", sorted({1, 2, 3}))')) == []

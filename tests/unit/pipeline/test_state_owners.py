"""Each piece of the loop's state has one owner: no object here changes a field of another one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[3] / "bridge" / "pipeline"
MUTATORS = {"add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove"} | {
    "appendleft", "extendleft", "popleft", "setdefault", "update"
}  # fmt: skip
"""What changes a list, a set, a dict or a deque. A method of ours may have such a name: it is
called on the object itself, and not on a field of it."""


def _owner(node: ast.expr) -> str | None:
    """Tell whose field is changed: the first name of ``a.b``, ``a.b[c]``, ``a.b.c``."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if not isinstance(node, ast.Attribute):
        return None
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ast.unparse(node)


def _depth(node: ast.expr) -> int:
    depth = 0
    while isinstance(node, ast.Attribute | ast.Subscript):
        depth += isinstance(node, ast.Attribute)
        node = node.value
    return depth


def _foreign(target: ast.expr) -> bool:
    """Whether the field belongs to another object: ``item.x``, or ``self.window.x``."""
    if isinstance(target, ast.Tuple | ast.List):
        return any(_foreign(one) for one in target.elts)
    owner = _owner(target)
    return owner is not None and (owner != "self" or _depth(target) > 1)


def changes(text: str) -> Iterator[str]:
    """Yield the changes to fields of other objects, as they are written."""
    for node in ast.walk(ast.parse(text)):
        targets: list[ast.expr] = []
        match node:
            case ast.Assign(targets=found) | ast.Delete(targets=found):
                targets = found
            case ast.AugAssign(target=one) | ast.AnnAssign(target=one):
                targets = [one]
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Attribute() as field)) if (
                name in MUTATORS and _depth(field) > 1
            ):
                targets = [field]
            case _:
                pass
        yield from (ast.unparse(target) for target in targets if _foreign(target))


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: str(path.name))
def test_nobody_changes_what_is_not_its_own(path: Path) -> None:
    assert list(changes(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("item.attempts = 1", ["item.attempts"]),
        ("item.attempts += 1", ["item.attempts"]),
        ("self._window.alone = None", ["self._window.alone"]),
        ("self._outcomes.changed_at[1] = 'a'", ["self._outcomes.changed_at[1]"]),
        ("del self._outcomes.changed_at[1]", ["self._outcomes.changed_at[1]"]),
        ("self.a = self.b.c = 1", ["self.b.c"]),
        ("x, window.alone = 1, 2", ["(x, window.alone)"]),
        ("self._outcomes.missed.append(1)", ["self._outcomes.missed"]),
        ("self._known.pop(1); self._window.add([]); known = {}; known[1] = 2; self.x = 1", []),
        ("self._queues[name] = 1; self._served[side] += 1", []),
    ],
)
def test_such_a_change_is_noticed(text: str, found: list[str]) -> None:
    assert list(changes(text)) == found

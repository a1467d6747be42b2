"""What stands in Python files, for tests that look for names in all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path


def parsed(folder: Path, words: Iterable[str]) -> Iterator[tuple[str, ast.AST]]:
    """Yield each node, with its file's name, of the files below in which one of ``words`` stands.

    A name that a node has stands in the text of its file. Reading it costs a hundredth of parsing.
    """
    wanted = tuple(words)
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text("utf-8")
        if any(word in text for word in wanted):
            name = path.relative_to(folder).as_posix()
            for node in ast.walk(ast.parse(text)):
                yield name, node

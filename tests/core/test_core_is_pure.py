"""bridge/core knows no files, sockets, clocks, loggers or settings, and imports only itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "bridge" / "core"
FORBIDDEN = {
    "asyncio", "glob", "httpx", "io.open", "logging", "multiprocessing", "os", "pathlib",
    "pebble", "prometheus_client", "pydantic", "pydantic_settings", "random", "requests",
    "select", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "tenacity",
    "threading", "time", "typer", "urllib",
}  # fmt: skip
ALLOWED_HERE = {"bridge.core", "bridge.__version__"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def called(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {n.func.id for n in tree if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: str(path.name))
def test_no_io_and_no_other_part_of_the_bridge(path: Path) -> None:
    names = imported(path)

    assert not {name for name in names if name.split(".")[0] in FORBIDDEN}
    others = {name for name in names if name.split(".")[0] == "bridge"}
    assert not {n for n in others if not any(n.startswith(a) for a in ALLOWED_HERE)}
    assert not called(path) & {"open", "print", "input", "exec", "eval"}


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: str(path.name))
def test_the_preamble_says_so(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert path.name == "__init__.py" or "must not know" in (
        ast.get_docstring(ast.parse(text)) or ""
    )

"""docs/security.md says who unpickles what. What it says of our own code is so."""

from __future__ import annotations

import ast
from pathlib import Path

import bridge

ROOT = Path(__file__).resolve().parents[2]
UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


POOL = {"worker/pool.py", "worker/processes.py", "worker/template.py"}
"""Tasks and outcomes, between the bridge and its own workers on this machine."""


def test_our_code_unpickles_nothing_but_what_its_own_workers_say() -> None:
    """Only the pool of processes on this machine does, and Dask where a cluster is named."""
    package = Path(bridge.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            for name in names:
                if UNPICKLERS & set(name.split(".")):
                    found.append((path.relative_to(package).as_posix(), name))
    assert {file for file, _ in found} == POOL


def test_what_dask_unpickles_and_from_whom_is_told() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    section = text.partition("\n### What Dask unpickles\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    told = {who: (whom, so) for who, whom, so in rows[2:]}
    assert set(told) == {"the bridge", "the scheduler", "a worker"}
    assert "the scheduler" in told["the bridge"][0]
    assert "every client and worker" in told["the scheduler"][0]
    assert "the scheduler and other workers" in told["a worker"][0]
    assert "Anyone who may connect to one of them controls all of them" in section
    assert "tls://" in section

"""Who may import whom: the layers in pyproject.toml, one room for each library, no circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

from tests.parsed import parsed

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bridge"

ONLY = {
    "rich": ("bridge.commands", "bridge.demo.result_table"),
    "typer": ("bridge.commands", "bridge.cli"),
    "httpx": ("bridge.orthanc",),
    "tenacity": ("bridge.orthanc",),
    "sqlite3": ("bridge.ledger", "bridge.checks.disk_lists"),
    "distributed": ("bridge.worker.dask",),
    "starlette": ("bridge.monitoring",),
    "uvicorn": ("bridge.monitoring",),
    "prometheus_client": ("bridge.monitoring",),
    "imagecodecs": ("bridge.dicom", "bridge.demo"),
    "numpy": ("bridge.dicom", "bridge.demo"),
    "openjpeg": ("bridge.dicom",),
    "rle": ("bridge.dicom",),
    "pydicom": ("bridge.dicom", "bridge.demo", "bridge.rules"),
}
"""Libraries, and the rooms or files that import them. `demo` stands beside the service.

`checks/disk_lists.py` sorts in an unnamed SQLite file: docs/decisions/0006-own-or-library.md.
"""

PRIVATE = {
    ("worker/dask/scheduler.py", "_loop_runner"),
}
"""Names of libraries that are theirs alone: each in one file, which says why."""
DOCUMENTED = {"_exit", "_typeshed"}
"""Of Python and of its type checkers: they begin with a line and are for everybody."""


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("bridge", include_external_packages=True, cache_dir=None)


def below(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_every_room_stands_where_it_should() -> None:
    """In a process of its own: it sets up its logging by switching all other loggers off."""
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("library", ONLY)
def test_one_room_knows_a_library(library: str) -> None:
    graph = imports()
    importers = graph.find_modules_that_directly_import(library)
    assert importers, f"nobody imports {library}: the table is out of date"
    assert sorted(m for m in importers if not below(m, ONLY[library])) == []
    for place in ONLY[library]:
        assert any(below(m, (place,)) for m in importers), f"{place} imports no {library}"


WRITING = {
    "verify_stored", "set_metadata", "delete_metadata", "protect_patient", "set_peer",
    "delete_peer", "delete_instance", "store_instance",
}  # fmt: skip
"""Calls of the client that change a server, or have it read a whole file, beside an upload."""


def test_only_three_change_a_server_otherwise_than_by_an_upload() -> None:
    """Retention at the source, the mirror at the target, and marks at both.

    ``report --verify`` has the target read files.
    """
    users = {
        name
        for name, node in parsed(PACKAGE, WRITING)
        if isinstance(node, ast.Attribute) and node.attr in WRITING
    }
    client = {"orthanc/client.py", "orthanc/session.py"}
    others = {user for user in users - client if not user.startswith(("retention/", "mirror/"))}
    reading = {"checks/report.py"}
    assert others == {"marks.py", "commands/retention.py", "doctor/retention.py"} | reading


PROCESSES = {"Pool", "Process", "ProcessPool", "ProcessPoolExecutor", "SpawnProcess", "fork"}
"""What makes worker processes in the standard library."""


def test_one_pool() -> None:
    """Every way in which a process can end is known in one place."""
    makers = set()
    for file, node in parsed(PACKAGE, PROCESSES):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                if name in PROCESSES:
                    makers.add(file)
            case _:
                pass
    assert makers == {"worker/processes.py", "worker/template.py"}


def test_no_circle_of_files() -> None:
    graph = imports()
    ours = {m for m in graph.modules if m.split(".")[0] == "bridge"}
    after = {m: graph.find_modules_directly_imported_by(m) & ours for m in ours}
    # Whoever imports nothing that is left goes; what cannot go stands in a circle or above one.
    left = dict(after)
    while ends := {m for m, imported in left.items() if not imported & left.keys()}:
        left = {m: imported for m, imported in left.items() if m not in ends}
    assert sorted(left) == []


def test_what_is_private_to_a_library_is_used_in_one_file() -> None:
    trees = {
        path.relative_to(PACKAGE).as_posix(): list(ast.walk(ast.parse(path.read_text("utf-8"))))
        for path in PACKAGE.rglob("*.py")
    }
    ours, used = set(DOCUMENTED), set()
    for name, nodes in trees.items():
        for node in nodes:
            match node:
                case (
                    ast.FunctionDef(name=found)
                    | ast.AsyncFunctionDef(name=found)
                    | ast.ClassDef(name=found)
                ):
                    ours.add(found)
                case (
                    ast.Name(id=found, ctx=ast.Store()) | ast.Attribute(attr=found, ctx=ast.Store())
                ):
                    ours.add(found)
                case ast.Constant(value=str() as found):  # a name in __slots__
                    ours.add(found)
                case ast.Attribute(attr=found):
                    used.add((name, found))
                case ast.ImportFrom(module=str() as module, names=aliases):
                    parts = [*module.split("."), *(alias.name for alias in aliases)]
                    used |= {(name, part) for part in parts}
                case _:
                    pass
    private = {
        (name, found)
        for name, found in used
        if found.startswith("_") and not found.startswith("__") and found not in ours
    }
    assert private == PRIVATE


@pytest.mark.parametrize(
    "room", [path.parent for path in PACKAGE.glob("*/__init__.py")], ids=lambda path: str(path.name)
)
def test_the_head_of_a_room_names_its_files(room: Path) -> None:
    """For rooms that have such a list: the commands and the demo need none."""
    head = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
    named = [line.split()[0] for line in head.splitlines() if line.split(" ")[0].endswith(".py")]
    there = {path.name for path in room.glob("*.py")} - {"__init__.py"}
    assert set(named) in (set(), there)
    assert named or room.name in {"cluster", "commands", "demo"}


ABOUT_ANOTHER = ("cluster/", "commands/", "doctor/")
"""Rooms whose files may be named after what they are about: a command after the work that it
starts, a diagnosis after what it looks at, the old name of a module after the module."""


def test_a_name_stands_for_one_thing() -> None:
    """Modules, classes, and functions but those that begin with a line: they stay in their file."""
    places: dict[tuple[str, str], list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if path.stem != "__init__":
            places.setdefault(("module", path.stem), []).append(place)
        for node in ast.parse(path.read_text("utf-8")).body:
            match node:
                case ast.ClassDef(name=name):
                    places.setdefault(("class", name), []).append(place)
                case ast.FunctionDef(name=name) if not name.startswith("_"):
                    places.setdefault(("function", name), []).append(place)
                case _:
                    pass
    twice = {
        named: [place for place in found if not place.startswith(ABOUT_ANOTHER)]
        for named, found in places.items()
        if len(found) > 1
    }
    assert twice["module", "transcode"] == ["dicom/transcode.py"], "nothing is found"
    assert {named: found for named, found in twice.items() if len(found) > 1} == {}

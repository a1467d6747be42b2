"""docs/architecture.md and docs/where.md are compared with the tree that they describe."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts import architecture_docs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bridge"
SVG = "{http://www.w3.org/2000/svg}"
FLOW = ("feed/", "pipeline/", "worker/", "ledger/", "dicom/", "orthanc/")
"""The rooms that an instance, or what is known of it, goes through."""

# The tree


def test_the_head_of_the_package_names_what_is_there() -> None:
    """Each room and file once, and nothing else: it is what a newcomer reads beside `ls`."""
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert set(architecture_docs.rooms()) == rooms | files


def test_the_table_of_rooms_is_that_of_the_code() -> None:
    page = architecture_docs.PAGE.read_text("utf-8")
    assert architecture_docs.with_table(page) == page, "run: make docs"


# The picture


def test_the_picture_is_the_one_that_is_drawn() -> None:
    drawn = architecture_docs.PICTURE.read_text("utf-8")
    assert drawn == architecture_docs.picture(), "run: make docs"
    assert "](images/flow.svg)" in architecture_docs.PAGE.read_text("utf-8")


def test_the_picture_names_the_rooms_of_the_flow_and_no_others() -> None:
    root = ElementTree.fromstring(architecture_docs.PICTURE.read_text("utf-8"))  # noqa: S314 (ours)
    assert root.tag == f"{SVG}svg"
    names = [node.text or "" for node in root.iter(f"{SVG}text") if node.get("class") == "name"]
    rooms = [name for name in names if name.endswith("/")]
    assert set(FLOW) <= set(rooms)
    assert [name for name in rooms if not (PACKAGE / name / "__init__.py").is_file()] == []
    assert sorted(set(names) - set(rooms)) == ["source", "target"]


def test_the_picture_can_be_read_on_a_dark_page() -> None:
    """Every class that has a colour has one for a dark page too."""
    light, dark = architecture_docs.STYLE.split("@media (prefers-color-scheme: dark)")
    coloured = set(re.findall(r"\.(\w+) \{[^}]*#", light))
    assert coloured >= {"room", "server", "name", "says", "arrow", "tip", "paper"}
    assert set(re.findall(r"\.(\w+) \{[^}]*#", dark)) == coloured


# Where is ...?


def places() -> list[str]:
    page = (ROOT / "docs/where.md").read_text("utf-8")
    table_cells = [line.split("|")[2] for line in page.splitlines() if line.startswith("| ")]
    return [place for cell in table_cells for place in re.findall(r"`([^`]+)`", cell)]


def named(path: Path) -> set[str]:
    """What a file defines at its top level, and the methods of its classes."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return set(re.findall(r"^function (\w+)", text, re.M))
    found: set[str] = set()
    for node in ast.parse(text).body:
        match node:
            case ast.ClassDef(name=name):
                methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
                found |= {name, *(f"{name}.{method}" for method in methods)}
            case ast.FunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case _:
                pass
    return found


@pytest.mark.parametrize("place", places())
def test_what_is_looked_for_is_there(place: str) -> None:
    file, _, name = place.partition("::")
    path = (ROOT if file.startswith("tests/") else PACKAGE) / file
    assert path.is_file(), place
    assert not name or name in named(path), place


def test_each_question_has_places() -> None:
    page = (ROOT / "docs/where.md").read_text("utf-8")
    for section in page.split("\n## ")[1:]:
        assert len(re.findall(r"^\| [^|]+ \| `", section, re.M)) >= 4, section.splitlines()[0]

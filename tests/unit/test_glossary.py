"""The words of docs/glossary.md: those that are not used are used nowhere that people read."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from bridge.monitoring import page_files as page
from tests.unit.test_docs import PAGES, ROOT

GLOSSARY = ROOT / "docs" / "glossary.md"
NOT_OURS = ("docs/reference/", "CHANGELOG.md", "docs/glossary.md")
"""A page that quotes code, one that tells what was, and the list itself."""
DEFINED = (
    "source", "target", "instance", "transfer syntax", "change", "sequence", "gap", "late row",
    "waiting", "settled", "parked", "checkpoint", "lag", "paused", "at the rate limit", "hold",
    "outage", "recount", "retention",
)  # fmt: skip
"""Words that everything else is said in."""


def banned() -> set[str]:
    """The left column of the glossary's last table."""
    table = GLOSSARY.read_text("utf-8").partition("| not | but |")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return {word.strip() for cell in cells for word in cell.split(",")}


def found_in(text: str) -> set[str]:
    words = "|".join(re.escape(word) for word in sorted(banned(), key=len, reverse=True))
    return {found.lower() for found in re.findall(rf"\b(?:{words})\b", text, re.IGNORECASE)}


def said_by(path: Path) -> str:
    """The texts in a file that people may read: with a blank in them, and no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    quiet = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in quiet]
    return "\n".join(n.value for n in texts if isinstance(n.value, str) and " " in n.value)


def test_the_list_is_read() -> None:
    assert {"neighbour", "high-water mark", "hiccup"} <= banned()
    assert found_in("A neighbour's High-Water Mark, a whole wholesale.") == {
        "neighbour",
        "high-water mark",
    }


def documents() -> list[Path]:
    names = {path: path.relative_to(ROOT).as_posix() for path in PAGES}
    return [path for path, name in names.items() if not name.startswith(NOT_OURS)]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_uses_them(path: Path) -> None:
    assert found_in(path.read_text("utf-8")) == set()


def test_the_program_does_not_say_them() -> None:
    files = sorted((ROOT / "bridge").rglob("*.py"))
    said = {path.relative_to(ROOT).as_posix(): found_in(said_by(path)) for path in files}
    assert {name: words for name, words in said.items() if words} == {}


def test_the_status_page_does_not_say_them() -> None:
    for name in ("page.html", "page.js"):
        text = Path(page.__file__).with_name(name).read_text("utf-8")
        assert found_in(text) == set(), name


@pytest.mark.parametrize("word", DEFINED)
def test_it_is_defined(word: str) -> None:
    rows = re.findall(r"^\| (\*\*.+?) \|", GLOSSARY.read_text("utf-8"), re.M)
    defined = {name for row in rows for name in re.findall(r"\*\*(.+?)\*\*", row)}
    assert word in defined


def words_of(path: Path) -> set[str]:
    """The words in a file's names, comments and texts, in lower case."""
    words: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.NAME:
            words |= set(re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", token.string))
        elif token.type in (tokenize.COMMENT, tokenize.STRING):
            words |= set(re.findall(r"[A-Za-z]+", token.string))
    return {word.lower() for word in words}


NAMED_BY_OTHERS = {"bridge/commands/progress_bar.py": {"cursor"}}
"""The cursor of a terminal: rich calls its method so, and it is no checkpoint."""


def test_no_name_and_no_comment_uses_them() -> None:
    files = sorted((ROOT / "bridge").rglob("*.py"))
    used = {path.relative_to(ROOT).as_posix(): words_of(path) & banned() for path in files}
    assert {name: words for name, words in used.items() if words} == NAMED_BY_OTHERS

"""``orthanc-bridge docs``: the pages, and that every message names one that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import bridge
import bridge.commands.docs
from bridge.cli import exit_code_of
from bridge.commands.docs import PLACES_MAX, pages, sections

Capture = pytest.CaptureFixture[str]
PACKAGE = Path(bridge.__file__).parent
POINTER = re.compile(r"orthanc-bridge docs ([a-z-]+)(?: ([a-z-]+))?")


@cache
def messages() -> list[tuple[str, str]]:
    """Every text of the program that a person may see, with its file: docstrings left out."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            (str(file.relative_to(PACKAGE)), node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in alone
        ]
    return found


def test_every_message_names_a_page_and_a_section_that_are_there() -> None:
    known = pages()
    pointers = [(file, *hit) for file, text in messages() for hit in POINTER.findall(text)]
    assert len(pointers) > 10
    for file, topic, section in pointers:
        assert topic in known, f"{file}: {topic}"
        if section:
            assert sections(known[topic].read_text("utf-8"), section), f"{file}: {topic} {section}"


def test_no_message_sends_to_a_file_that_an_installed_package_lacks() -> None:
    named = [(file, text) for file, text in messages() if re.search(r"docs/[\w-]+\.md", text)]
    assert named == []


def test_without_a_topic_every_page_is_listed_with_its_title(capsys: Capture) -> None:
    assert exit_code_of(["docs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(pages())
    assert all(len(line.split()) > 1 for line in lines), "each has a heading"


@pytest.mark.parametrize("topic", ["operations", "Operations", "docs/operations.md"])
def test_a_page_is_printed_whole(topic: str, capsys: Capture) -> None:
    assert exit_code_of(["docs", topic]) == 0
    assert capsys.readouterr().out == pages()["operations"].read_text("utf-8")


def test_a_section_is_printed_alone(capsys: Capture) -> None:
    assert exit_code_of(["docs", "operations", "REPLAY"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("## How do I replay?\n")
    assert said.count("\n## ") == 0


@pytest.mark.parametrize("arguments", [["no-such-page"], ["operations", "no such heading"]])
def test_what_is_not_there_is_told_with_the_way_to_what_is(
    arguments: list[str], capsys: Capture
) -> None:
    assert exit_code_of(["docs", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "orthanc-bridge docs" in said.err


def test_an_installed_package_has_its_pages_beside_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").mkdir()
    for name in ("README.md", "operations.md", "reference/mutants.md", "CHANGELOG.md"):
        (tmp_path / name).write_text(f"# {name}\n", "utf-8")
    monkeypatch.setattr(bridge.commands.docs, "PACKAGED", tmp_path)
    assert list(pages()) == ["readme", "operations", "mutants", "changelog"]


def test_a_word_that_is_no_page_lists_the_sections_about_it(capsys: Capture) -> None:
    """Each can be printed as it is listed. Planted, seen to fail: a heading in another case."""
    assert exit_code_of(["docs", "PARKED"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TOPIC", "SECTION"]
    assert lines[1:]
    for line in lines[1:]:
        page, section = line.split(maxsplit=1)
        assert "parked" in section.lower()
        assert exit_code_of(["docs", page, section]) == 0
        assert capsys.readouterr().out.startswith(f"## {section}")


def test_a_word_in_no_heading_lists_the_sections_that_have_it_most_often(capsys: Capture) -> None:
    """A setting for example. Planted, seen to fail: no bound; the rarest first."""
    assert exit_code_of(["docs", "bridge_source_retention"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert 3 < len(lines) <= PLACES_MAX
    counts = []
    for line in lines:
        page, section = line.split(maxsplit=1)
        (text, *_) = sections(pages()[page].read_text("utf-8"), section)
        counts.append(text.lower().count("bridge_source_retention"))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0


def test_a_word_that_stands_nowhere_is_no_page(capsys: Capture) -> None:
    assert exit_code_of(["docs", "nowhere-at-all"]) == 2
    assert exit_code_of(["docs", "parked", "lags"]) == 2, "a section of no page"
    assert "There is no page parked" in capsys.readouterr().err

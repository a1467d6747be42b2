"""docs/orthanc.md names a test for every fact; each of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/orthanc.md").read_text("utf-8")


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+|Test\w+)`", TEXT))
    sources = [*(ROOT / "tests/contract").glob("*.py"), *(ROOT / "tests/unit").glob("*.py")]
    defined = {
        name
        for path in sources
        for name in re.findall(r"(?:def|class) (test_\w+|Test\w+)", path.read_text("utf-8"))
    }
    assert len(named) > 30
    assert named - defined == set()


def test_every_contract_test_of_the_feed_is_named() -> None:
    source = (ROOT / "tests/contract/test_feed_contract.py").read_text("utf-8")
    defined = set(re.findall(r"def (test_\w+)", source))
    assert {name for name in defined if name not in TEXT} <= {"test_a_row_has_exactly_these_fields"}


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:bridge|tests)/[\w/.]+)`", TEXT))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []

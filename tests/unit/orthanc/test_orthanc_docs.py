"""docs/orthanc.md names a test for every fact; each of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

from bridge.model import Endpoint, SideName, SideProblem
from bridge.orthanc import fault_table
from bridge.orthanc.fault_table import HTTPX_FAULTS, ORTHANC_FAULTS, STATUS_FAULTS, Fault, Request

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/orthanc.md").read_text("utf-8")


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+|Test\w+)`", TEXT))
    sources = [
        path
        for tests in ("contract", "unit", "integration")
        for path in (ROOT / "tests" / tests).rglob("*.py")
    ]
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


def test_every_setting_that_an_advice_names_is_documented() -> None:
    documented = (ROOT / "docs/configuration.md").read_text("utf-8")
    entries = [
        *HTTPX_FAULTS.values(),
        *STATUS_FAULTS.values(),
        *ORTHANC_FAULTS.values(),
        *(value for value in vars(fault_table).values() if isinstance(value, Fault)),
    ]
    advices = {entry.advice for entry in entries if isinstance(entry, Fault)}
    settings = set()
    for side in SideName:
        request = Request(Endpoint(side, "http://a"), "GET", "/")
        for advice in advices:
            error = request.fails(SideProblem.TLS, "", advice)
            settings |= set(re.findall(r"BRIDGE_[A-Z_]+", error.advice))
    assert len(settings) > 10
    assert {name for name in settings if name not in documented} == set()


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:bridge|tests)/[\w/.]+)`", TEXT))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []

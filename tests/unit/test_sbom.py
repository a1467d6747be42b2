"""The bill of materials names what the lock installs, each part with a licence that we may use."""

from __future__ import annotations

import json
import re

import pytest
from packaging.utils import canonicalize_name

from scripts import sbom

COPYLEFT = re.compile(r"\bA?GPL|General Public License(?!.*LGPL)")


@pytest.fixture(scope="module")
def made() -> dict[str, object]:
    found = json.loads(sbom.SBOM_PATH.read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def parts(made: dict[str, object]) -> list[dict[str, object]]:
    found = made["components"]
    assert isinstance(found, list)
    return found


def test_it_names_exactly_what_the_lock_pins(made: dict[str, object]) -> None:
    lock = (sbom.ROOT / "requirements.lock").read_text("utf-8")
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", lock, re.M)
    named = {(canonicalize_name(str(one["name"])), one["version"]) for one in parts(made)}
    assert named == {(canonicalize_name(name), version) for name, version in pinned}, (
        "run: make sbom"
    )


def test_each_part_has_an_address_and_a_licence(made: dict[str, object]) -> None:
    assert made["bomFormat"] == "CycloneDX"
    for one in parts(made):
        assert str(one["purl"]).startswith("pkg:pypi/"), one["name"]
        assert sbom.licence(one), f"{one['name']} names no licence"
        assert not COPYLEFT.search(sbom.licence(one)), one["name"]


def test_the_page_is_written_from_it(made: dict[str, object]) -> None:
    assert sbom.PAGE_PATH.read_text("utf-8") == sbom.page(made), "run: make sbom"


def test_nothing_of_a_machine_is_in_it() -> None:
    text = sbom.SBOM_PATH.read_text("utf-8")
    assert not re.search(r"file:|/home|/root|/tmp|/opt|localhost", text)


@pytest.mark.parametrize(
    ("licences", "shown"),
    [
        ([{"license": {"name": "License :: OSI Approved :: BSD License"}}], "BSD License"),
        ([{"license": {"id": "MIT"}}, {"license": {"name": "MIT License"}}], "MIT"),
        ([{"expression": "MIT AND Zlib"}], "MIT AND Zlib"),
        ([{"license": {"name": "x" * 61}}], ""),
        ([], ""),
    ],
)
def test_a_licence_is_told_in_one_line(licences: list[object], shown: str) -> None:
    assert sbom.licence({"licenses": licences}) == shown

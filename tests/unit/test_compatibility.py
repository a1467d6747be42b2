"""The checks that write docs/compatibility.md: what they read and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.compatibility_page import PAGE_PATH, PageBroken, replace_section
from scripts.pytest_runs import Outcome, failures_text, read_report
from scripts.python_versions import TESTS
from scripts.version_matrix import END_TO_END, wanted_pairs
from scripts.wheel_check import Platform, kind_of, page_section, project_of

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="good"/>
<testcase classname="tests.unit.test_a" name="bad"><failure message="no"/></testcase>
<testcase classname="tests.unit.test_b" name="broken"><error message="no"/></testcase>
<testcase classname="tests.unit.test_b" name="left_out"><skipped message="why"/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_counted_and_failures_are_named(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(REPORT, "utf-8")
    outcome = read_report(path, 3.2)
    assert outcome.cells == ("1", "2", "1", "3 s")
    assert not outcome.well
    assert "1.10 to 1.13: `test_a::bad`" in failures_text([("1.10 to 1.13", outcome)])


def test_a_run_of_which_nothing_ran_is_not_well() -> None:
    assert not Outcome(0, (), 5, 1.0).well
    assert not Outcome(0, (), 0, 1.0, "pytest ended with 4").well
    assert Outcome(1, (), 0, 1.0).well


@pytest.mark.parametrize("named", [*END_TO_END, *TESTS])
def test_what_other_versions_are_tried_with_is_there(named: str) -> None:
    """Fails when a test has moved and the script still names its old place."""
    path, _, function = named.partition("::")
    place = PAGE_PATH.parents[1] / path
    assert place.exists()
    assert not function or f"def {function}(" in place.read_text("utf-8")


def test_a_section_is_replaced_and_the_others_stay() -> None:
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert replace_section(page, "x", "new\n") == page.replace("old", "new")
    with pytest.raises(PageBroken):
        replace_section(page, "y", "new")


@pytest.mark.parametrize("name", ["versions", "pythons", "wheels"])
def test_the_page_has_its_marks(name: str) -> None:
    page = PAGE_PATH.read_text("utf-8")
    assert "a new text" in replace_section(page, name, "a new text")


def test_pairs_are_all_mixed_ones_or_those_that_were_named() -> None:
    assert wanted_pairs("", ["a", "b"]) == [("a", "b"), ("b", "a")]
    assert wanted_pairs("b:b", ["a", "b"]) == [("b", "b")]
    with pytest.raises(SystemExit, match="a:z"):
        wanted_pairs("a:z", ["a", "b"])


@pytest.mark.parametrize(
    ("wheel", "kind"),
    [
        ("x-1.0-py3-none-any.whl", "pure Python"),
        ("x-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "glibc 2.17"),
        ("x-1-cp312-cp312-manylinux_2_28_aarch64.whl", "glibc 2.28"),
        ("x-1-cp312-cp312-manylinux2014_aarch64.whl", "glibc 2.17"),
        ("", "**none**"),
    ],
)
def test_what_a_wheel_needs(wheel: str, kind: str) -> None:
    assert kind_of(wheel) == kind


def test_a_wheel_is_found_by_its_pin() -> None:
    assert project_of("Prometheus.client==0.26.0") == project_of("prometheus_client-0.26.0-py3.whl")
    assert project_of("pylibjpeg-openjpeg==2.4") == "pylibjpeg_openjpeg"


def test_a_missing_wheel_is_said() -> None:
    found = {
        Platform("3.11", "x86_64"): {"numpy==2.4.6": "numpy-2.4.6-cp311-manylinux_2_28_x.whl"},
        Platform("3.11", "aarch64"): {"numpy==2.4.6": ""},
    }
    section = page_section(found)
    assert "1 wheels are missing" in section
    assert "| `numpy==2.4.6` | glibc 2.28 | **none** |" in section

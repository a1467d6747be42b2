"""Tests that lack a tool say so or fail (CI=true), and the longest of them begin first."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.browser.chromium import require_chromium
from tests.conftest import LONGEST, longest_first
from tests.prometheus_tools import require_tool

ROOT = Path(__file__).resolve().parents[2]
FINDERS = [require_chromium, lambda: require_tool("promtool"), lambda: require_tool("prometheus")]


@pytest.mark.parametrize("find", FINDERS)
def test_a_missing_tool_is_said(find: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install"):
        find()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="must not be skipped"):
        find()


def test_the_set_up_installs_them() -> None:
    step = (ROOT / "scripts" / "setup.sh").read_text("utf-8").partition("step_test_tools()")[2]
    packages = ("dcmtk", "dicom3tools", "chromium", "prometheus", "postgresql", "nginx")
    for package in (*packages, "orthanc-postgresql", "orthanc-dicomweb"):
        assert f"missing+=({package})" in step
    assert "forbid_service_starts" in step.partition("apt_install")[0], (
        "Prometheus brings a service"
    )


@pytest.mark.parametrize("count", [2, 3, 6])
def test_each_process_begins_with_its_share_of_the_longest_tests(count: int) -> None:
    """Planted, seen to fail: all of them in the first part; one is left out."""
    names = [f"tests/unit/test_{number}.py::test" for number in range(100)]
    names[50:50] = [f"{LONGEST[1]}test_{number}.py::test" for number in range(10)]
    items: Any = [SimpleNamespace(nodeid=name) for name in names]
    found = [item.nodeid for item in longest_first(items, count)]
    assert sorted(found) == sorted(names)
    size = len(names) / count
    for part in range(count):
        begin, end = math.floor(part * size), math.floor((part + 1) * size)
        long = [name.startswith(LONGEST) for name in found[begin:end]]
        assert abs(sum(long) - 10 / count) < 1
        assert long == sorted(long, reverse=True), "before all others of the part"

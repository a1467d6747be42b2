"""Tests that lack a tool say so, and fail where nothing may be left out (CI=true)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.chromium import require_chromium
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

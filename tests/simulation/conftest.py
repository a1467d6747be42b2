"""Where schedules run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import Settings
from tests.simulation.bench import settings_for


@pytest.fixture(scope="module")
def settings() -> dict[str, Settings]:
    return {policy: settings_for(policy) for policy in ("stop", "snapshot")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """On a RAM disk where there is one (tests/conftest.py): the schedules write a lot."""
    return tmp_path

"""Where schedules run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import Settings
from tests.simulation.bench import settings_for


@pytest.fixture(scope="module")
def settings() -> dict[str, Settings]:
    return {policy: settings_for(policy) for policy in ("stop", "snapshot")}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A RAM disk where there is one: the schedules write a lot."""
    memory = Path("/dev/shm")  # noqa: S108 (a RAM disk, where there is one)
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)

"""A fake Orthanc, and a client of each side to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.model import SideName
from bridge.orthanc import OrthancClient
from tests.fake_orthanc import FakeOrthanc

Make = Callable[..., OrthancClient]


@pytest.fixture
def fake(fake_orthanc: Callable[..., FakeOrthanc]) -> FakeOrthanc:
    return fake_orthanc()


@pytest.fixture
def source(fake: FakeOrthanc, client_of: Make) -> OrthancClient:
    return client_of(fake.url, SideName.SOURCE, timeout_s=5)


@pytest.fixture
def target(fake: FakeOrthanc, client_of: Make) -> OrthancClient:
    return client_of(fake.url, SideName.TARGET, timeout_s=5)

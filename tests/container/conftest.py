"""The image, built once; and two real Orthancs for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.container.image import Image, base_image, built
from tests.container.machine import missing
from tests.dockerfile import DOCKERFILE, instructions, stages
from tests.integration.conftest import ORTHANC

ASKED_VARIABLE = "CONTAINER_TESTS"
"""``make test-container`` sets it to "run". In ``make test`` these tests are skipped: on two busy
cores they take minutes. Asked for, they never are: what is missing is a failure."""


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Execute the Dockerfile."""
    if os.environ.get(ASKED_VARIABLE) != "run":
        pytest.skip("the image is built and run by make test-container only")
    lacking = missing()
    if lacking:
        pytest.fail(lacking)
    tag = stages(instructions(DOCKERFILE.read_text("utf-8")))[-1].image
    with built(base_image(tag), tmp_path_factory.mktemp("image")) as found:
        yield found


class Servers:
    """A source and a target for a container that shares this machine's network."""

    def __init__(self, source: OrthancServer, target: OrthancServer) -> None:
        self.source, self.target = source, target
        self.settings = {
            "BRIDGE_SOURCE_URL": source.url,
            "BRIDGE_TARGET_URL": target.url,
            "BRIDGE_WORKERS": "2",
            "BRIDGE_POLL_INTERVAL_S": "0.1",
            "BRIDGE_HEALTH_PORT": "0",
        }


@pytest.fixture
def servers(orthanc: Callable[..., OrthancServer]) -> Servers:
    return Servers(orthanc("source", config=ORTHANC), orthanc("target", config=ORTHANC))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"

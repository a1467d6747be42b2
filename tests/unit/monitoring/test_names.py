from __future__ import annotations

import pytest

from bridge.monitoring.names import BridgeNames

DOCKER = BridgeNames(command_prefix="docker compose exec bridge")


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("", ""),
        ("To see why: orthanc-bridge parked list.",
         "To see why: docker compose exec bridge orthanc-bridge parked list."),
        ("orthanc-bridge resume", "docker compose exec bridge orthanc-bridge resume"),
        ("Run orthanc-bridge check. See: orthanc-bridge docs operations report.",
         "Run docker compose exec bridge orthanc-bridge check. See: docker compose exec bridge "
         "orthanc-bridge docs operations report."),
        # An address or a file of that name is no command.
        ("http://host/orthanc-bridge is down", "http://host/orthanc-bridge is down"),
        ("my-orthanc-bridge is down", "my-orthanc-bridge is down"),
        ("orthanc-bridge: Start it.", "orthanc-bridge: Start it."),
    ],
)  # fmt: skip
def test_commands_are_shown_as_they_are_typed(text: str, typed: str) -> None:
    assert DOCKER.as_typed(text) == typed
    assert BridgeNames().as_typed(text) == text

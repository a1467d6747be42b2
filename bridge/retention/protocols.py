"""What retention needs of the two servers."""

from __future__ import annotations

from typing import Protocol

from bridge.model import ServerInfo, StoreAnswer
from bridge.orthanc import Statistics
from bridge.retention.bridge_notes import NotedServer
from bridge.two_servers import ComparedServer


class KeepingServer(ComparedServer, NotedServer, Protocol):
    """What is needed of the source."""

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 noted for a file. Raises InstanceGone, InstanceError, SideError."""

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance; False when it was not there any more. Raises SideError."""

    def file_of(self, instance_id: str, *, bytes_max: int) -> bytes:
        """Return a file. Raises InstanceGone, InstanceError (larger), SideError."""

    def store_instance(self, data: bytes) -> StoreAnswer:
        """Upload a file. Raises InstanceError, SideError."""

    def statistics(self) -> Statistics:
        """Count what the server holds."""


class HoldingServer(ComparedServer, NotedServer, Protocol):
    """What is needed of the target."""

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def verify_stored(self, instance_id: str) -> bool:
        """Read the file again and compare. Raises InstanceError, SideError."""

    def patient_of(self, instance_id: str) -> str:
        """Return the patient of an instance. Raises InstanceError, SideError."""

    def protect_patient(self, patient_id: str) -> None:
        """Have a patient never recycled. Raises SideError."""

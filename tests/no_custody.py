"""For clients without the calls that only retention and the comparison of servers make."""

from __future__ import annotations

from bridge.errors import side_error
from bridge.model import SideName, SideProblem, StoreAnswer
from bridge.orthanc import Statistics, StoredFile


class NoCustody:
    """Raises NotImplementedError: a test that comes here needs more than it has."""

    def stored_md5(self, instance_id: str) -> str:
        raise NotImplementedError(instance_id)

    def stored_file(self, instance_id: str) -> StoredFile:
        raise NotImplementedError(instance_id)

    def file_of(self, instance_id: str, *, bytes_max: int) -> bytes:
        raise NotImplementedError((instance_id, bytes_max))

    def store_instance(self, data: bytes) -> StoreAnswer:
        raise NotImplementedError(data)

    def delete_instance(self, instance_id: str) -> bool:
        raise NotImplementedError(instance_id)

    def verify_stored(self, instance_id: str) -> bool:
        raise NotImplementedError(instance_id)

    def instance_metadata(self, instance_id: str) -> dict[str, str]:  # noqa: ARG002
        return {}  # no mark of a probe either

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        raise NotImplementedError((instance_id, name))

    def set_metadata(self, instance_id: str, name: str, value: str) -> str:
        raise NotImplementedError((instance_id, name, value))

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        raise NotImplementedError((instance_id, name, etag))

    def patient_of(self, instance_id: str) -> str:
        raise NotImplementedError(instance_id)

    def protect_patient(self, patient_id: str) -> None:
        raise NotImplementedError(patient_id)

    def peers(self) -> dict[str, str]:
        raise side_error(SideName.SOURCE, SideProblem.FORBIDDEN, "no notes here")

    def set_peer(self, name: str, url: str) -> None:
        pass

    def delete_peer(self, name: str) -> None:
        raise NotImplementedError(name)

    def statistics(self) -> Statistics:
        raise NotImplementedError

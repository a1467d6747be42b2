"""The calls that come before a deletion: only source retention needs them.

They are apart from the client because they write (metadata) or make the server work (reading a
whole file), which nothing else of the bridge does.
"""

from __future__ import annotations

from urllib.parse import quote

from bridge.core.errors import SideError
from bridge.orthanc import answers
from bridge.orthanc.client import ANSWER_BYTES_MAX, CONTROL_DEADLINE_FACTOR, OrthancClient
from bridge.orthanc.tables import Request


class CustodyClient(OrthancClient):
    """An OrthancClient that can also make sure of a file, and mark an instance."""

    def verify_stored(self, instance_id: str) -> bool:
        """Have the server read its file again and compare the MD5 that it noted at its arrival.

        ``stored_md5`` is that note, and stays right when the file is damaged or lost on disk. So
        does this, for a file that a server with ``MaximumStorageCacheSize`` still has in memory.
        False when the server finds it so; InstanceGone or InstanceError when it lacks the instance.
        """
        path = f"/instances/{quote(instance_id, safe='')}/attachments/dicom/verify-md5"
        request = Request(self.endpoint, "POST", path)
        try:
            with self._explaining_404(instance_id), self._control(request) as response:
                self._parsed(response, request, answers.parse_verified, ANSWER_BYTES_MAX)
        except SideError as exc:
            if exc.specific:  # 400 without a body: another MD5; 500: no file
                return False
            raise
        return True

    def set_metadata(self, instance_id: str, name: str, value: str) -> None:
        """Set a metadata of an instance; user-defined ones are numbers from 1024 on."""
        self._metadata("PUT", instance_id, name, value.encode("ascii"))

    def delete_metadata(self, instance_id: str, name: str) -> None:
        """Delete a metadata of an instance."""
        self._metadata("DELETE", instance_id, name, None)

    def _metadata(self, method: str, instance_id: str, name: str, body: bytes | None) -> None:
        path = f"/instances/{quote(instance_id, safe='')}/metadata/{quote(name, safe='')}"
        request = Request(self.endpoint, method, path)
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with (
            self._explaining_404(instance_id),
            self._wire.exchange(request, body=body, deadline_s=deadline_s) as response,
        ):
            self._wire.read(response, request, bytes_max=ANSWER_BYTES_MAX)

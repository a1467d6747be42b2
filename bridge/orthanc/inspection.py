"""The calls that only look: for check, plan, report and doctor."""

from __future__ import annotations

from datetime import UTC, datetime

from bridge.core.errors import InstanceError, SideError
from bridge.core.model import SideProblem
from bridge.orthanc import answers
from bridge.orthanc.client import ANSWER_BYTES_MAX, CONTROL_DEADLINE_FACTOR, OrthancClient
from bridge.orthanc.tables import Request

CHILDREN_BYTES_MAX = 16 * 1024 * 1024
NO_SUCH_INSTANCE = "00000000-00000000-00000000-00000000-00000000"
NOT_DICOM = b"orthanc-bridge doctor: this is not a DICOM file"
"""What ``may_store`` sends: it is answered 400 and nothing is stored."""


class InspectionClient(OrthancClient):
    """An OrthancClient with what a person's questions need beyond moving instances."""

    def now(self) -> datetime:
        """Return the server's clock (``/tools/now``): UTC, whole seconds."""
        return self._get("/tools/now", answers.parse_moment).replace(tzinfo=UTC)

    def head(self, instance_id: str, bytes_max: int) -> bytes:
        """Return the first bytes of an instance's file; the rest is not downloaded.

        Orthanc 1.10 ignores a Range header here, so the connection is given up instead.
        """
        gathered = bytearray()
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self.open_instance(instance_id, deadline_s=deadline_s) as body:
            for chunk in body.chunks:
                gathered += chunk
                if len(gathered) >= bytes_max:
                    break
        return bytes(gathered[:bytes_max])

    def lookup(self, uid: str) -> list[tuple[str, str]]:
        """Find resources by a DICOM identifier: their levels ("Study", ...) and Orthanc IDs."""
        request = Request(self.endpoint, "POST", "/tools/lookup")
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self._wire.exchange(request, body=uid.encode(), deadline_s=deadline_s) as response:
            return self._parsed(response, request, answers.parse_lookup, ANSWER_BYTES_MAX)

    def instances_of_study(self, study_id: str) -> list[str] | None:
        """List the instances of a study by its Orthanc ID; None when the server lacks it."""
        series = self._children(f"/studies/{study_id}", "Series")
        if series is None:
            return None
        found: list[str] = []
        for series_id in series:
            found += self._children(f"/series/{series_id}", "Instances") or []
        return found

    def may_store(self) -> None:
        """Make sure that uploads are allowed, without storing anything.

        Raises SideError (LOGIN_REFUSED, FORBIDDEN, ...) when they are not.
        """
        try:
            self.store(NOT_DICOM, deadline_s=CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s)
        except InstanceError:
            return  # 400: it has looked at the body, and it is no DICOM file
        # An Orthanc with a plugin may take other files; it did not say that it refuses us.

    def may_delete(self) -> None:
        """Make sure that deletions are allowed, by one of an instance that cannot exist.

        Raises SideError when they are not.
        """
        self.delete_instance(NO_SUCH_INSTANCE)

    def _children(self, path: str, name: str) -> list[str] | None:
        try:
            return self._get(
                path,
                lambda body: answers.parse_children(body, name),
                bytes_max=CHILDREN_BYTES_MAX,
            )
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            self.system()  # a wrong base address answers 404 to this as well
            return None

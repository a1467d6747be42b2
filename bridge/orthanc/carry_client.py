"""The calls for what lies beside the files: labels, metadata and attachments of any resource.

What users have written there may be about patients: it is in no message and no log. Names of
labels are a user's too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from bridge.errors import InstanceError, SideError
from bridge.model import Reason, ResourceKind, SideProblem
from bridge.orthanc import answers
from bridge.orthanc.answers import KINDS, Resource
from bridge.orthanc.client import ANSWER_BYTES_MAX, CHILDREN_BYTES_MAX, resource_path
from bridge.orthanc.fault_table import Request
from bridge.orthanc.session import FETCH_DEADLINE_FACTOR, SideClient

BULK_BYTES_MAX = 64 * 1024 * 1024
"""Of an answer about resources: a series names its instances, 50 bytes each."""
LISTED_BYTES_MAX = 64 * 1024 * 1024
_CHILDREN = (
    (ResourceKind.SERIES, "Instances"),
    (ResourceKind.STUDY, "Series"),
    (ResourceKind.PATIENT, "Studies"),
)
"""What is above an instance, and under which name it lists what is below it."""
_LEVELS = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Value:
    """A metadata as it is stored. ``etag``: of this very value, "" where the server tells none."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a server tells of an attachment. ``md5``, ``etag``: "" where it tells none."""

    md5: str
    size_bytes: int
    etag: str


class CarryClient(SideClient):
    """One side, with the calls for what lies beside the files. Raises SideError, InstanceError."""

    def list_resources(self, kind: ResourceKind, since: int, limit: int) -> list[str]:
        """List identifiers of a kind, ``limit`` from position ``since`` on; fewer at the end."""
        return self._get(
            f"/{kind}",
            lambda body: answers.parse_instance_ids(body, rows_max=limit),
            query=f"since={since}&limit={limit}",
            bytes_max=LISTED_BYTES_MAX,
        )

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        """Tell labels and metadata of resources; what is not there is left out.

        ``of``: of the resources of this kind above them instead, each once.
        """
        if not resource_ids:
            return []
        asked: dict[str, object] = {"Resources": list(resource_ids), "Metadata": True}
        if of is not None:
            asked["Level"] = _LEVELS[of]
        request = Request(self.endpoint, "POST", "/tools/bulk-content")
        deadline_s = FETCH_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self._wire.exchange(
            request, body=json.dumps(asked).encode("ascii"), deadline_s=deadline_s
        ) as response:
            return self._parsed(response, request, answers.parse_resources, BULK_BYTES_MAX)

    def vanishing(self, instance_id: str) -> list[Resource]:
        """Tell what would be deleted with an instance: itself, and what has no other one.

        From the instance up. Raises InstanceError where the server does not tell all of it: it
        lacks the instance by now, or something on the way hides what there is.
        """
        vanishing = [self._the_one(instance_id, ResourceKind.INSTANCE)]
        for kind, children in _CHILDREN:
            below, above = vanishing[-1].resource_id, self._the_one(instance_id, kind)
            listed = self._children(resource_path(kind, above.resource_id), children)
            if listed is None or below not in listed:
                raise self._untold(instance_id, kind)
            if len(listed) > 1:
                break
            vanishing.append(above)
        return vanishing

    def _the_one(self, instance_id: str, kind: ResourceKind) -> Resource:
        """Return the resource of a kind to which an instance belongs."""
        told = self.resources([instance_id], of=kind)
        if len(told) != 1 or told[0].kind is not kind:
            raise self._untold(instance_id, kind)
        if kind is ResourceKind.INSTANCE and told[0].resource_id != instance_id:
            raise self._untold(instance_id, kind)
        return told[0]

    def _untold(self, instance_id: str, kind: ResourceKind) -> InstanceError:
        return InstanceError(
            Reason.SERVER_REFUSES_INSTANCE,
            f"The {self.endpoint.side} does not tell what is beside instance {instance_id} "
            f"({kind}).",
            final=False,
        )

    def attachment_names(self, kind: ResourceKind, resource_id: str) -> list[str]:
        """List the attachments of a resource; none where it is not there any more."""
        path = resource_path(kind, resource_id, "/attachments")
        try:
            return self._get(path, answers.parse_names)
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND or self._holds(
                kind, resource_id, bytes_max=CHILDREN_BYTES_MAX
            ):
                raise
            return []

    def is_protected(self, patient_id: str) -> bool:
        """Tell whether the server never recycles a patient."""
        path = resource_path(ResourceKind.PATIENT, patient_id, "/protected")
        return self._get(path, lambda body: body.strip() == b"1")

    def metadata_of(self, kind: ResourceKind, resource_id: str, name: str) -> Value | None:
        """Return a metadata as it is stored; None where the resource has none, or is not there."""
        path = resource_path(kind, resource_id, f"/metadata/{quote(name, safe='')}")
        request = Request(self.endpoint, "GET", path)
        try:
            with self._control(request) as response:
                etag = answers.parse_etag(response.headers.get("ETag", ""))
                return Value(self._wire.read(response, request, bytes_max=ANSWER_BYTES_MAX), etag)
        except SideError as exc:
            self._believe_lacking(exc, kind, resource_id, "metadata", name)
            return None

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write a metadata. ``etag``: only over this very value (HTTP 409 otherwise)."""
        path = resource_path(kind, resource_id, f"/metadata/{quote(name, safe='')}")
        self._written(Request(self.endpoint, "PUT", path), data, _if_match(etag))

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        """Add a label; one that is there stays. Its name is told to nobody."""
        path = resource_path(kind, resource_id, f"/labels/{label}")
        self._written(Request(self.endpoint, "PUT", path, hidden=len(label)), b"")

    def delete_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        """Take a label away; one that is not there is no error."""
        path = resource_path(kind, resource_id, f"/labels/{label}")
        self._written(Request(self.endpoint, "DELETE", path, hidden=len(label)), None)

    def attachment(self, kind: ResourceKind, resource_id: str, name: str) -> Attachment | None:
        """Describe an attachment; None where the resource has none, or is not there."""
        path = resource_path(kind, resource_id, f"/attachments/{quote(name, safe='')}/info")
        request = Request(self.endpoint, "GET", path)
        try:
            with self._control(request) as response:
                etag = answers.parse_etag(response.headers.get("ETag", ""))
                told = self._parsed(response, request, answers.parse_stored_file, ANSWER_BYTES_MAX)
        except SideError as exc:
            self._believe_lacking(exc, kind, resource_id, "attachments", name)
            return None
        return Attachment(told.md5, told.size_bytes, etag)

    def attachment_data(
        self, kind: ResourceKind, resource_id: str, name: str, *, bytes_max: int
    ) -> bytes:
        """Return the content of an attachment. Raises InstanceError where it is larger."""
        path = resource_path(kind, resource_id, f"/attachments/{quote(name, safe='')}/data")
        request = Request(self.endpoint, "GET", path)
        deadline_s = FETCH_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self._wire.exchange(request, deadline_s=deadline_s) as response:
            return self._wire.read(response, request, bytes_max=bytes_max)

    def put_attachment(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write an attachment. 200 proves nothing: 1.10 answers so for a study that is not there.

        ``etag``: only over this very one (HTTP 409 otherwise).
        """
        path = resource_path(kind, resource_id, f"/attachments/{quote(name, safe='')}")
        request = Request(self.endpoint, "PUT", path)
        deadline_s = FETCH_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self._wire.exchange(
            request, headers=_if_match(etag), body=data, deadline_s=deadline_s
        ) as response:
            self._wire.read(response, request, bytes_max=ANSWER_BYTES_MAX)

    def _believe_lacking(
        self, error: SideError, kind: ResourceKind, resource_id: str, beside: str, name: str
    ) -> None:
        """Raise the error again unless it is a 404 that tells that there is no such value.

        The server then lists what the resource has, without it; or lacks the resource. Something on
        the way may answer 404 to all that lies beside the files: that tells nothing.
        """
        if error.problem is not SideProblem.NOT_FOUND:
            raise error
        try:
            listed = self._get(resource_path(kind, resource_id, f"/{beside}"), answers.parse_names)
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            if self._holds(kind, resource_id, bytes_max=CHILDREN_BYTES_MAX):
                raise error from exc
            return
        if name in listed:
            raise error


def _if_match(etag: str) -> list[tuple[str, str]]:
    return [("If-Match", etag)] if etag else []

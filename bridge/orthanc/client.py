"""The calls to one Orthanc server. Synchronous; a client belongs to one thread at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Self, TypeVar
from urllib.parse import quote

import httpx

from bridge.credentials import Credentials
from bridge.errors import ConfigurationError, InstanceError, InstanceGone, SideError, side_error
from bridge.model import (
    Described,
    Endpoint,
    Page,
    Reason,
    ServerInfo,
    SideName,
    SideProblem,
    StoreAnswer,
    StudyState,
)
from bridge.orthanc import answers
from bridge.orthanc.answers import (
    INSTANCE_ID,
    SHOWN_CHARACTERS_MAX,
    Statistics,
    StoredFile,
    WrongAnswer,
)
from bridge.orthanc.bodies import (
    INSTANCE_BYTES_MAX,
    InstanceBody,
    Upload,
    bounded_body,
    content_length,
)
from bridge.orthanc.fault_table import Need, Request, Route, lacks_right
from bridge.orthanc.faults import is_page, not_orthanc
from bridge.orthanc.wire import RetryPolicy, Wire
from bridge.untrusted_text import shortened, visible

ANSWER_BYTES_MAX = 1024 * 1024
ROW_BYTES_MAX = 1024
"""A row of /changes or /instances as JSON, indented: about 250 and 50 bytes."""
CHANGES_BYTES_MAX = 64 * 1024 * 1024
DICOM_HEAD = bytes(128) + b"DICM"
"""How a file begins (PS3.10 7.1); the first 128 bytes may be anything."""
CONTROL_DEADLINE_FACTOR = 2
"""A small answer must be complete within this many time-outs, retries included."""

BULK_MAX = 400
"""Instances asked for in one request."""
BULK_BYTES_MAX = 16 * 1024 * 1024
"""Of its answer: about 1 KB for each of them, and more where users have added metadata."""
FOUND_BYTES_MAX = 64 * 1024 * 1024
"""Of an answer that describes 1,000 instances: about 1 KB for each, and more as above."""
EXTENDED_FIND = "HasExtendedFind"
"""The capability of a server whose ``/tools/find`` tells what it is asked to."""
LOOK_S = 2.0
"""A server that dropped a file is asked at once whether it is still there, and for so long."""
GONE = frozenset({SideProblem.UNREACHABLE, SideProblem.SERVER_ERROR})
"""What tells that it is not: no connection, or a proxy that has none."""
CHILDREN_BYTES_MAX = 16 * 1024 * 1024
SHOWN = 3
"""So many listed instances are looked at before another one is believed to be gone."""
NO_SUCH_INSTANCE = "00000000-00000000-00000000-00000000-00000000"
COUNTED_BYTES_MAX = 8 * 1024 * 1024
"""Of a file whose length is not announced, when only its length is of interest."""
NOT_DICOM = b"orthanc-bridge doctor: this is not a DICOM file"
"""What ``may_store`` sends: it is answered 400 and nothing is stored."""

_Answer = TypeVar("_Answer")


class OrthancClient:
    """The REST API of one side. ``wire``: instead of one with these credentials.

    Raises SideError for everything that is the server's or the network's fault, and InstanceError
    or InstanceGone for what concerns one instance only.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials | None,
        *,
        retries: RetryPolicy | None = None,
        wire: Wire | None = None,
    ) -> None:
        if not endpoint.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"BRIDGE_{endpoint.side.name}_URL is not an http:// or https:// address.",
                advice="Give the base address of the REST API, such as http://host:8042.",
            )
        self.endpoint = endpoint
        self._no_bulk = False
        self._finds: bool | None = None
        """Whether the server describes what it finds; None before it was asked."""
        self._wire = wire or Wire(
            endpoint, credentials or Credentials(), retries=retries or RetryPolicy()
        )

    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def system(self) -> ServerInfo:
        """Ask who the server is and what it can do."""
        return self._get("/system", answers.parse_system)

    def statistics(self) -> Statistics:
        """Ask how much the server holds. It counts: seconds on a large server."""
        return self._get("/statistics", answers.parse_statistics)

    def changes(self, since: int, limit: int, *, only_new_instances: bool = False) -> Page:
        """Read the rows above ``since``, at most ``limit``, in ascending order.

        ``only_new_instances`` asks the server to filter; one without extended changes ignores it,
        so filter here too.
        """
        if since < 0 or limit < 1:
            # Orthanc reads anything that is not a number as 0 and would replay everything.
            raise ValueError(f"since {since} or limit {limit} is out of range")
        only = "&type=NewInstance" if only_new_instances else ""
        return self._get(
            "/changes",
            lambda body: answers.parse_changes(body, since=since, rows_max=limit),
            query=f"since={since}&limit={limit}{only}",
            bytes_max=_page_bytes_max(limit),
        )

    def last_change(self) -> Page:
        """Read the newest row: a page of one row, or of none when the feed is empty."""
        return self._get(
            "/changes",
            lambda body: answers.parse_changes(body, since=None, rows_max=1),
            query="last",
        )

    def list_instances(self, since: int, limit: int) -> list[str]:
        """List identifiers, ``limit`` from position ``since`` on; fewer at the end."""
        if since < 0 or limit < 1:
            raise ValueError(f"since {since} or limit {limit} is out of range")
        return self._get(
            "/instances",
            lambda body: answers.parse_instance_ids(body, rows_max=limit),
            query=f"since={since}&limit={limit}",
            bytes_max=_page_bytes_max(limit),
        )

    def has_instance(self, instance_id: str) -> bool:
        """Whether the server holds the instance. Raises SideError.

        True: it describes this very instance. False is certain: it shows one that it lists, or
        lists none, and does not describe this one by another route either (Orthanc 1.9.4 and
        newer). Otherwise a 404 is raised: a proxy may answer so to all of them, or to this one.
        """
        return self._holds("instances", instance_id)

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Read Orthanc's metadata: TransferSyntax, SopClassUid, RemoteAET, PixelDataOffset, ..."""
        return self._get_of_instance(
            instance_id, "/metadata", answers.parse_metadata, query="expand"
        )

    def bulk_metadata(self, instance_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Read the metadata of up to BULK_MAX instances at once (Orthanc 1.9.4 and newer).

        What is missing is asked for by itself: the server lacks it, or it answers no such request.
        That is remembered. Raises SideError.
        """
        told = self._bulk(
            instance_ids, lambda body: answers.parse_bulk_metadata(body, asked=instance_ids)
        )
        return told or {}

    def bulk_described(self, instance_ids: Sequence[str]) -> dict[str, Described]:
        """Read the metadata and the sizes of the files of up to BULK_MAX instances at once.

        What is missing is to be asked for by itself, as with ``bulk_metadata``. Raises SideError.
        """
        told = self._bulk(
            instance_ids, lambda body: answers.parse_bulk_described(body, asked=instance_ids)
        )
        return told or {}

    def find_described(self, since: int, limit: int) -> dict[str, Described] | None:
        """Describe the instances at ``limit`` positions from ``since`` on (Orthanc 1.12.5 on).

        In the order in which ``list_instances`` has them. None where the server cannot, or does not
        answer that, which is remembered. Raises SideError.
        """
        if since < 0 or limit < 1:
            raise ValueError(f"since {since} or limit {limit} is out of range")
        if self._finds is None:
            self._finds = EXTENDED_FIND in self.system().capabilities
        if not self._finds:
            return None
        request = Request(self.endpoint, "POST", "/tools/find")
        asked = {
            "Level": "Instance",
            "Query": {},
            "Since": since,
            "Limit": limit,
            "ResponseContent": ["Metadata", "Attachments"],
        }
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        try:
            with self._wire.exchange(
                request, body=json.dumps(asked).encode("ascii"), deadline_s=deadline_s
            ) as response:
                return self._parsed(
                    response,
                    request,
                    lambda body: answers.parse_found_described(body, rows_max=limit),
                    FOUND_BYTES_MAX,
                )
        except SideError as exc:
            if not lacks_right(exc, Need.WRITE):
                raise
            self._finds = False
            return None

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        """Return which of up to BULK_MAX instances the server holds (Orthanc 1.9.4 and newer).

        It names those itself. None where it answers no such request, which is remembered. Raises
        SideError.
        """
        return self._bulk(
            instance_ids,
            lambda body: answers.parse_bulk_held(body, asked=instance_ids),
            metadata=False,
        )

    def studies_of(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        """Return the Orthanc IDs of the studies of up to BULK_MAX instances.

        Those of instances that are not there are left out. None where the server answers no such
        request, which is remembered. Raises SideError.
        """
        return self._bulk(
            instance_ids,
            lambda body: answers.parse_bulk_studies(body, rows_max=len(instance_ids)),
            metadata=False,
            level="Study",
        )

    def _bulk(
        self,
        instance_ids: Sequence[str],
        parse: Callable[[bytes], _Answer],
        *,
        metadata: bool = True,
        level: str = "Instance",
    ) -> _Answer | None:
        """Ask for many instances at once; None where that is not answered, and from then on."""
        if len(instance_ids) > BULK_MAX:
            raise ValueError(f"{len(instance_ids)} instances at once")
        if self._no_bulk:
            return None
        if not instance_ids:
            return parse(b"[]")
        request = Request(self.endpoint, "POST", "/tools/bulk-content")
        asked = {"Resources": list(instance_ids), "Metadata": metadata, "Short": True}
        if level != "Instance":
            asked["Level"] = level
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        try:
            with self._wire.exchange(
                request, body=json.dumps(asked).encode("ascii"), deadline_s=deadline_s
            ) as response:
                return self._parsed(response, request, parse, BULK_BYTES_MAX)
        except SideError as exc:
            if not lacks_right(exc, Need.WRITE):
                raise
            self._no_bulk = True
            return None

    def stored_md5(self, instance_id: str) -> str:
        """Read the MD5 of the file as stored, before any compression by the storage area."""
        return self._get_of_instance(instance_id, "/attachments/dicom/md5", answers.parse_md5)

    def stored_file(self, instance_id: str) -> StoredFile:
        """Return the name, the MD5 and the size of an instance's file, without reading it."""
        return self._get_of_instance(
            instance_id, "/attachments/dicom/info", answers.parse_stored_file
        )

    def attachment_size(self, instance_id: str) -> int:
        """Read the size of the file in bytes, before any compression by the storage area."""
        return self._get_of_instance(instance_id, "/attachments/dicom/size", answers.parse_size)

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance. Returns False when it was not there any more.

        Never sent twice: if the first answer is lost, the instance may have come anew meanwhile.
        """
        request = Request(self.endpoint, "DELETE", instance_path(instance_id))
        try:
            with self._control(request, once=True) as response:
                self._parsed(response, request, answers.parse_deleted, ANSWER_BYTES_MAX)
        except SideError as exc:
            self._believe_404(exc)
            return False
        return True

    @contextmanager
    def open_instance(
        self,
        instance_id: str,
        *,
        deadline_s: float | None,
        bytes_max: int = INSTANCE_BYTES_MAX,
    ) -> Iterator[InstanceBody]:
        """Open the DICOM file of an instance; the pieces are read inside the block.

        ``deadline_s`` bounds the whole block. The pieces together are exactly the file: a body
        that ends early raises SideError UNREACHABLE, one above ``bytes_max`` InstanceError.
        """
        request = Request(self.endpoint, "GET", instance_path(instance_id, "/file"), Route.FILE)
        with ExitStack() as stack:
            stack.enter_context(self._looking_after_it())
            with self._explaining_404(instance_id):
                exchange = self._wire.exchange(request, deadline_s=deadline_s)
                response = stack.enter_context(exchange)
            pieces = self._wire.pieces(response, request)
            yield InstanceBody(
                content_length(response.headers, request, bytes_max),
                bounded_body(pieces, request, bytes_max),
            )

    def serves_file(self, instance_id: str) -> bool:
        """Whether the server gives a DICOM file for an instance; the rest is not downloaded.

        Raises SideError, InstanceGone, InstanceError.
        """
        gathered = b""
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self.open_instance(instance_id, deadline_s=deadline_s) as body:
            for chunk in body.chunks:
                gathered += chunk
                if len(gathered) >= len(DICOM_HEAD):
                    break
        return gathered[128:132] == DICOM_HEAD[128:]

    def serves_whole_file(self, instance_id: str) -> bool:
        """Whether the server gives a DICOM file for an instance, as long as it says that it holds.

        Of a file whose length is announced, only the beginning is downloaded. Raises SideError,
        InstanceGone, InstanceError.
        """
        noted = self._noted_file(instance_id)
        gathered, received = b"", 0
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self.open_instance(instance_id, deadline_s=deadline_s) as body:
            length = body.content_length
            for chunk in body.chunks:
                received += len(chunk)
                if len(gathered) < len(DICOM_HEAD):
                    gathered += chunk
                is_known = length is not None and len(gathered) >= len(DICOM_HEAD)
                if is_known or received > COUNTED_BYTES_MAX:
                    break
            else:
                length = received
        if noted is not None and length not in {None, noted.size_bytes}:
            return False
        return gathered[128:132] == DICOM_HEAD[128:]

    def check_fetched(
        self,
        instance_id: str,
        *,
        size_bytes: int,
        md5: Callable[[], str],
        whose: Callable[[], str],
    ) -> None:
        """Compare a file that was fetched with what the server says that it holds.

        Raises SideError SERVER_ERROR when they differ: the server, its disk or something between
        gave something else, whoever noticed it. Nothing is known where the server does not tell.
        ``md5`` is asked for when the sizes are the same, ``whose`` ("" for nobody's) when the file
        is another one. Also raises InstanceGone, and SideError when the server is down.
        """
        noted = self._noted_file(instance_id)
        if noted is None:
            return
        sizes = f"{size_bytes} bytes came, and it says that it holds {noted.size_bytes}"
        if size_bytes < noted.size_bytes:
            seen = f"a file that is cut short: {sizes}"
        elif size_bytes > noted.size_bytes:
            seen = f"a file that is too long: {sizes}"
        elif noted.md5 and md5() != noted.md5:
            seen = "other bytes than it holds: the size is the same, the MD5 is not"
        else:
            return
        owner = whose()
        if owner not in {"", instance_id}:
            seen = f"the file of another instance, {owner}"
        request = Request(self.endpoint, "GET", instance_path(instance_id, "/file"), Route.FILE)
        raise request.fails(
            SideProblem.SERVER_ERROR,
            f"sent {seen}",
            "Look at what is between the bridge and the server (a proxy, a cache), and at the "
            "file on the server's disk; if it is damaged there, send the instance again.",
            specific=True,
        )

    def _noted_file(self, instance_id: str) -> StoredFile | None:
        """Return what the server notes of a file; None where it does not tell us.

        Raises InstanceGone, and SideError when it is down.
        """
        try:
            return self.stored_file(instance_id)
        except InstanceGone:
            raise
        except InstanceError:
            return None
        except SideError as exc:
            if lacks_right(exc, Need.WRITE):
                return None
            raise

    def fetch_instance(
        self,
        instance_id: str,
        write: Callable[[bytes], object],
        *,
        deadline_s: float | None,
        bytes_max: int = INSTANCE_BYTES_MAX,
    ) -> int:
        """Pass the DICOM file of an instance to ``write`` piece by piece; returns its size."""
        fetched = 0
        with self.open_instance(instance_id, deadline_s=deadline_s, bytes_max=bytes_max) as body:
            for chunk in body.chunks:
                write(chunk)
                fetched += len(chunk)
        return fetched

    def store(
        self,
        body: bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview],
        *,
        body_bytes: int | None = None,
        deadline_s: float | None,
    ) -> StoreAnswer:
        """Send a DICOM file. Check the answer's ID and Status: 200 alone proves nothing.

        ``body_bytes`` is the length of an iterable's pieces together, if known: it is then sent
        as Content-Length and must be right; otherwise the transfer is chunked.
        Raises InstanceError REJECTED_BY_TARGET when Orthanc says that it cannot use the file.
        """
        upload = Upload(body, body_bytes)
        request = Request(self.endpoint, "POST", "/instances", Route.STORE)
        exchange = self._wire.exchange(
            request,
            headers=upload.headers,
            body=upload.content,
            body_can_be_resent=upload.can_be_resent,
            deadline_s=deadline_s,
        )
        with self._looking_after_it(), exchange as response:
            return self._parsed(response, request, answers.parse_store, ANSWER_BYTES_MAX)

    # What tells two servers apart, and what comes before a deletion at the source. These calls
    # write (metadata, peers) or make the server read a whole file: only retention and marks
    # use them, by protocols of their own.

    def verify_stored(self, instance_id: str) -> bool:
        """Have the server read its file again and compare the MD5 that it noted at its arrival.

        ``stored_md5`` is that note, and stays right when the file is damaged or lost on disk. So
        does this, for a file that a server with ``MaximumStorageCacheSize`` still has in memory.
        False when the server finds it so; InstanceGone or InstanceError when it lacks the instance.
        """
        path = instance_path(instance_id, "/attachments/dicom/verify-md5")
        request = Request(self.endpoint, "POST", path)
        try:
            with self._explaining_404(instance_id), self._control(request) as response:
                self._parsed(response, request, answers.parse_verified, ANSWER_BYTES_MAX)
        except SideError as exc:
            if exc.specific and exc.problem is SideProblem.SERVER_ERROR:
                return False  # 400 without a body: another MD5; 500: no file
            raise
        return True

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        """Return one metadata of an instance and its ETag ("" where there is none).

        None when the instance has no such metadata. Raises InstanceGone or InstanceError when the
        server lacks the instance.
        """
        request = Request(self.endpoint, "GET", _metadata_path(instance_id, name))
        try:
            with self._control(request) as response:
                etag = answers.parse_etag(response.headers.get("ETag", ""))
                body = self._wire.read(response, request, bytes_max=ANSWER_BYTES_MAX)
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            with self._explaining_404(instance_id):
                if self.has_instance(instance_id):
                    return None
                raise
        return answers.parse_metadata_value(body), etag

    def set_metadata(self, instance_id: str, name: str, value: str) -> str:
        """Set a metadata that is not there yet; returns its ETag, for ``delete_metadata``.

        User-defined metadata are numbers from 1024 on. A server with CheckRevisions refuses it
        (409, SideError) when the metadata is there already.
        """
        return self._metadata("PUT", instance_id, name, value.encode("ascii"))

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        """Delete a metadata of an instance, if it is still the one with this ETag.

        Only a server with CheckRevisions looks at the ETag, and insists on it.
        """
        self._metadata("DELETE", instance_id, name, None, etag=etag)

    def patient_of(self, instance_id: str) -> str:
        """Return the Orthanc ID of an instance's patient."""
        return self._get_of_instance(instance_id, "/patient", answers.parse_resource_id)

    def protect_patient(self, patient_id: str) -> None:
        """Have the server never recycle a patient. Raises SideError unless it then says so."""
        path = resource_path("patients", patient_id, "/protected")
        self._written(Request(self.endpoint, "PUT", path), b"1")
        self._get(path, answers.parse_protected)

    def peers(self) -> dict[str, str]:
        """Return the server's Orthanc peers: name -> address."""
        return self._get("/peers", answers.parse_peers, query="expand")

    def set_peer(self, name: str, url: str) -> None:
        """Add a peer, or replace it. In memory, unless OrthancPeersInDatabase."""
        body = json.dumps({"Url": url}).encode("ascii")
        self._written(Request(self.endpoint, "PUT", _peer_path(name)), body)

    def delete_peer(self, name: str) -> None:
        """Remove a peer; one that is not there is no error."""
        try:
            self._written(Request(self.endpoint, "DELETE", _peer_path(name)), None)
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise

    # What a person's questions need: check, plan, report, doctor.

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
        series = self._children(resource_path("studies", study_id), "Series")
        if series is None:
            return None
        found: list[str] = []
        for series_id in series:
            found += self._children(resource_path("series", series_id), "Instances") or []
        return found

    def study_state(self, study_id: str) -> StudyState | None:
        """Ask whether a study is stable; None when the server lacks it."""
        request = Request(self.endpoint, "GET", resource_path("studies", study_id))
        try:
            told, state = self._get(
                request.path, answers.parse_study_state, bytes_max=CHILDREN_BYTES_MAX
            )
        except SideError as exc:
            self._believe_404(exc)
            return None
        if told != study_id:
            raise not_orthanc(request, "it describes another study")
        return state

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

    def _get(
        self,
        path: str,
        parse: Callable[[bytes], _Answer],
        *,
        query: str = "",
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> _Answer:
        request = Request(self.endpoint, "GET", path)
        with self._control(request, query) as response:
            return self._parsed(response, request, parse, bytes_max)

    def _get_of_instance(
        self,
        instance_id: str,
        rest: str,
        parse: Callable[[bytes], _Answer],
        *,
        query: str = "",
    ) -> _Answer:
        with self._explaining_404(instance_id):
            return self._get(instance_path(instance_id, rest), parse, query=query)

    @contextmanager
    def _control(
        self, request: Request, query: str = "", *, once: bool = False
    ) -> Iterator[httpx.Response]:
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self._wire.exchange(
            request, query=query, body_can_be_resent=not once, deadline_s=deadline_s
        ) as response:
            yield response

    def _parsed(
        self,
        response: httpx.Response,
        request: Request,
        parse: Callable[[bytes], _Answer],
        bytes_max: int,
    ) -> _Answer:
        body = self._wire.read(response, request, bytes_max=bytes_max)
        try:
            return parse(body)
        except WrongAnswer as exc:
            page = is_page(response.headers, body)
            raise not_orthanc(request, str(exc), page=page) from None

    @contextmanager
    def _explaining_404(self, instance_id: str) -> Iterator[None]:
        """Find out what a 404 from one of the instance's routes means."""
        try:
            yield
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            if self.has_instance(instance_id):  # raises when the address is wrong
                # Orthanc answers 404 as well when the file is missing in its storage area.
                raise InstanceError(
                    Reason.SERVER_REFUSES_INSTANCE,
                    f"The {self.endpoint.side} lists instance {instance_id}, but sends no file of "
                    "it, or no MD5 (StoreMD5ForAttachments).",
                    final=False,
                ) from exc
            if self.endpoint.side is SideName.SOURCE:
                raise InstanceGone(f"The source no longer holds instance {instance_id}.") from exc
            raise InstanceError(
                Reason.PROOF_MISMATCH,
                f"The target does not hold instance {instance_id}.",
                final=False,
            ) from exc

    @contextmanager
    def _looking_after_it(self) -> Iterator[None]:
        """Note whether the server is gone that dropped a file while it was at work.

        Whoever asks later, in another process or after a wait, may meet it when it has been started
        again. A time-out is no such drop.
        """
        try:
            yield
        except SideError as exc:
            dropped = exc.begun and exc.problem is not SideProblem.TIMED_OUT
            if dropped and exc.side is self.endpoint.side:
                exc.gone = self._is_gone()
            raise

    def _is_gone(self) -> bool:
        request = Request(self.endpoint, "GET", "/system")
        try:
            with self._wire.exchange(request, retried=False, deadline_s=LOOK_S) as response:
                self._wire.read(response, request, bytes_max=ANSWER_BYTES_MAX)
        except SideError as exc:
            return exc.problem in GONE
        return False

    def _believe_404(self, error: SideError) -> None:
        """Raise the error again unless it is a 404 that tells what the server lacks."""
        if error.problem is not SideProblem.NOT_FOUND or not self._shows_instances():
            raise error

    def _holds(self, kind: str, resource_id: str, *, bytes_max: int = ANSWER_BYTES_MAX) -> bool:
        """Whether the server holds a resource; see ``has_instance``."""
        request = Request(self.endpoint, "GET", resource_path(kind, resource_id))
        try:
            told = self._get(request.path, answers.parse_resource_id, bytes_max=bytes_max)
        except SideError as exc:
            self._believe_404(exc)
            if kind != "instances" or not self.bulk_metadata([resource_id]):
                return False
            if self._describes(resource_id):
                return True  # it has arrived meanwhile
            raise self._hides(resource_id) from exc
        if told != resource_id:
            raise not_orthanc(request, "it describes another resource")
        return True

    def _hides(self, instance_id: str) -> SideError:
        """Return the error for a 404 to an instance that the server describes when asked by POST.

        Something on the way has answered: a cache that keeps 404s, a replica that is behind.
        """
        side = self.endpoint.side
        return side_error(
            side,
            SideProblem.NOT_FOUND,
            f"The {side} answers 404 for instance {instance_id}, and describes it when it is asked "
            "by POST /tools/bulk-content.",
            advice=f"Let no cache answer for the {side}, and no replica that is behind.",
            specific=True,
        )

    def _shows_instances(self) -> bool:
        """Tell whether the server shows an instance that it lists.

        Something on the way may answer 404 for all of them: then none of them is gone. It is asked
        more than once: those that are listed may be deleted at this moment.
        """
        for _ in range(SHOWN):
            try:
                listed = self.list_instances(0, SHOWN)
            except SideError as exc:
                if exc.problem is SideProblem.FORBIDDEN:
                    return True  # so it says what it does not show
                raise  # a wrong base address answers 404 to this as well
            if not listed or any(map(self._describes, listed)):
                return True
        return False

    def _describes(self, instance_id: str) -> bool:
        try:
            return self._get(instance_path(instance_id), answers.parse_resource_id) == instance_id
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            return False

    def _metadata(
        self, method: str, instance_id: str, name: str, body: bytes | None, *, etag: str = ""
    ) -> str:
        request = Request(self.endpoint, method, _metadata_path(instance_id, name))
        headers = [("If-Match", etag)] if etag else []
        with self._explaining_404(instance_id):
            return self._written(request, body, headers)

    def _written(
        self, request: Request, body: bytes | None, headers: Sequence[tuple[str, str]] = ()
    ) -> str:
        """Send a request that writes; returns the ETag of the answer, or ""."""
        deadline_s = CONTROL_DEADLINE_FACTOR * self.endpoint.timeout_s
        with self._wire.exchange(
            request, headers=list(headers), body=body, deadline_s=deadline_s
        ) as response:
            self._wire.read(response, request, bytes_max=ANSWER_BYTES_MAX)
            return answers.parse_etag(response.headers.get("ETag", ""))

    def _children(self, path: str, name: str) -> list[str] | None:
        try:
            return self._get(
                path,
                lambda body: answers.parse_children(body, name),
                bytes_max=CHILDREN_BYTES_MAX,
            )
        except SideError as exc:
            self._believe_404(exc)
            return None


def resource_path(kind: str, resource_id: str, rest: str = "") -> str:
    """Return the path of an instance, a series or a study (``kind``), or of something below it.

    The one place where an identifier becomes part of an address: any other text than one of
    Orthanc's identifiers would ask for something else, with our login. Raises InstanceError.
    """
    if not INSTANCE_ID.fullmatch(resource_id):
        raise InstanceError(
            Reason.INTERNAL,
            f"{visible(shortened(resource_id, SHOWN_CHARACTERS_MAX))!r} is not an identifier of "
            "Orthanc: the bridge sends no request with it.",
        )
    return f"/{kind}/{resource_id}{rest}"


def instance_path(instance_id: str, rest: str = "") -> str:
    """Return the path of an instance, or of something below it. Raises InstanceError."""
    return resource_path("instances", instance_id, rest)


def _page_bytes_max(rows: int) -> int:
    return min(ANSWER_BYTES_MAX + rows * ROW_BYTES_MAX, CHANGES_BYTES_MAX)


def _metadata_path(instance_id: str, name: str) -> str:
    return instance_path(instance_id, f"/metadata/{quote(name, safe='')}")


def _peer_path(name: str) -> str:
    return f"/peers/{quote(name, safe='')}"

"""The calls to one Orthanc server. Synchronous; a client belongs to one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self, TypeVar
from urllib.parse import quote

import httpx

from bridge.core.errors import (
    ConfigurationError,
    InstanceError,
    InstanceGone,
    SideError,
)
from bridge.core.model import Endpoint, Page, Reason, ServerInfo, SideName, SideProblem, StoreAnswer
from bridge.credentials import Credentials
from bridge.orthanc import answers
from bridge.orthanc.answers import Statistics, WrongAnswer
from bridge.orthanc.downloads import INSTANCE_BYTES_MAX, InstanceBody, bounded, content_length
from bridge.orthanc.faults import not_orthanc
from bridge.orthanc.tables import Request, Route
from bridge.orthanc.uploads import Upload
from bridge.orthanc.wire import RetryPolicy, Wire

ANSWER_BYTES_MAX = 1024 * 1024
ROW_BYTES_MAX = 1024
"""A row of /changes or /instances as JSON, indented: about 250 and 50 bytes."""
CHANGES_BYTES_MAX = 64 * 1024 * 1024
CONTROL_DEADLINE_FACTOR = 2
"""A small answer must be complete within this many time-outs, retries included."""

_Answer = TypeVar("_Answer")


class OrthancClient:
    """The REST API of one side.

    Raises SideError for everything that is the server's or the network's fault, and InstanceError
    or InstanceGone for what concerns one instance only.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        *,
        retries: RetryPolicy | None = None,
    ) -> None:
        if not endpoint.url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"BRIDGE_{endpoint.side.name}_URL is not an http:// or https:// address.",
                advice="Give the base address of the REST API, such as http://host:8042.",
            )
        self.endpoint = endpoint
        self._wire = Wire(endpoint, credentials, retries=retries or RetryPolicy())

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
        """Whether the server holds the instance. False is certain: /system answered as well."""
        try:
            self._get(_instance_path(instance_id), lambda _body: None)
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            self.system()  # a wrong base address answers 404 to this as well
            return False
        return True

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Read Orthanc's metadata: TransferSyntax, SopClassUid, RemoteAET, PixelDataOffset, ..."""
        return self._get_of_instance(
            instance_id, "/metadata", answers.parse_metadata, query="expand"
        )

    def stored_md5(self, instance_id: str) -> str:
        """Read the MD5 of the file as stored, before any compression by the storage area."""
        return self._get_of_instance(instance_id, "/attachments/dicom/md5", answers.parse_md5)

    def attachment_size(self, instance_id: str) -> int:
        """Read the size of the file in bytes, before any compression by the storage area."""
        return self._get_of_instance(instance_id, "/attachments/dicom/size", answers.parse_size)

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance. Returns False when it was not there any more.

        Never sent twice: if the first answer is lost, the instance may have come anew meanwhile.
        """
        request = Request(self.endpoint, "DELETE", _instance_path(instance_id))
        try:
            with self._control(request, once=True) as response:
                self._parsed(response, request, answers.parse_deleted, ANSWER_BYTES_MAX)
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            self.system()
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
        request = Request(self.endpoint, "GET", _instance_path(instance_id, "/file"), Route.FILE)
        with ExitStack() as stack:
            with self._explaining_404(instance_id):
                exchange = self._wire.exchange(request, deadline_s=deadline_s)
                response = stack.enter_context(exchange)
            pieces = self._wire.pieces(response, request)
            yield InstanceBody(
                content_length(response.headers, request, bytes_max),
                bounded(pieces, request, bytes_max),
            )

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
        with self._wire.exchange(
            request,
            headers=upload.headers,
            body=upload.content,
            body_can_be_resent=upload.can_be_resent,
            deadline_s=deadline_s,
        ) as response:
            return self._parsed(response, request, answers.parse_store, ANSWER_BYTES_MAX)

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
            return self._get(_instance_path(instance_id, rest), parse, query=query)

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
            raise not_orthanc(request, str(exc)) from None

    @contextmanager
    def _explaining_404(self, instance_id: str) -> Iterator[None]:
        """Find out what a 404 from one of the instance's routes means."""
        try:
            yield
        except SideError as exc:
            if exc.problem is not SideProblem.NOT_FOUND:
                raise
            there = self.has_instance(instance_id)  # raises when the address is wrong
            if there:
                # Orthanc answers 404 as well when the file is missing in its storage area.
                raise InstanceError(
                    Reason.SERVER_REFUSES_INSTANCE,
                    f"The {self.endpoint.side} lists instance {instance_id} but gives no file of "
                    "it, or no MD5 (StoreMD5ForAttachments).",
                    final=False,
                ) from exc
            if self.endpoint.side is SideName.SOURCE:
                raise InstanceGone(
                    f"Instance {instance_id} is not in the source any more."
                ) from exc
            raise InstanceError(
                Reason.PROOF_MISMATCH,
                f"The target does not hold instance {instance_id}.",
                final=False,
            ) from exc


def _instance_path(instance_id: str, rest: str = "") -> str:
    return f"/instances/{quote(instance_id, safe='')}{rest}"


def _page_bytes_max(rows: int) -> int:
    return min(ANSWER_BYTES_MAX + rows * ROW_BYTES_MAX, CHANGES_BYTES_MAX)

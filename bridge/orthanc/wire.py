"""Requests over one pool of connections: deadlines, bounds, retries of seconds.

An httpx transport is used without httpx.Client: no redirects, cookies, proxies or environment
variables can then surprise us, and a request costs half the CPU.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import tenacity

import bridge
from bridge.credentials import Credentials
from bridge.errors import BridgeError, SideError
from bridge.model import Endpoint
from bridge.orthanc.answers import parse_fault
from bridge.orthanc.fault_table import COMPRESSED, HTTPX_ERRORS, Request, Route
from bridge.orthanc.faults import (
    error_of_exception,
    error_of_status,
    is_page,
    is_tls_trouble,
    not_orthanc,
    page_fault,
)
from bridge.orthanc.trace_context import trace_headers
from bridge.orthanc.transport import Line, Transport

CONNECT_TIMEOUT_S = 5.0
ERROR_BODY_BYTES_MAX = 64 * 1024
RETRIED_STATUSES = frozenset({502, 503, 504})
UPSTREAM_LOST = frozenset({502, 504})
"""A proxy's word that the server behind it went away, perhaps with our request in hand."""

Body = bytes | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries inside one call: seconds, for passing faults only. Waits are random (full jitter).

    ``waits=False`` retries at once: for tests.
    """

    attempts_max: int = 3
    total_s: float = 5.0
    first_wait_s: float = 0.1
    wait_s_max: float = 1.0
    waits: bool = True


class _Passing(Exception):
    """An error worth another attempt within this call; never leaves this module."""

    def __init__(self, error: BridgeError) -> None:
        super().__init__(str(error))
        self.error = error


class Wire:
    """Connections to one server, for one thread at a time."""

    def __init__(
        self, endpoint: Endpoint, credentials: Credentials, *, retries: RetryPolicy
    ) -> None:
        self.endpoint = endpoint
        self._headers = [
            ("User-Agent", f"orthanc-bridge/{bridge.__version__}"),
            ("Accept-Encoding", "identity"),  # Orthanc compresses DICOM for those who let it
            ("Accept", "*/*"),
            *_authorization(credentials),
        ]
        self._line = Line()
        self._url: httpx.URL | None = None
        self._begun = False
        """An attempt of the present call reached the server."""
        self._retrying = _retrying(retries)
        self._transport = Transport(endpoint, self._line)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @contextmanager
    def exchange(
        self,
        request: Request,
        *,
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: Body | None = None,
        body_can_be_resent: bool = True,
        retried: bool = True,
        deadline_s: float | None,
    ) -> Iterator[httpx.Response]:
        """Send a request and give its answer, headers read, body not; status 2xx only.

        ``deadline_s`` bounds all of it: retries, sending, and reading the body inside the block.
        ``retried``: what may pass is tried again.
        Raises what the fault tables say.
        """
        with self._line.within(deadline_s):
            if request.method == "GET":
                # Nobody has asked this before: what a cache on the way remembers must never be
                # taken for what the server holds now.
                query = f"{query}{'&' if query else ''}look={secrets.token_hex(4)}"
            target = f"{request.path}{'?' + query if query else ''}"
            resend = request.method == "GET" or body_can_be_resent

            def attempt() -> httpx.Response:
                return self._attempt(
                    request,
                    target,
                    [*self._headers, *headers, *trace_headers()],
                    body,
                    resend=resend,
                )

            self._begun = False
            try:
                response = self._retrying(attempt) if retried else attempt()
            except _Passing as passing:
                raise passing.error from passing.__cause__
            try:
                yield response
            finally:
                response.close()

    def pieces(self, response: httpx.Response, request: Request) -> Iterator[bytes]:
        """Yield the body as it comes; a body that ends early or too late raises SideError."""
        try:
            yield from response.iter_raw()
        except HTTPX_ERRORS as exc:
            raise self._error_of(exc, request) from exc

    def read(self, response: httpx.Response, request: Request, *, bytes_max: int) -> bytes:
        """Read a whole body; raises SideError NOT_ORTHANC above ``bytes_max``."""
        gathered = bytearray()
        for piece in self.pieces(response, request):
            gathered += piece
            if len(gathered) > bytes_max:
                page = is_page(response.headers, bytes(gathered[:64]))
                detail = f"the body has more than {bytes_max} bytes"
                raise not_orthanc(request, detail, page=page)
        return bytes(gathered)

    def _attempt(
        self,
        request: Request,
        target: str,
        headers: list[tuple[str, str]],
        body: Body | None,
        *,
        resend: bool,
    ) -> httpx.Response:
        self._line.begin_attempt()
        timeout_s = self.endpoint.timeout_s
        timeouts = {
            "connect": CONNECT_TIMEOUT_S,
            "read": timeout_s,
            "write": timeout_s,
            "pool": CONNECT_TIMEOUT_S,
        }
        try:
            if self._url is None:
                self._url = httpx.URL(self.endpoint.url)
            response = self._transport.handle_request(
                httpx.Request(
                    request.method,
                    self._url,
                    headers=headers,
                    content=body,
                    # To parse the whole address for each request is a tenth of our CPU.
                    extensions={
                        "timeout": timeouts,
                        "target": self._url.raw_path.rstrip(b"/") + target.encode("ascii"),
                    },
                )
            )
        except HTTPX_ERRORS as exc:
            error = self._error_of(exc, request)
            if resend and self._is_passing(exc, request):
                raise _Passing(error) from exc
            raise error from exc
        # A part of a file (206) or none (204) is not the file.
        if response.status_code == 200 or (
            200 < response.status_code < 300 and request.route is not Route.FILE
        ):
            return self._identity(response, request)
        error = self._error_of_status(response, request)
        if self._may_pass(response.status_code, request):
            raise _Passing(error)
        raise error

    def _is_passing(self, exc: Exception, request: Request) -> bool:
        """Whether another attempt may help, and cannot do the request twice."""
        if isinstance(exc, httpx.TimeoutException) or self._line.is_over:
            return False
        if isinstance(exc, httpx.ConnectError):
            return not is_tls_trouble(exc)
        dropped = isinstance(exc, httpx.NetworkError | httpx.RemoteProtocolError)
        if request.method == "GET" and request.route is not Route.FILE:
            return dropped
        # A kept connection that the server had closed meanwhile: it never saw our request. Of a
        # file that it has seen asked for it may have died, and is not to die of it again at once.
        return dropped and not self._line.opened and not self._line.received

    def _may_pass(self, status: int, request: Request) -> bool:
        """Whether another attempt may be answered otherwise, and cannot do harm."""
        if request.route is Route.FILE and status in UPSTREAM_LOST:
            return False  # it may have died of this file, and is not to die of it again at once
        return request.method == "GET" and status in RETRIED_STATUSES

    def _identity(self, response: httpx.Response, request: Request) -> httpx.Response:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            response.close()
            raise request.fails(COMPRESSED.problem, COMPRESSED.seen, COMPRESSED.advice)
        return response

    def _error_of(self, exc: Exception, request: Request) -> BridgeError:
        error = error_of_exception(
            exc,
            request,
            answer_begun=self._line.received > 0,
            deadline_passed=self._line.is_over,
        )
        if isinstance(error, SideError):
            # A server that died of the first attempt refuses the next one.
            self._begun |= not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
            error.begun = self._begun
        return error

    def _error_of_status(self, response: httpx.Response, request: Request) -> BridgeError:
        try:
            body = self.read(response, request, bytes_max=ERROR_BODY_BYTES_MAX)
        except SideError:
            body = b""  # the status tells enough; an error page may be large or cut short
        finally:
            response.close()
        status = response.status_code
        fault, page = parse_fault(body), page_fault(body)
        error = error_of_status(status, response.headers, fault, request, page=page)
        if isinstance(error, SideError):
            # A proxy does not tell a server that died of our request from one that was not there.
            error.begun = status in UPSTREAM_LOST
        return error


def _retrying(policy: RetryPolicy) -> tenacity.Retrying:
    waits = tenacity.wait_random_exponential(
        multiplier=policy.first_wait_s, max=policy.wait_s_max if policy.waits else 0
    )
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Passing),
        stop=tenacity.stop_after_attempt(policy.attempts_max)
        | tenacity.stop_before_delay(policy.total_s),
        wait=waits,
        reraise=True,
    )


def _authorization(credentials: Credentials) -> list[tuple[str, str]]:
    if credentials.token is not None:
        return [("Authorization", f"Bearer {credentials.token}")]
    if credentials.username is None:
        return []
    pair = f"{credentials.username}:{credentials.password or ''}".encode()
    return [("Authorization", "Basic " + base64.b64encode(pair).decode("ascii"))]

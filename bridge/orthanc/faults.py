"""From what httpx raised, or a status said, to our errors; the tables are next door."""

from __future__ import annotations

import datetime
import email.utils
import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

import httpx

from bridge.core.errors import BridgeError, ConfigurationError, InstanceError, SideError
from bridge.core.model import Reason, SideProblem
from bridge.orthanc import tables
from bridge.orthanc.answers import OrthancFault
from bridge.orthanc.tables import Fault, OurFault, Request, Route

RETRY_AFTER_S_MAX = 300.0
CERTIFICATE_HOST_MISMATCH = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_
CERTIFICATE_EXPIRED = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED
ORTHANC_UNKNOWN_RESOURCE = 17  # ErrorCode_UnknownResource


def error_of_exception(
    exc: Exception, request: Request, *, answer_begun: bool, deadline_passed: bool = False
) -> BridgeError:
    """Map an exception of httpx. ``answer_begun``: at least one byte of an answer had come."""
    entry = _entry_of(exc, answer_begun=answer_begun)
    if entry is OurFault.SETTING:
        return ConfigurationError(
            f"{request.setting('URL')} is not an http:// or https:// address.",
            advice="Correct it.",
        )
    if isinstance(entry, OurFault):
        return BridgeError(
            f"{request.method} {request.path} to the {request.side} was sent wrongly: "
            f"{type(exc).__name__}.",
            advice="This is a defect of orthanc-bridge: please report it.",
        )
    seen = entry.seen
    if entry.problem is SideProblem.TIMED_OUT and deadline_passed:
        seen = "was too slow: the time for the whole transfer is over"
    return request.fails(entry.problem, seen, entry.advice, specific=entry.specific)


def error_of_status(
    status: int,
    headers: Mapping[str, str],
    fault: OrthancFault | None,
    request: Request,
    *,
    page: Fault | None = None,
) -> BridgeError:
    """Map a status that is not 2xx.

    ``fault`` is Orthanc's own error body, ``page`` what a proxy's error page is known to mean.
    """
    said = f"HTTP {status}" + (f", Orthanc error {fault.status}: {fault.text}" if fault else "")
    rejected = fault is not None and (
        status == 400 or (status == 404 and fault.status != ORTHANC_UNKNOWN_RESOURCE)
    )
    if request.route is Route.STORE and rejected:
        # 404 with a code of its own: Orthanc says "inexistent tag" with that status.
        return InstanceError(
            Reason.REJECTED_BY_TARGET, f"{request.server} rejected the file ({said})."
        )
    if 300 <= status < 400:
        return _redirected(status, headers.get("location", ""), request)
    if page is not None:
        entry = page
    elif fault is not None and fault.status in tables.ORTHANC_FAULTS:
        entry = tables.ORTHANC_FAULTS[fault.status]
    elif status in tables.STATUS_FAULTS:
        entry = tables.STATUS_FAULTS[status]
    elif status >= 500:
        entry = tables.SERVER_ERROR
    else:
        entry = tables.REFUSED if status >= 400 else tables.UNEXPECTED
    return request.fails(
        entry.problem,
        f"{entry.seen}: {said}",
        entry.advice,
        # A page for people is a proxy's, which knows nothing of the instance.
        specific=entry.specific and not headers.get("content-type", "").startswith("text/html"),
        retry_after_s=retry_after_s(headers.get("retry-after", "")),
    )


def page_fault(body: bytes) -> Fault | None:
    """Tell what the error page of a proxy means; None when it is not a known one."""
    return next((fault for text, fault in tables.PROXY_PAGES if text in body), None)


def not_orthanc(request: Request, detail: str) -> SideError:
    """Build the error for an answer with a good status and a body that Orthanc would not send."""
    return request.fails(
        SideProblem.NOT_ORTHANC,
        f"answered, but not as Orthanc does: {detail}",
        "Check that {url} is the base address of an Orthanc REST API.",
    )


def retry_after_s(value: str) -> float | None:
    """Read a Retry-After header, seconds or a date; None without one, at most five minutes."""
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    wait_s = (moment - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def is_tls_trouble(exc: Exception) -> bool:
    """Whether TLS, and not the network, made a connection fail."""
    return any(isinstance(cause, ssl.SSLError) for cause in _chain(exc))


def _redirected(status: int, location: str, request: Request) -> SideError:
    # Not followed: the other host would be given our credentials, or the images.
    asked = f"{request.endpoint.url}{request.path}"
    try:
        here, there = urlsplit(asked), urlsplit(urljoin(asked, location))
        same_port = here.port == there.port
    except ValueError:
        return _redirect(request, status, "another path", "Put the final address into {url}.")
    if here.hostname != there.hostname:
        where = f"the host {there.hostname}"
        return _redirect(request, status, where, "Put the final address into {url}.")
    if here.scheme != there.scheme:
        advice = f"Write {there.scheme}:// in {{url}}, with the port that belongs to it."
        return _redirect(request, status, f"{there.scheme}:// on the same host", advice)
    if not same_port:
        return _redirect(request, status, "another port", "Put the final address into {url}.")
    if there.path == f"{here.path}/":
        advice = "Let the proxy pass our paths on as they are: Orthanc's end without a slash."
        return _redirect(request, status, "the same path with a slash at its end", advice)
    advice = "If that is a page to log in at, let {login} do instead; else correct {url}."
    return _redirect(request, status, "another path", advice)


def _redirect(request: Request, status: int, where: str, advice: str) -> SideError:
    return request.fails(
        SideProblem.REDIRECTED,
        f"redirects us to {where}: HTTP {status}",
        f"Redirects are not followed. {advice}",
    )


def _entry_of(exc: Exception, *, answer_begun: bool) -> Fault | OurFault:
    for cause in _chain(exc):
        if isinstance(cause, ssl.SSLError) and not _is_hang_up(cause, exc):
            return _tls_fault(cause)
        if isinstance(cause, socket.gaierror):
            return tables.NO_DNS
        if isinstance(cause, OSError) and cause.errno in {errno.EMFILE, errno.ENFILE}:
            return tables.NO_MORE_FILES
    if isinstance(exc, httpx.RemoteProtocolError) and answer_begun and _is_malformed(exc):
        return tables.NOT_HTTP
    for kind in type(exc).__mro__:
        if kind in tables.HTTPX_FAULTS:
            return tables.HTTPX_FAULTS[kind]
    return OurFault.BUG


def _is_hang_up(cause: ssl.SSLError, exc: Exception) -> bool:
    """Tell a connection that broke during a transfer from a handshake that failed."""
    ended = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return ended and not isinstance(exc, httpx.ConnectError)


def _tls_fault(exc: ssl.SSLError) -> Fault:
    if isinstance(exc, ssl.SSLCertVerificationError):
        if exc.verify_code in CERTIFICATE_HOST_MISMATCH:
            return tables.TLS_HOST
        untrusted = exc.verify_code not in CERTIFICATE_EXPIRED
        fault = tables.TLS_UNKNOWN_CA if untrusted else tables.TLS_EXPIRED
        return replace(fault, seen=f"{fault.seen} ({exc.verify_message})")
    reason = exc.reason or ""
    if "ALERT" in reason:  # the server's objection; to our certificate, as it has seen little else
        return tables.TLS_CLIENT if _is_about_certificate(reason) else tables.TLS_OTHER
    return (
        tables.TLS_NOT_TLS
        if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}
        else tables.TLS_OTHER
    )


def _is_about_certificate(reason: str) -> bool:
    return "CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "HANDSHAKE_FAILURE" in reason


def _is_malformed(exc: httpx.RemoteProtocolError) -> bool:
    """Tell an answer that is not HTTP from one that ended early: h11 has one class for both."""
    text = str(exc)
    return not ("without sending" in text or "closed connection" in text)


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes down to the system's own.

    httpcore raises its exceptions "from None", so the cause may only be found as the context;
    beyond an OSError the context would be whatever our caller was handling.
    """
    while exc is not None and not isinstance(exc, BridgeError):
        yield exc
        exc = None if isinstance(exc, OSError) else exc.__cause__ or exc.__context__

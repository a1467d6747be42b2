"""From what httpx raised, or a status said, to our errors; fault_table.py has the tables."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

import httpx

from bridge.errors import BridgeError, ConfigurationError, InstanceError, SideError
from bridge.model import Reason, SideProblem
from bridge.orthanc import fault_table
from bridge.orthanc.answers import OrthancFault
from bridge.orthanc.fault_table import Fault, OurFault, Request, Route
from bridge.untrusted_text import cleaned, visible

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
            f"The bridge sent {request.method} {request.shown} to the {request.side} in a wrong "
            f"way: {type(exc).__name__}.",
            advice="This is a bug in the bridge: please report it.",
        )
    seen = entry.seen
    if entry.problem is SideProblem.TIMED_OUT and deadline_passed:
        seen = "was too slow: the whole transfer took longer than allowed"
    # What is not HTTP, or does not decode, says nothing of the instance, and may be about that one.
    strange = entry in (fault_table.NOT_HTTP, fault_table.HTTPX_FAULTS[httpx.DecodingError])
    specific = entry.specific or (strange and request.about_instance)
    return request.fails(entry.problem, seen, entry.advice, specific=specific)


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
    elif fault is not None and fault.status in fault_table.ORTHANC_FAULTS:
        entry = fault_table.ORTHANC_FAULTS[fault.status]
    elif status in fault_table.STATUS_FAULTS:
        entry = fault_table.STATUS_FAULTS[status]
    elif status == 501 and is_page(headers):
        # Something on the way that knows no PUT, say: a right that is missing, and no outage.
        entry = fault_table.STATUS_FAULTS[405]
    elif status >= 500:
        entry = fault_table.SERVER_ERROR
    else:
        entry = fault_table.REFUSED if status >= 400 else fault_table.UNEXPECTED
    return request.fails(
        entry.problem,
        f"{entry.seen}: {said}",
        entry.advice,
        specific=(entry.specific or (entry is fault_table.UNEXPECTED and request.about_instance))
        and not is_page(headers),
    )


def page_fault(body: bytes) -> Fault | None:
    """Tell what the error page of a proxy means; None when it is not a known one."""
    return next((fault for text, fault in fault_table.PROXY_PAGES if text in body), None)


def is_page(headers: Mapping[str, str], body: bytes = b"") -> bool:
    """Whether an answer is a page for people: a proxy's, which knows nothing of the instance."""
    told = headers.get("content-type", "").strip().lower()
    return told.startswith("text/html") or body.lstrip()[:1] == b"<"


def not_orthanc(request: Request, detail: str, *, page: bool = False) -> SideError:
    """Build the error for an answer with a good status and a body that Orthanc would not send.

    ``page``: it is a page for people, so the answer is not about an instance.
    """
    return request.fails(
        SideProblem.NOT_ORTHANC,
        f"answered, but not as Orthanc does: {detail}",
        "Check that {url} is the base address of an Orthanc REST API.",
        specific=request.about_instance and not page,
    )


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
        where = f"the host {visible(cleaned(there.hostname or 'none'))}"
        return _redirect(request, status, where, "Put the final address into {url}.")
    if here.scheme != there.scheme:
        advice = f"Write {there.scheme}:// in {{url}}, with the port that belongs to it."
        return _redirect(request, status, f"{there.scheme}:// on the same host", advice)
    if not same_port:
        return _redirect(request, status, "another port", "Put the final address into {url}.")
    if there.path == f"{here.path}/":
        advice = (
            "Configure the proxy to pass on paths unchanged: Orthanc's paths end without a slash."
        )
        return _redirect(request, status, "the same path with a slash at its end", advice)
    advice = (
        "If that is a login page, make the server accept {login} instead. If not, correct {url}."
    )
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
            return fault_table.NO_DNS
        if isinstance(cause, OSError) and cause.errno in {errno.EMFILE, errno.ENFILE}:
            return fault_table.NO_MORE_FILES
    if isinstance(exc, httpx.RemoteProtocolError) and answer_begun and _is_malformed(exc):
        return fault_table.NOT_HTTP
    for kind in type(exc).__mro__:
        if kind in fault_table.HTTPX_FAULTS:
            return fault_table.HTTPX_FAULTS[kind]
    return OurFault.BUG


def _is_hang_up(cause: ssl.SSLError, exc: Exception) -> bool:
    """Tell a connection that broke during a transfer from a handshake that failed."""
    ended = isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return ended and not isinstance(exc, httpx.ConnectError)


def _tls_fault(exc: ssl.SSLError) -> Fault:
    if isinstance(exc, ssl.SSLCertVerificationError):
        if exc.verify_code in CERTIFICATE_HOST_MISMATCH:
            return fault_table.TLS_HOST
        untrusted = exc.verify_code not in CERTIFICATE_EXPIRED
        fault = fault_table.TLS_UNKNOWN_CA if untrusted else fault_table.TLS_EXPIRED
        return replace(fault, seen=f"{fault.seen} ({exc.verify_message})")
    reason = exc.reason or ""
    if "ALERT" in reason:  # the server's objection; to our certificate, as it has seen little else
        return fault_table.TLS_CLIENT if _is_about_certificate(reason) else fault_table.TLS_OTHER
    return (
        fault_table.TLS_NOT_TLS
        if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}
        else fault_table.TLS_OTHER
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

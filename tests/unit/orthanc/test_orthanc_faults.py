"""The tables: every exception of httpx and every status is one of our errors, with an advice."""

from __future__ import annotations

import errno
import inspect
import socket

import httpx
import pytest

from bridge.errors import (
    BridgeError,
    ConfigurationError,
    InstanceError,
    SideError,
    SourceError,
    TargetError,
    side_error,
)
from bridge.model import Endpoint, Reason, SideName, SideProblem
from bridge.orthanc.answers import OrthancFault, parse_fault
from bridge.orthanc.fault_table import (
    HTTPX_ERRORS,
    HTTPX_FAULTS,
    Fault,
    Need,
    OurFault,
    Request,
    Route,
    lacks_right,
)
from bridge.orthanc.faults import error_of_exception, error_of_status

HIDDEN = "s3cret"
ENDPOINT = Endpoint(SideName.TARGET, f"http://user:{HIDDEN}@pacs.example:8042/orthanc")
GET = Request(ENDPOINT, "GET", "/system")
STORE = Request(ENDPOINT, "POST", "/instances", Route.STORE)
BAD_FILE = OrthancFault(15, "Bad file format", "/instances")


def httpx_exceptions() -> list[type[Exception]]:
    named = (getattr(httpx, name) for name in httpx.__all__)
    return [kind for kind in named if inspect.isclass(kind) and issubclass(kind, Exception)]


def raised(kind: type[Exception]) -> Exception:
    if issubclass(kind, httpx.HTTPStatusError):
        request = httpx.Request("GET", "http://x")
        return kind("quoted", request=request, response=httpx.Response(500))
    if kind in {httpx.StreamConsumed, httpx.ResponseNotRead, httpx.RequestNotRead}:
        return kind()
    if kind is httpx.StreamClosed:
        return kind()
    return kind("quoted")


def of_exception(exc: Exception, *, answer_begun: bool = False) -> BridgeError:
    return error_of_exception(exc, GET, answer_begun=answer_begun)


def test_the_table_has_every_exception_of_httpx() -> None:
    kinds = set(httpx_exceptions())
    assert len(kinds) > 20
    assert set(HTTPX_FAULTS) == kinds
    assert all(issubclass(kind, HTTPX_ERRORS) for kind in kinds)


@pytest.mark.parametrize("kind", httpx_exceptions(), ids=lambda kind: str(kind.__name__))
def test_every_exception_becomes_ours_and_quotes_nothing(kind: type[Exception]) -> None:
    error = of_exception(raised(kind))
    entry = HTTPX_FAULTS[kind]
    if isinstance(entry, Fault):
        assert isinstance(error, TargetError)
        assert error.problem is entry.problem
        assert "The target at http://pacs.example:8042/orthanc" in error.message
        assert "GET /system" in error.message
    elif entry is OurFault.SETTING:
        assert isinstance(error, ConfigurationError)
        assert "BRIDGE_TARGET_URL" in error.message
    else:
        assert type(error) is BridgeError
    assert HIDDEN not in str(error)
    assert "quoted" not in str(error)
    assert "{" not in str(error)


def test_a_name_that_does_not_resolve_is_told_from_a_refused_connection() -> None:
    exc = httpx.ConnectError("x")
    exc.__cause__ = socket.gaierror(-2, "Name or service not known")
    error = of_exception(exc)
    assert isinstance(error, SideError)
    assert error.problem is SideProblem.UNREACHABLE
    assert "does not resolve" in error.message
    assert "refuses connections" in of_exception(httpx.ConnectError("x")).message


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_our_own_want_of_files_is_not_told_as_the_servers_refusal(number: int) -> None:
    exc = httpx.ConnectError("x")
    exc.__cause__ = OSError(number, "Too many open files")
    error = of_exception(exc)
    assert isinstance(error, SideError)
    assert error.problem is SideProblem.UNREACHABLE
    assert "not open more files" in error.message
    assert "ulimit" in error.advice


def test_what_our_caller_was_handling_does_not_count() -> None:
    exc = httpx.ConnectError("x")
    exc.__context__ = ConnectionRefusedError(111, "refused")
    exc.__context__.__context__ = socket.gaierror(-2, "of another call")
    assert "refuses connections" in of_exception(exc).message


def test_an_answer_that_is_not_http_is_told_from_one_that_ends_early() -> None:
    garbage = of_exception(httpx.RemoteProtocolError("illegal status line"), answer_begun=True)
    cut = of_exception(
        httpx.RemoteProtocolError(
            "peer closed connection without sending complete message body (incomplete read)"
        ),
        answer_begun=True,
    )
    assert isinstance(garbage, SideError)
    assert isinstance(cut, SideError)
    assert garbage.problem is SideProblem.NOT_ORTHANC
    assert cut.problem is SideProblem.UNREACHABLE


@pytest.mark.parametrize(
    ("exc", "specific"),
    [
        (httpx.RemoteProtocolError("illegal status line"), True),
        (httpx.DecodingError("x"), True),
        (httpx.RemoteProtocolError("peer closed connection without sending"), False),
        (httpx.ReadError("x"), False),
        (httpx.ReadTimeout("x"), False),
    ],
)
def test_nonsense_in_answer_to_an_instance_may_be_about_that_one(
    exc: Exception, specific: bool
) -> None:
    """Else it would be sent again for ever while others are served."""
    about = error_of_exception(exc, STORE, answer_begun=True)
    general = error_of_exception(exc, GET, answer_begun=True)
    assert isinstance(about, SideError)
    assert isinstance(general, SideError)
    assert (about.specific, general.specific) == (specific, False)


@pytest.mark.parametrize(
    ("status", "problem", "specific"),
    [
        (301, SideProblem.REDIRECTED, False),
        (304, SideProblem.REDIRECTED, False),
        (400, SideProblem.SERVER_ERROR, True),  # without Orthanc's own error: a proxy's, perhaps
        (401, SideProblem.LOGIN_REFUSED, False),
        (403, SideProblem.FORBIDDEN, False),
        (404, SideProblem.NOT_FOUND, False),
        (405, SideProblem.FORBIDDEN, False),
        (407, SideProblem.FORBIDDEN, False),
        (408, SideProblem.SERVER_ERROR, False),
        (409, SideProblem.SERVER_ERROR, True),
        (411, SideProblem.BODY_LIMIT, False),
        (413, SideProblem.BODY_LIMIT, False),
        (422, SideProblem.SERVER_ERROR, True),
        (429, SideProblem.SERVER_ERROR, False),
        (500, SideProblem.SERVER_ERROR, True),
        (501, SideProblem.SERVER_ERROR, True),
        (502, SideProblem.SERVER_ERROR, False),
        (503, SideProblem.SERVER_ERROR, False),
        (504, SideProblem.SERVER_ERROR, False),
        (507, SideProblem.STORAGE_FULL, False),
        (599, SideProblem.SERVER_ERROR, True),
    ],
)
@pytest.mark.parametrize("request_", [GET, STORE], ids=["get", "store"])
def test_statuses(status: int, problem: SideProblem, specific: bool, request_: Request) -> None:
    error = error_of_status(status, {}, None, request_)
    assert isinstance(error, TargetError)
    assert (error.problem, error.specific) == (problem, specific)
    assert str(status) in error.message
    assert HIDDEN not in str(error)
    assert error.advice


@pytest.mark.parametrize("request_", [GET, STORE], ids=["get", "store"])
def test_a_page_that_says_that_a_method_is_unknown_is_a_right_that_is_missing(
    request_: Request,
) -> None:
    error = error_of_status(501, {"content-type": "text/html;charset=utf-8"}, None, request_)
    assert isinstance(error, SideError)
    assert (error.problem, error.specific) == (SideProblem.FORBIDDEN, False)
    assert "HTTP 501" in error.message


def test_no_status_is_left_out() -> None:
    errors = [error_of_status(status, {}, None, STORE) for status in range(100, 600)]
    assert all(isinstance(error, SideError) for error in errors)


@pytest.mark.parametrize(
    ("status", "fault"),
    [(400, BAD_FILE), (404, OrthancFault(21, "Inexistent tag", "/instances"))],
    ids=["bad file", "no UIDs"],
)
def test_orthancs_verdict_on_an_upload_is_the_instances_fault(
    status: int, fault: OrthancFault
) -> None:
    error = error_of_status(status, {}, fault, STORE)
    assert isinstance(error, InstanceError)
    assert (error.reason, error.final) == (Reason.REJECTED_BY_TARGET, True)
    assert fault.text in error.message
    assert isinstance(error_of_status(status, {}, fault, GET), SideError)


def test_an_upload_to_a_path_that_orthanc_does_not_know_is_an_outage() -> None:
    error = error_of_status(404, {}, OrthancFault(17, "Unknown resource", "/x/instances"), STORE)
    assert isinstance(error, SideError)
    assert error.problem is SideProblem.NOT_FOUND


@pytest.mark.parametrize("code", [14, 19])
def test_orthancs_storage_errors_come_with_status_500(code: int) -> None:
    error = error_of_status(500, {}, OrthancFault(code, "x"), STORE)
    assert isinstance(error, SideError)
    assert (error.problem, error.specific) == (SideProblem.STORAGE_FULL, False)


@pytest.mark.parametrize("request_", [STORE, GET], ids=["upload", "download"])
@pytest.mark.parametrize("code", [11, 42])
def test_trouble_with_the_database_is_nobodys_fault(code: int, request_: Request) -> None:
    error = error_of_status(500, {}, OrthancFault(code, "x"), request_)
    assert isinstance(error, SideError)
    assert (error.problem, error.specific) == (SideProblem.SERVER_ERROR, False)
    assert "database" in error.message


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (f"https://other.example/?token={HIDDEN}", "the host other.example"),
        (f"https://u:{HIDDEN}@other.example:1/p", "the host other.example"),
        (f"/login?{HIDDEN}", "another path"),
        ("https://[broken", "another path"),
        ("", "another path"),
    ],
)
def test_a_redirect_names_the_host_only(location: str, said: str) -> None:
    error = error_of_status(302, {"location": location}, None, GET)
    assert isinstance(error, SideError)
    assert said in error.message
    assert HIDDEN not in str(error)
    assert "BRIDGE_TARGET_URL" in error.advice


def test_the_side_is_the_endpoints() -> None:
    source = Request(Endpoint(SideName.SOURCE, "http://a"), "GET", "/changes")
    error = error_of_status(401, {}, None, source)
    assert isinstance(error, SourceError)
    assert "BRIDGE_SOURCE_PASSWORD" in error.advice


def test_only_code_and_text_of_orthancs_error_are_kept() -> None:
    body = (
        b'{"Details": "patient DOE^JOHN", "HttpError": "Bad Request", "Message": "DOE^JOHN",'
        b' "OrthancError": "Bad file\\nformat \xc3\xa9", "OrthancStatus": 15, "Uri": "/instances"}'
    )
    fault = parse_fault(body)
    assert fault == OrthancFault(15, "Bad file?format ?", "/instances")
    assert "DOE" not in str(error_of_status(400, {}, fault, STORE))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"OrthancError": "x"}', b'{"OrthancStatus": 1}', b"[" * 99999],
)
def test_other_bodies_are_no_fault_of_orthanc(body: bytes) -> None:
    assert parse_fault(body) is None


def test_a_very_long_error_text_is_not_quoted() -> None:
    body = b'{"OrthancStatus": 15, "OrthancError": "' + b"x" * 5000 + b'"}'
    assert parse_fault(body) is None


@pytest.mark.parametrize(
    ("content_type", "specific"),
    [("text/html", False), ("application/json", True), ("", True)],
)
def test_a_page_for_people_is_no_answer_about_an_instance(
    content_type: str, specific: bool
) -> None:
    error = error_of_status(500, {"content-type": content_type}, None, STORE)
    assert isinstance(error, SideError)
    assert (error.problem, error.specific) == (SideProblem.SERVER_ERROR, specific)


READING = {SideProblem.FORBIDDEN, SideProblem.NOT_FOUND, SideProblem.NOT_ORTHANC}
WRITING = READING | {SideProblem.LOGIN_REFUSED, SideProblem.REDIRECTED}
RIGHTS = {Need.LOOK: READING, Need.LOOK_AT_ONE: READING, Need.WRITE: WRITING}


@pytest.mark.parametrize("problem", SideProblem)
@pytest.mark.parametrize("need", Need)
@pytest.mark.parametrize("specific", [True, False])
def test_an_answer_is_a_right_that_lacks_or_an_outage(
    need: Need, problem: SideProblem, specific: bool
) -> None:
    error = side_error(SideName.SOURCE, problem, "no", specific=specific)
    failed_at_one = specific and need is not Need.LOOK
    assert lacks_right(error, need) is (failed_at_one or problem in RIGHTS[need])

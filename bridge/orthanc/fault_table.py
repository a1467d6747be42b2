"""One table for what httpx raises, one for what HTTP says: each entry is ours, with an advice.

A message names the side, its address without user information, the method and the path, and what
was seen. It quotes no query, no header, and of a body only Orthanc's own error code and text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit

import httpx

from bridge.credentials import login_settings
from bridge.errors import SideError, side_error
from bridge.model import Endpoint, SideName, SideProblem


class Route(Enum):
    """What kind of request it was: the same status means different things."""

    STORE = auto()
    FILE = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """Which request to which server: what every message begins with."""

    endpoint: Endpoint
    method: str
    path: str
    route: Route = Route.OTHER
    hidden: int = 0
    """So many characters at the end of the path are told to nobody: what a user has written."""

    @property
    def shown(self) -> str:
        """The path, as messages tell it."""
        return f"{self.path[: -self.hidden]}..." if self.hidden else self.path

    @property
    def side(self) -> SideName:
        """The side that it went to."""
        return self.endpoint.side

    @property
    def about_instance(self) -> bool:
        """Whether it asks for one instance or sends one: a strange answer may be about that one."""
        return self.route is not Route.OTHER or self.path.startswith("/instances/")

    @property
    def server(self) -> str:
        """The side and its address, without user information."""
        return f"The {self.side} at {without_user(self.endpoint.url)}"

    def setting(self, name: str) -> str:
        """Return the full name of one of this side's settings."""
        return f"BRIDGE_{self.side.name}_{name}"

    def fails(
        self,
        problem: SideProblem,
        seen: str,
        advice: str,
        *,
        specific: bool = False,
    ) -> SideError:
        """Build the error for what was ``seen`` in answer to this request."""
        return side_error(
            self.side,
            problem,
            f"{self.server} {seen} ({self.method} {self.shown}).",
            advice=advice.format(
                url=self.setting("URL"),
                login=login_settings(self.side) if "{login}" in advice else "",
                ca=self.setting("CA_FILE"),
                certificate=f"{self.setting('CLIENT_CERT_FILE')} and "
                f"{self.setting('CLIENT_KEY_FILE')}",
                timeout="BRIDGE_HTTP_TIMEOUT_S",
            ),
            specific=specific,
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """A table's entry: the problem, what the message says was seen, and what to do about it."""

    problem: SideProblem
    seen: str
    advice: str
    specific: bool = False


class OurFault(Enum):
    """Exceptions of httpx that no server can cause."""

    SETTING = auto()
    BUG = auto()


_CHECK_RUNNING = "Check that it is running and that {url} is right."
_CHECK_BEHIND = "Check that it is running, and where the proxy passes {url} on to."
_CHECK_PORT = "If this does not end, check the port in {url}, and http:// against https://."
_CHECK_LOGS = "If this does not end, read the log of the server, and of any proxy in front of it."
_CHECK_LOAD = "It may be overloaded or suspended; if it is merely slow, raise {timeout}."

HTTPX_FAULTS: Mapping[type[Exception], Fault | OurFault] = {
    httpx.ConnectTimeout: Fault(
        SideProblem.TIMED_OUT, "did not accept a connection in time", _CHECK_RUNNING
    ),
    httpx.ReadTimeout: Fault(SideProblem.TIMED_OUT, "did not answer in time", _CHECK_LOAD),
    httpx.WriteTimeout: Fault(SideProblem.TIMED_OUT, "stopped reading the request", _CHECK_LOAD),
    httpx.ConnectError: Fault(SideProblem.UNREACHABLE, "refuses connections", _CHECK_RUNNING),
    httpx.ReadError: Fault(
        SideProblem.UNREACHABLE,
        "broke the connection before its answer was complete",
        _CHECK_PORT,
    ),
    httpx.WriteError: Fault(
        SideProblem.UNREACHABLE, "broke the connection while the request was sent", _CHECK_LOGS
    ),
    httpx.CloseError: Fault(SideProblem.UNREACHABLE, "closed the connection", _CHECK_LOGS),
    httpx.RemoteProtocolError: Fault(
        SideProblem.UNREACHABLE,
        "ended the connection before its answer was complete",
        _CHECK_PORT,
    ),
    httpx.ProxyError: Fault(SideProblem.UNREACHABLE, "is behind a proxy that failed", _CHECK_LOGS),
    httpx.DecodingError: Fault(
        SideProblem.NOT_ORTHANC, "sent a body that does not decode", _CHECK_RUNNING
    ),
    httpx.TooManyRedirects: Fault(SideProblem.REDIRECTED, "redirects in circles", "Correct {url}."),
    # The classes above these are never raised themselves; a later httpx may add a new leaf.
    httpx.NetworkError: Fault(SideProblem.UNREACHABLE, "broke the connection", _CHECK_LOGS),
    httpx.TimeoutException: Fault(SideProblem.TIMED_OUT, "did not answer in time", _CHECK_LOAD),
    httpx.ProtocolError: Fault(SideProblem.UNREACHABLE, "violated HTTP", _CHECK_LOGS),
    httpx.TransportError: Fault(SideProblem.UNREACHABLE, "could not be reached", _CHECK_RUNNING),
    httpx.UnsupportedProtocol: OurFault.SETTING,
    httpx.InvalidURL: OurFault.SETTING,
    httpx.PoolTimeout: OurFault.BUG,  # more answers open at once than a client has connections
    httpx.LocalProtocolError: OurFault.BUG,
    httpx.HTTPStatusError: OurFault.BUG,
    httpx.RequestError: OurFault.BUG,
    httpx.HTTPError: OurFault.BUG,
    httpx.CookieConflict: OurFault.BUG,
    httpx.StreamError: OurFault.BUG,
    httpx.StreamConsumed: OurFault.BUG,
    httpx.StreamClosed: OurFault.BUG,
    httpx.ResponseNotRead: OurFault.BUG,
    httpx.RequestNotRead: OurFault.BUG,
}

HTTPX_ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)

NO_DNS = Fault(SideProblem.UNREACHABLE, "has a host name that does not resolve", "Check {url}.")
NO_MORE_FILES = Fault(
    SideProblem.UNREACHABLE,
    "could not be asked: this process may not open more files or connections",
    "The server is not the cause: raise the limit of the bridge (ulimit -n, LimitNOFILE=).",
)
NOT_HTTP = Fault(
    SideProblem.NOT_ORTHANC,
    "answered something that is not HTTP",
    "Check the port in {url}, and http:// against https://.",
)
TLS_HOST = Fault(
    SideProblem.TLS,
    "showed a certificate for another host name",
    "Use a name that its certificate has in {url}, or give the server a matching certificate.",
)
TLS_EXPIRED = Fault(
    SideProblem.TLS,
    "showed a certificate that has expired or is not valid yet",
    "Renew the server's certificate, and check both clocks.",
)
TLS_UNKNOWN_CA = Fault(
    SideProblem.TLS,
    "showed a certificate that no trusted authority signed",
    "Name the authority's certificate (PEM) in {ca}.",
)
TLS_CLIENT = Fault(
    SideProblem.TLS,
    "refused the bridge's client certificate, or requires one",
    "Check {certificate}: it must be signed by an authority that the server trusts.",
)
TLS_NOT_TLS = Fault(
    SideProblem.TLS,
    "does not speak TLS on this port",
    "Use http:// in {url}, or the port that speaks TLS.",
)
TLS_OTHER = Fault(
    SideProblem.TLS, "failed the TLS handshake", "Check the TLS settings of both ends."
)

TLS_SPOKEN = Fault(
    SideProblem.TLS,
    "requires TLS on this port",
    "Use https:// in {url}, or the port that does not.",
)
COMPRESSED = Fault(
    SideProblem.NOT_ORTHANC,
    "compressed its answer although it was asked not to",
    "A proxy in front of it must pass on Accept-Encoding unchanged (nginx: no proxy_set_header "
    "Accept-Encoding).",
)

_ASK_ITS_LOG = "The server's own log says why."

PROXY_PAGES: tuple[tuple[bytes, Fault], ...] = (
    # Statuses 400 of nginx and Apache that tell nothing, with pages that do.
    (b"plain HTTP request was sent to HTTPS port", TLS_SPOKEN),
    (b"speaking plain HTTP to an SSL-enabled server port", TLS_SPOKEN),
    (b"No required SSL certificate was sent", TLS_CLIENT),
    (b"The SSL certificate error", TLS_CLIENT),
)

STATUS_FAULTS: Mapping[int, Fault] = {
    401: Fault(SideProblem.LOGIN_REFUSED, "refused the login", "Check {login}."),
    403: Fault(
        SideProblem.FORBIDDEN,
        "forbids this request",
        "Allow it for the bridge's user or address (Orthanc: RemoteAccessAllowed, or a filter "
        "script; a proxy in front of it: its rules, its log).",
    ),
    404: Fault(SideProblem.NOT_FOUND, "does not know this path", "Check the path in {url}."),
    405: Fault(
        SideProblem.FORBIDDEN,
        "does not allow this method",
        "Check whether the server is read-only, and whether {url} is right.",
    ),
    407: Fault(SideProblem.FORBIDDEN, "is behind a proxy that requires a login", "Check {url}."),
    408: Fault(SideProblem.SERVER_ERROR, "gave up waiting for the request", _CHECK_LOAD),
    411: Fault(
        SideProblem.BODY_LIMIT,
        "is behind a proxy that refuses chunked uploads",
        "Allow chunked request bodies in the proxy.",
    ),
    413: Fault(
        SideProblem.BODY_LIMIT,
        "is behind a proxy that refuses a body of this size",
        "Raise the proxy's limit (nginx: client_max_body_size).",
    ),
    429: Fault(SideProblem.SERVER_ERROR, "asks the bridge to slow down", _ASK_ITS_LOG),
    502: Fault(
        SideProblem.SERVER_ERROR,
        "is behind a proxy that cannot reach it, or lost it while it worked",
        _CHECK_BEHIND,
    ),
    503: Fault(SideProblem.SERVER_ERROR, "says that it is unavailable", _ASK_ITS_LOG),
    504: Fault(
        SideProblem.SERVER_ERROR,
        "is behind a proxy that got no answer from it in time",
        f"{_CHECK_BEHIND} If it is merely slow, raise the proxy's time-out (nginx: "
        "proxy_read_timeout).",
    ),
    507: Fault(
        SideProblem.STORAGE_FULL,
        "has no storage left",
        "Free or add storage there (Orthanc: MaximumStorageSize, MaximumPatientCount; an instance "
        "larger than the limit never fits).",
    ),
}

_DATABASE = Fault(
    SideProblem.SERVER_ERROR,
    "has trouble with its database",
    "Check the database; the server's own log says why.",
)

ORTHANC_FAULTS: Mapping[int, Fault] = {
    # Orthanc's own codes, where they say more than the status (500) that comes with them.
    # After its database was restarted each connection of Orthanc's pool fails one request more,
    # between others that succeed: that must not be held against whoever got it.
    11: _DATABASE,  # Database
    42: _DATABASE,  # DatabaseCannotSerialize
    14: Fault(  # CannotWriteFile
        SideProblem.STORAGE_FULL, "could not write the file", "Check its storage: space, rights."
    ),
    19: STATUS_FAULTS[507],  # FullStorage
}

SERVER_ERROR = Fault(
    SideProblem.SERVER_ERROR, "failed at this request", _ASK_ITS_LOG, specific=True
)
REFUSED = Fault(SideProblem.SERVER_ERROR, "refused this request", _ASK_ITS_LOG, specific=True)
UNEXPECTED = Fault(
    SideProblem.NOT_ORTHANC, "gave an answer that Orthanc does not give", _CHECK_RUNNING
)


class Need(Enum):
    """What a request is for that we can do without."""

    LOOK = auto()
    """At what concerns the whole server: its feed, its list, its peers."""
    LOOK_AT_ONE = auto()
    """At one instance."""
    WRITE = auto()


_NO_SUCH_PAGE = frozenset({SideProblem.FORBIDDEN, SideProblem.NOT_FOUND, SideProblem.NOT_ORTHANC})
"""What a login without that right, a proxy or something older than Orthanc answers."""
_OTHER_LOGIN = frozenset({SideProblem.LOGIN_REFUSED, SideProblem.REDIRECTED})
"""What a proxy answers that asks for another login, or leads elsewhere, where one writes."""


def lacks_right(error: SideError, need: Need) -> bool:
    """Tell whether an answer is a right that we lack, or (False) an outage.

    What a server fails at is an outage where everybody needs it, such as its feed.
    """
    if need is not Need.LOOK and error.specific:
        return True
    return error.problem in (_NO_SUCH_PAGE | _OTHER_LOGIN if need is Need.WRITE else _NO_SUCH_PAGE)


def without_user(url: str) -> str:
    """Return ``url`` without user information, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

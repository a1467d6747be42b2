"""The monitoring server: read-only, beside the pipeline, never in its way.

It runs in a thread of its own and reads what the pipeline last reported.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import bridge
from bridge.core.errors import ConfigurationError, StateError
from bridge.core.events import Event, FeedReset, Progress, SideView
from bridge.core.health import Finding, HealthLimits, judge, lag_of, unready
from bridge.ledger import Ledger
from bridge.metrics import Metrics
from bridge.page import PAGE_HTML

PARKED_FRESH_S = 1.0
START_TIMEOUT_S = 10.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUESTS_MAX = 64
KEEP_ALIVE_S = 5

NOT_CONTACTED = Progress(
    source=SideView(up=False, problem="not_contacted", message="The source was not asked yet."),
    target=SideView(up=False, problem="not_contacted", message="The target was not asked yet."),
)


class Board:
    """What the pipeline last reported, for other threads. Values are replaced, never changed."""

    def __init__(self, state_path: Path, limits: HealthLimits) -> None:
        self._state_path = state_path
        self._limits = limits
        self._lock = threading.Lock()
        self._parked: Mapping[str, int] = {}
        self._parked_at_s = 0.0
        self._state_error = ""
        self._feed_reset = ""
        self.progress: Progress = NOT_CONTACTED

    def on_event(self, event: Event) -> None:
        """Remember that the feed was reset."""
        if isinstance(event, FeedReset):
            self._feed_reset = event.message

    def on_progress(self, progress: Progress) -> None:
        """Take the newest report. A snapshot that is over has answered a feed reset."""
        if self.progress.phase == "snapshot" and progress.phase == "following":
            self._feed_reset = ""
        self.progress = progress

    def parked(self) -> Mapping[str, int]:
        """Count the parked instances by reason; at most a second old.

        Read from the file, since commands beside this process park and unpark too.
        """
        with self._lock:
            if time.monotonic() - self._parked_at_s >= PARKED_FRESH_S:
                try:
                    with Ledger(self._state_path, create=False) as ledger:
                        self._parked = ledger.parked_by_reason()
                    self._state_error = ""
                except StateError as exc:
                    self._state_error = exc.message
                self._parked_at_s = time.monotonic()
            return self._parked

    def findings(self) -> tuple[Finding, ...]:
        """List what is wrong now."""
        parked = self.parked()
        found = judge(
            self.progress, parked, self._limits, now=time.time(), feed_reset=self._feed_reset
        )
        if self._state_error and not self.progress.state_error:
            found = (*found, Finding("state_unreadable", self._state_error))
        return found

    def status(self) -> dict[str, object]:
        """Return everything known, as JSON-ready values."""
        progress = self.progress
        now = time.time()
        parked = dict(self.parked())
        found = self.findings()
        lag = lag_of(progress, now=now)
        return {
            "status": "ok" if not found else "failing",
            "reasons": [asdict(finding) for finding in found],
            "version": bridge.__version__,
            "phase": progress.phase,
            "checkpoint": progress.checkpoint,
            "last": progress.last,
            "caught_up": progress.caught_up,
            "lag_changes": lag.changes,
            "lag_s": round(lag.seconds, 1),
            "oldest_unfinished": progress.oldest_open,
            "oldest_unfinished_changed_at": progress.oldest_changed_at,
            "waiting": progress.waiting + progress.delayed,
            "in_flight": [
                {
                    "instance": item.instance_id,
                    "sequence": item.sequence,
                    "attempt": item.attempt,
                    "age_s": round(now - item.started_at, 1),
                }
                for item in progress.in_flight
            ],
            "parked": parked,
            "parked_total": sum(parked.values()),
            "source": asdict(progress.source),
            "target": asdict(progress.target),
            "feed_read_at": progress.feed_read_at,
            "last_progress_at": progress.last_progress_at or None,
        }


def application(board: Board, metrics: Metrics) -> Starlette:
    """Build the ASGI application. Every route answers GET only."""

    def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_: Request) -> Response:
        found = unready(board.progress)
        body = {
            "ready": not found,
            "reasons": [asdict(finding) for finding in found],
        }
        return JSONResponse(body, status_code=503 if found else 200)

    def health(_: Request) -> Response:
        status = board.status()
        in_flight = status["in_flight"]
        status["in_flight"] = len(in_flight) if isinstance(in_flight, list) else 0
        return JSONResponse(status, status_code=200 if status["status"] == "ok" else 503)

    def metrics_text(_: Request) -> Response:
        return Response(metrics.render(), media_type=METRICS_TYPE)

    def api_status(_: Request) -> Response:
        return JSONResponse(board.status())

    def page(_: Request) -> Response:
        return Response(PAGE_HTML, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/health", health),
            Route("/metrics", metrics_text),
            Route("/api/status", api_status),
            Route("/", page),
        ]
    )


PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class MonitoringServer:
    """Serves the application in a thread of its own; signals stay the service's business."""

    def __init__(self, app: Starlette, *, host: str, port: int) -> None:
        self._socket = _bind(host, port)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            limit_concurrency=REQUESTS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="monitoring", daemon=True
        )

    @property
    def url(self) -> str:
        """Return the address that it listens on."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; bounded."""
        self._server.should_exit = True
        self._thread.join(timeout=START_TIMEOUT_S)
        self._socket.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Listening from now on: a bound port alone is not ours yet (another process that only
        # binds it too finds out too late), and the address that is printed must be there.
        listener.listen(REQUESTS_MAX)
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that no resolver takes
        listener.close()
        seen = exc.strerror or exc if isinstance(exc, OSError) else "is not a host name"
        raise ConfigurationError(
            f"BRIDGE_HEALTH_HOST {host}, BRIDGE_HEALTH_PORT {port}: {seen}.",
            advice="Choose another port; 0 takes any free one.",
        ) from exc
    return listener

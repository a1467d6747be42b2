"""The monitoring server: beside the pipeline, never in its way; it reads, and takes pokes.

It runs in a thread of its own and reads what the pipeline last reported.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import asdict
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bridge.errors import ConfigurationError, StateError
from bridge.monitoring.actions import ACTION_POSTS, ACTIONS_PATH, Actions
from bridge.monitoring.board import Board
from bridge.monitoring.guard import (
    CONNECTIONS_MAX,
    HEAD_BYTES_MAX,
    BoundedConnection,
    Guard,
    is_loopback,
)
from bridge.monitoring.health import unready
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.openapi import OPENAPI_PATH, description
from bridge.monitoring.own_tls import RenewedCertificate, TlsDoor, TlsDoors
from bridge.monitoring.page_files import PAGE_FILES, PAGE_HEADERS
from bridge.monitoring.poke import POKE_PATH, PokeReceiver
from bridge.monitoring.studies import NoSuchPage
from bridge.untrusted_text import visible_values

START_TIMEOUT_S = 10.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_TYPE = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
KEEP_ALIVE_S = 5


def application(
    board: Board,
    metrics: Metrics,
    pokes: PokeReceiver | None = None,
    actions: Actions | None = None,
) -> Starlette:
    """Build the ASGI application. It only reads, but for ``pokes`` and ``actions``."""

    def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_: Request) -> Response:
        found = unready(board.progress)
        body = {
            "ready": not found,
            "reasons": [asdict(problem) for problem in found],
        }
        return _Json(body, status_code=503 if found else 200)

    def health(_: Request) -> Response:
        status = board.health()
        return _Json(status, status_code=200 if status["status"] == "ok" else 503)

    def metrics_text(request: Request) -> Response:
        if OPENMETRICS in request.headers.get("accept", ""):
            return Response(metrics.render_openmetrics(), media_type=OPENMETRICS_TYPE)
        return Response(metrics.render(), media_type=METRICS_TYPE)

    def api_status(_: Request) -> Response:
        command = None if actions is None else actions.command_fields()
        return _Json(board.status() | {"acts": actions is not None, "command_beside": command})

    def api_throughput(_: Request) -> Response:
        return _Json(board.throughput())

    def api_studies(request: Request) -> Response:
        asked = request.query_params
        if asked.get("incomplete", "") not in ("", "0", "1"):
            return _Json({"message": "incomplete must be 1 or 0."}, status_code=400)
        try:
            found = board.studies(
                search=asked.get("search", ""),
                after=asked.get("after", ""),
                incomplete=asked.get("incomplete") == "1",
            )
        except NoSuchPage as exc:
            return _Json({"message": str(exc)}, status_code=400)
        except StateError as exc:
            return _Json({"message": exc.message}, status_code=503)
        return _Json(found)

    def page(request: Request) -> Response:
        media_type, body = PAGE_FILES[request.scope["path"]]
        return Response(body, media_type=media_type, headers=PAGE_HEADERS)

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/health", health),
            Route("/metrics", metrics_text),
            Route("/api/status", api_status),
            Route("/api/studies", api_studies),
            Route("/api/throughput", api_throughput),
            *(Route(path, page) for path in PAGE_FILES),
        ]
    )
    if pokes is not None:
        app.router.routes.append(Route(POKE_PATH, pokes.answer, methods=["POST"]))
    if actions is not None:
        app.router.routes.append(Route(ACTIONS_PATH, actions.answer_who))
        for path in ACTION_POSTS:
            app.router.routes.append(Route(path, actions.answer, methods=["POST"]))
    described = description(pokes=pokes is not None, acts=actions is not None)
    app.router.routes.append(Route(OPENAPI_PATH, lambda _: _Json(described)))
    app.router.redirect_slashes = False  # a redirect would repeat the Host that it was given
    return app


def posts_of(app: Starlette) -> dict[str, int]:
    """Return which paths of an application take a POST, and how large its body may be."""
    paths = [r.path for r in app.routes if isinstance(r, Route) and "POST" in (r.methods or ())]
    # Without a token there is no poke either, and the answer is 404, as senders were told.
    return {POKE_PATH: 0} | {path: ACTION_POSTS.get(path, 0) for path in paths}


class _Json(JSONResponse):
    """JSON in which every text is valid, bounded and shown as it is: people read it on the page."""

    def render(self, content: object) -> bytes:
        """Return the body."""
        return super().render(visible_values(content))


class MonitoringServer:
    """Serves the application in a thread of its own; signals stay the service's business."""

    def __init__(
        self,
        app: Starlette,
        *,
        host: str,
        port: int,
        certificate: RenewedCertificate | None = None,
    ) -> None:
        self._scheme = "http" if certificate is None else "https"
        self._socket = _bind(host, port)
        address = self._socket.getsockname()[0]
        config = uvicorn.Config(
            Guard(app, only_local=is_loopback(address), posts=posts_of(app)),
            http=BoundedConnection if certificate is None else _behind_tls(certificate),
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            lifespan="off",
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
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
        place = f"[{host}]" if ":" in host else host
        return f"{self._scheme}://{place}:{port}"

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; bounded."""
        self._server.should_exit = True
        self._thread.join(timeout=START_TIMEOUT_S)
        self._socket.close()


def _behind_tls(certificate: RenewedCertificate) -> type[asyncio.Protocol]:
    """Return what makes a connection that is bounded, behind a handshake that is."""
    doors = TlsDoors(certificate)

    def door(**known: Any) -> asyncio.Protocol:  # noqa: ANN401 (what uvicorn hands its protocols)
        return TlsDoor(doors, BoundedConnection(**known))

    return cast("type[asyncio.Protocol]", door)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle off only where it sees TCP named; with it each answer takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Listening from now on: a bound port alone is not ours yet (another process that only
        # binds it too finds out too late), and the address that is printed must be there.
        listener.listen(CONNECTIONS_MAX)
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that no resolver takes
        listener.close()
        seen = exc.strerror or exc if isinstance(exc, OSError) else "is not a host name"
        raise ConfigurationError(
            f"BRIDGE_HEALTH_HOST {host}, BRIDGE_HEALTH_PORT {port}: {seen}.",
            advice="Choose another port; 0 takes any free one.",
        ) from exc
    return listener

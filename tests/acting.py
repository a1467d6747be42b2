"""A monitoring server with actions, and requests to it."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bridge.events import ActionTaken, Event
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason
from bridge.monitoring.actions import Actions
from bridge.monitoring.board import Board
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.poke import PokeReceiver
from bridge.monitoring.server import MonitoringServer, application
from bridge.monitoring.side_command import SideCommand
from bridge.pipeline.orders import paused_since

TOKEN = "anna-0123456789abcdef-0123456789"  # noqa: S105
POKE_TOKEN = "poke-0123456789abcdef-0123456789"  # noqa: S105
OTHER = "bert-0123456789abcdef-0123456789"
TOKENS = {"anna": TOKEN, "bert": OTHER}
IDS = [f"{n:08x}-11111111-22222222-33333333-44444444" for n in range(5)]
ECHO = (
    "import json,sys; sys.stderr.write('a line\\n');"
    "print(json.dumps({'delivered': 3, 'arguments': sys.argv[1:]}))"
)
WAIT = "import sys; sys.stdin.read() if 0 else __import__('time').sleep(600)"
FAIL = "import sys; sys.stderr.write('orthanc-bridge: it is \\x1b[31m full\\n'); sys.exit(12)"


class Acting:
    """A monitoring server with actions, and requests to it."""

    def __init__(self, path: Path, program: str = ECHO, *, verifies: bool = True) -> None:
        self.path = path / "state.sqlite3"
        with Ledger(self.path) as ledger:
            parked = tuple(
                Parked(Move(one, n), Reason.VIDEO if n < 3 else Reason.TIMED_OUT, "no", 1, 1.0, 1.0)
                for n, one in enumerate(IDS)
            )
            ledger.commit(Entry(parked=parked))
        self.board = Board(self.path, HealthLimits())
        self.metrics = Metrics(self.board)
        self.events: list[Event] = []
        self.ended = threading.Event()
        self.newest: int | None = 900
        self.actions = Actions(
            TOKENS,
            state_path=self.path,
            newest=lambda: self.newest,
            verifies=verifies,
            count=self.metrics.count_action,
            commands=SideCommand((sys.executable, "-c", program)),
        )
        self.actions.reports_to(self.report)
        app = application(
            self.board, self.metrics, PokeReceiver(POKE_TOKEN, lambda _: None), self.actions
        )
        self.server = MonitoringServer(app, host="127.0.0.1", port=0)
        self.server.start()
        self.port = int(self.server.url.rsplit(":", 1)[1])

    def report(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ActionTaken) and event.result not in ("begins", "failed"):
            self.ended.set()

    def close(self) -> None:
        self.actions.stop(10.0)
        self.server.stop()

    def raw(
        self,
        path: str,
        body: bytes | None = b"{}",
        *,
        method: str = "POST",
        token: str | None = TOKEN,
        **headers: str,
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, f"/api/actions{path}", body=body, headers=sent)
            answer = connection.getresponse()
            text = answer.read()
            told = json.loads(text) if text.startswith(b"{") else {"text": text.decode()}
            return answer.status, told, {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def ask(self, action: str, body: dict[str, object] | None = None) -> tuple[int, dict[str, Any]]:
        status, told, _ = self.raw(f"/{action}", json.dumps(body or {}).encode())
        return status, told

    def do(self, action: str, body: dict[str, object] | None = None) -> tuple[int, dict[str, Any]]:
        status, told = self.ask(action, body)
        assert status == 409, told
        return self.ask(action, {**(body or {}), "confirm": told["confirm"]})

    def taken(self) -> list[tuple[str, str, str, str]]:
        return [
            (e.who, e.action, e.detail, e.result) for e in self.events if isinstance(e, ActionTaken)
        ]

    def counted(self, action: str) -> dict[str, float]:
        families = text_string_to_metric_families(self.metrics.render().decode())
        (family,) = [found for found in families if found.name == "orthanc_bridge_actions"]
        return {
            sample.labels["result"]: sample.value
            for sample in family.samples
            if sample.labels["action"] == action and sample.value
        }

    def paused(self) -> bool:
        with Ledger(self.path) as ledger:
            return paused_since(ledger) is not None

    def parked(self) -> list[str]:
        with Ledger(self.path) as ledger:
            return [one.move.instance_id for one in ledger.parked()]

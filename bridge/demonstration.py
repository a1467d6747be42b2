"""Gives the demo the real bridge: the same service as ``run``, over the demo's two servers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bridge.board import Board
from bridge.commands.lifecycle import draining_on_signals
from bridge.config import PREFIX, Settings, load_settings
from bridge.core.events import Event, InstanceParked, Progress, Settled
from bridge.core.model import InstanceFailed, Move, Outcome
from bridge.demo.run import Announce, run_demo
from bridge.health import MonitoringServer, application
from bridge.ledger import Ledger
from bridge.log_lines import set_up_logging
from bridge.logs import LogObserver
from bridge.metrics import Metrics
from bridge.service import Service


def run(*, keep: bool, as_json: bool) -> int:
    """Run the demo; return its exit code."""
    # The demo is about itself: the operator's settings and secrets stay out of it.
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    set_up_logging(log_format="text", level="warning")
    here = Path.cwd()
    with TemporaryDirectory(prefix="orthanc-bridge-demo-") as directory:
        os.chdir(directory)
        try:
            return run_demo(
                keep=keep,
                json_output=as_json,
                directory=None,
                announce=_announce,
                transfer=_transfer,
                serve=_serve if keep else None,
            )
        finally:
            os.chdir(here)


class Collector:
    """An observer that keeps the last outcome of each move."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Move, Outcome]] = []

    def on_event(self, event: Event) -> None:
        """Keep what settled or was parked."""
        if isinstance(event, Settled):
            self.outcomes.append((event.move, event.outcome))
        elif isinstance(event, InstanceParked):
            self.outcomes.append((event.move, InstanceFailed(event.reason, event.message)))

    def on_progress(self, progress: Progress) -> None:
        """Keep nothing."""


def _transfer(source_url: str, target_url: str, state_path: Path) -> Sequence[tuple[Move, Outcome]]:
    settings = _settings(source_url, target_url, state_path)
    collector = Collector()
    with (
        Ledger(state_path, follow=True) as ledger,
        Service(settings, (collector, LogObserver()), bounded=True) as service,
    ):
        service.follow(ledger, once=True)
    return collector.outcomes


def _serve(source_url: str, target_url: str, state_path: Path, announce: Announce) -> None:
    settings = _settings(source_url, target_url, state_path)
    board = Board(state_path, settings.health_limits())
    metrics = Metrics(board)
    monitoring = MonitoringServer(application(board, metrics), host="127.0.0.1", port=0)
    monitoring.start()
    announce(f"Status page {monitoring.url}/")
    try:
        with (
            Ledger(state_path, follow=True) as ledger,
            Service(settings, (LogObserver(), board, metrics), bounded=False) as service,
            draining_on_signals(service.stop),
        ):
            service.follow(ledger)
    finally:
        monitoring.stop()


def _settings(source_url: str, target_url: str, state_path: Path) -> Settings:
    return load_settings(source_url=source_url, target_url=target_url, state_path=state_path)


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 (the demo speaks to a person)

"""``orthanc-bridge demo``: gives the demo the real bridge, over the demo's two servers."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.events import InstanceParked, Settled
from bridge.model import InstanceFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bridge.config import Settings
    from bridge.demo.run_demo import Announce, Show
    from bridge.events import Event, Progress
    from bridge.model import Move, Outcome


def demo(
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep servers and bridge running until Ctrl-C."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Run the bridge between two temporary Orthancs with real images.

    Everything runs on this machine, on loopback ports, and is removed at the end. Exit code 0 only
    if every instance arrived and every pixel is right.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from bridge.config import PREFIX
    from bridge.demo.run_demo import run_demo
    from bridge.log import set_up_logging

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
                showing=_showing,
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


def _showing() -> AbstractContextManager[Show]:
    """Show how far the demo itself is; without a terminal what it announces will do."""
    from bridge.commands.progress_bar import draws_bars, showing

    return showing("demo") if draws_bars() else nullcontext(lambda _phase, _done, _total: None)


def _transfer(source_url: str, target_url: str, state_path: Path) -> Sequence[tuple[Move, Outcome]]:
    from bridge.commands.lifecycle import count_at_source
    from bridge.commands.progress_bar import MovesProgress, showing
    from bridge.ledger.store import Ledger
    from bridge.monitoring.logs import LogObserver
    from bridge.service import Service

    settings = _settings(source_url, target_url, state_path)
    collector = Collector()
    with (
        Ledger(state_path, follow=True) as ledger,
        showing("demo") as show,
        Service(
            settings,
            (collector, LogObserver(), MovesProgress(show, "moving", count_at_source(settings))),
            bounded=True,
        ) as service,
    ):
        service.follow(ledger, once=True)
    return collector.outcomes


def _serve(source_url: str, target_url: str, state_path: Path, announce: Announce) -> None:
    from bridge.commands.lifecycle import draining_on_signals
    from bridge.ledger.store import Ledger
    from bridge.monitoring.board import Board
    from bridge.monitoring.logs import LogObserver
    from bridge.monitoring.metrics import Metrics
    from bridge.monitoring.server import MonitoringServer, application
    from bridge.service import Service

    settings = _settings(source_url, target_url, state_path)
    board = Board(state_path, settings.health_limits(), names=settings.names())
    metrics = Metrics(board)
    monitoring = MonitoringServer(application(board, metrics), host="127.0.0.1", port=0)
    monitoring.start()
    announce(f"Status page: {monitoring.url}/")
    announce("Ctrl-C stops everything and removes all files.")
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
    from bridge.config import load_settings

    return load_settings(source_url=source_url, target_url=target_url, state_path=state_path)


def _announce(text: str) -> None:
    from bridge.commands.output import say

    say(text, err=True)

"""``orthanc-bridge run``."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED


def run(
    once: Annotated[
        bool,
        typer.Option("--once", help="Stop when everything that is in the feed now is settled."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> int:
    """Follow the source's feed and bring every new instance to the target."""
    from bridge.board import Board
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import print_summary
    from bridge.config import load_settings
    from bridge.credentials import poke_token
    from bridge.health import MonitoringServer, application
    from bridge.ledger import Ledger
    from bridge.log_lines import log
    from bridge.logs import LogObserver
    from bridge.machinery import RealMachinery
    from bridge.metrics import Metrics
    from bridge.neighbour import MONITOR_KEY
    from bridge.poke import Doorbell
    from bridge.service import Service

    settings = load_settings()
    begin(settings)
    with Ledger(settings.state_path, follow=True) as ledger:
        machinery = RealMachinery(settings)
        board = Board(
            settings.state_path,
            settings.health_limits(),
            settings.allowance(),
            machinery.stages.of,
        )
        metrics = Metrics(board)
        token = poke_token()
        doorbell = Doorbell(token, metrics.count_poke) if token else None
        monitoring = MonitoringServer(
            application(board, metrics, doorbell),
            host=settings.health_host,
            port=settings.health_port,
        )
        monitoring.start()
        try:
            ledger.set_meta(MONITOR_KEY, monitoring.url)
            text = f"monitoring at {monitoring.url}"
            log(logging.INFO, "monitoring", text, url=monitoring.url)
            # The log comes first: what a figure counts can be read there.
            observers = (LogObserver(), board, metrics)
            with (
                Service(settings, observers, bounded=once, machinery=machinery) as service,
                draining_on_signals(service.stop) as interruption,
            ):
                if doorbell is not None:
                    doorbell.wakes(service.poke)
                if once:
                    service.preflight()
                summary = service.follow(ledger, once=once)
            ledger.set_meta(MONITOR_KEY, None)
            parked = sum(ledger.parked_by_reason().values())
        finally:
            monitoring.stop()
    if once or as_json:
        print_summary(summary, as_json=as_json)
    if service.sweep_failure is not None:
        raise service.sweep_failure
    if interruption.by_keyboard or (once and summary.stopped):
        return EXIT_INTERRUPTED  # SIGTERM is how a service ends; a job has not been done
    return EXIT_INCOMPLETE if once and parked else EXIT_DONE

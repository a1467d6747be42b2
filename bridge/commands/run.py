"""``orthanc-bridge run``."""

from __future__ import annotations

import logging
import signal
from typing import Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED


def run(
    once: Annotated[
        bool,
        typer.Option("--once", help="Deliver everything that is in the feed now, then exit."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Follow the source and deliver every new instance to the target.

    Runs until it is stopped. The first SIGTERM or Ctrl-C lets running instances finish; a second
    one exits at once. Either way, the next start continues without loss.
    """
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import print_summary
    from bridge.config import load_settings
    from bridge.credentials import poke_token
    from bridge.ledger.store import Ledger
    from bridge.log import log
    from bridge.monitoring.board import Board
    from bridge.monitoring.logs import LogObserver
    from bridge.monitoring.metrics import Metrics
    from bridge.monitoring.poke import PokeReceiver
    from bridge.monitoring.server import MonitoringServer, application
    from bridge.pipeline.holds import MONITOR_KEY
    from bridge.service import Service
    from bridge.wiring import RealMachinery

    settings = load_settings()
    begin(settings)
    with Ledger(settings.state_path, follow=True) as ledger:
        machinery = RealMachinery(settings)
        board = Board(
            settings.state_path,
            settings.health_limits(),
            settings.allowance(),
            machinery.stages.of,
            settings.names(),
        )
        metrics = Metrics(board)
        token = poke_token()
        pokes = PokeReceiver(token, metrics.count_poke) if token else None
        monitoring = MonitoringServer(
            application(board, metrics, pokes),
            host=settings.health_host,
            port=settings.health_port,
        )
        monitoring.start()
        try:
            ledger.set_meta(MONITOR_KEY, monitoring.url)
            text = f"monitoring at {monitoring.url}, from {settings.source_url} to "
            text += settings.target_url
            servers = {"source": settings.source_url, "target": settings.target_url}
            log(logging.INFO, "monitoring", text, url=monitoring.url, **servers)
            # The log comes first: what a figure counts can be read there.
            observers = (LogObserver(), board, metrics)
            with (
                Service(settings, observers, bounded=once, machinery=machinery) as service,
                draining_on_signals(service.stop) as interruption,
            ):
                if settings.rules_file is not None:
                    signal.signal(signal.SIGHUP, lambda *_: service.read_rules_again())
                if pokes is not None:
                    pokes.wakes(service.poke)
                if once:
                    service.preflight(follows=ledger)
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
    return EXIT_INCOMPLETE if once and (parked or summary.gaps) else EXIT_DONE

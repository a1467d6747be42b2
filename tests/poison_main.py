"""``python -m tests.poison_main``: ``orthanc-bridge run`` with the codecs of tests/poison.py.

Everything is the real service in a real process; only the workers run another function. Workers
import this module again: it must stay light.
"""

from __future__ import annotations


def main() -> None:
    """Follow the feed until a signal; monitoring and logs as in ``run``."""
    import logging

    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger
    from bridge.log import log
    from bridge.monitoring.board import Board
    from bridge.monitoring.logs import LogObserver
    from bridge.monitoring.metrics import Metrics
    from bridge.monitoring.server import MonitoringServer, application
    from bridge.service import Service
    from tests.poison_machinery import PoisonMachinery

    settings = load_settings()
    begin(settings)
    board = Board(settings.state_path, settings.health_limits())
    metrics = Metrics(board)
    monitoring = MonitoringServer(
        application(board, metrics), host=settings.health_host, port=settings.health_port
    )
    monitoring.start()
    log(logging.INFO, "monitoring", "poisoned", url=monitoring.url)
    observers = (board, metrics, LogObserver())
    machinery = PoisonMachinery(settings)
    with (
        Ledger(settings.state_path, follow=True) as ledger,
        Service(settings, observers, bounded=False, machinery=machinery) as service,
        draining_on_signals(service.stop),
    ):
        service.follow(ledger)
    monitoring.stop()


if __name__ == "__main__":
    main()

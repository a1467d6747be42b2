"""``orthanc-bridge run``."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.events import Observer, Summary
    from bridge.ledger.store import Ledger
    from bridge.monitoring.actions import Actions
    from bridge.monitoring.board import Board
    from bridge.monitoring.metrics import Metrics
    from bridge.monitoring.own_tls import RenewedCertificate
    from bridge.monitoring.poke import PokeReceiver
    from bridge.service import Service


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
    from bridge.commands.events import telling
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import on_terminal, print_summary
    from bridge.config import load_settings
    from bridge.credentials import poke_token
    from bridge.ledger.store import Ledger
    from bridge.monitoring.board import Board
    from bridge.monitoring.logs import LogObserver
    from bridge.monitoring.metrics import Metrics
    from bridge.monitoring.poke import PokeReceiver
    from bridge.monitoring.server import MonitoringServer, application
    from bridge.pipeline.holds import MONITOR_KEY
    from bridge.service import Service
    from bridge.wiring import Observers, RealMachinery

    settings = load_settings()
    settings.check_repairs()
    shows_bar = once and on_terminal()
    # A bar and a line for each instance do not go together.
    begin(settings, level="warning" if shows_bar else None)
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
        actions = _actions_of(settings, board, metrics)
        monitoring = MonitoringServer(
            application(board, metrics, pokes, actions),
            host=settings.health_host,
            port=settings.health_port,
            certificate=_certificate_of(settings, board),
        )
        monitoring.start()
        try:
            _tell_where(monitoring.url, ledger, settings)
            # The log comes first: what a figure counts can be read there.
            observers = (LogObserver(), board, metrics)
            with (
                _shown(settings, ledger) if shows_bar else nullcontext(()) as shown,
                _traced(settings, metrics) as traced,
                telling(settings, board, Observers(observers), once=once),
                Service(
                    settings, (*observers, *shown, *traced), bounded=once, machinery=machinery
                ) as service,
                draining_on_signals(_stop_of(service, actions)) as interruption,
            ):
                board.audit_failure = service.audit_failure
                _let_others_reach(service, settings, pokes)
                if once:
                    service.preflight(follows=ledger)
                with (
                    _acting(actions, service, settings),
                    board.kept_in(ledger),
                    _telling_where_to_go_on(once=once),
                ):
                    summary = service.follow(ledger, once=once)
            ledger.set_meta(MONITOR_KEY, None)
            parked = sum(ledger.parked_by_reason().values())
        finally:
            monitoring.stop()
    if once or as_json:
        print_summary(summary, as_json=as_json)
    if service.sweep_failure is not None:
        raise service.sweep_failure
    if once:
        return _end_of_job(summary, parked, interrupted=interruption.by_keyboard)
    # SIGTERM is how a service ends.
    return EXIT_INTERRUPTED if interruption.by_keyboard else EXIT_DONE


@contextmanager
def _shown(settings: Settings, ledger: Ledger) -> Iterator[Sequence[Observer]]:
    """Draw a bar meanwhile; gives the observer that moves it."""
    from bridge.commands.lifecycle import count_at_source
    from bridge.commands.progress_bar import OnceProgress, showing

    lists = settings.start == "snapshot" and ledger.checkpoint() is None
    held = count_at_source(settings) if lists else None
    with showing("run") as show:
        yield (OnceProgress(show, held),)


@contextmanager
def _traced(settings: Settings, metrics: Metrics) -> Iterator[Sequence[Observer]]:
    """Send spans meanwhile, if that is wished; gives the observer that hears of moves."""
    if settings.traces_url is None:
        yield ()
        return
    import bridge
    from bridge.monitoring.span_sender import SpanSender
    from bridge.orthanc.trace_context import THIS_RUN

    resource = {
        "service.name": "orthanc-bridge",
        "service.version": bridge.__version__,
        **({"service.instance.id": settings.name} if settings.name else {}),
    }
    with SpanSender(
        settings.traces_url, run=THIS_RUN, resource=resource, count=metrics.count_spans
    ) as sender:
        yield (sender,)


@contextmanager
def _telling_where_to_go_on(*, once: bool) -> Iterator[None]:
    """Say how to go on where a server's trouble ends a job."""
    from bridge.errors import SideError

    try:
        yield
    except SideError:
        if once:
            _tell_where_to_go_on()
        raise


def _tell_where_to_go_on() -> None:
    from bridge.commands.output import say

    text = "orthanc-bridge run --once. What is delivered is not sent again"
    say(f"run: to continue, run: {text}", err=True)


def _end_of_job(summary: Summary, parked: int, *, interrupted: bool) -> int:
    """Return the exit code of ``--once``. Say why it is 3: this run may have parked nothing."""
    from bridge.commands.output import say
    from bridge.monitoring.health import counted

    if summary.stopped:
        _tell_where_to_go_on()
    if interrupted or summary.stopped:
        return EXIT_INTERRUPTED
    if parked:
        text = f"{counted(parked, 'instance')} parked in all, also by earlier runs: exit code 3"
        say(f"run: {text}. See: orthanc-bridge parked list", err=True)
    return EXIT_INCOMPLETE if parked or summary.gaps else EXIT_DONE


def _actions_of(settings: Settings, board: Board, metrics: Metrics) -> Actions | None:
    """Let people with a token act over HTTP; None where there is no token."""
    from bridge.credentials import admin_tokens
    from bridge.log import log
    from bridge.monitoring.actions import Actions
    from bridge.monitoring.guard import is_loopback

    tokens = admin_tokens()
    if not tokens:
        return None
    log(logging.INFO, "actions", f"these tokens may act over HTTP: {', '.join(tokens)}")
    if settings.health_cert_file is None and not is_loopback(settings.health_host):
        text = (
            "BRIDGE_ADMIN_TOKEN is set, and the monitoring server is reachable from other machines "
        )
        text += "without TLS: let nobody reach it but a proxy with TLS, or set "
        log(logging.WARNING, "actions_in_clear", f"{text}BRIDGE_HEALTH_CERT_FILE")
    return Actions(
        tokens,
        state_path=settings.state_path,
        newest=lambda: board.progress.last,
        verifies=settings.verify_every_s is not None,
        count=metrics.count_action,
    )


def _let_others_reach(service: Service, settings: Settings, pokes: PokeReceiver | None) -> None:
    """Let SIGHUP and pokes reach the service."""
    if settings.rules_file is not None:
        signal.signal(signal.SIGHUP, lambda *_: service.read_rules_again())
    if pokes is not None:
        pokes.wakes(service.poke, service.hear_of_deletions)


def _stop_of(service: Service, actions: Actions | None) -> Callable[[], None]:
    """Return what drains the service, and the command that somebody has started beside it."""

    def stop() -> None:
        service.stop()
        if actions is not None:
            actions.drain()

    return stop


@contextmanager
def _acting(actions: Actions | None, service: Service, settings: Settings) -> Iterator[None]:
    """Let people act while the service works; a command that they have started ends before it."""
    if actions is None:
        yield
        return
    actions.reports_to(service.report)
    try:
        yield
    finally:
        actions.stop(settings.shutdown_timeout_s)


def _certificate_of(settings: Settings, board: Board) -> RenewedCertificate | None:
    """Return what the monitoring server shows; None without TLS. Raises ConfigurationError."""
    from bridge.monitoring.own_tls import RenewedCertificate

    if settings.health_cert_file is None:
        return None
    return RenewedCertificate(
        settings.health_cert_file, settings.health_key_file, refused=board.tell_certificate
    )


def _tell_where(url: str, ledger: Ledger, settings: Settings) -> None:
    """Say where the monitoring server is: in the log, and to the commands beside this bridge."""
    from bridge.log import log
    from bridge.pipeline.holds import MONITOR_KEY

    ledger.set_meta(MONITOR_KEY, url)
    text = f"monitoring at {url}, from {settings.source_url} to {settings.target_url}"
    servers = {"source": settings.source_url, "target": settings.target_url}
    log(logging.INFO, "monitoring", text, url=url, **servers)

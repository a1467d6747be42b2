"""``orthanc-bridge events test``, and what ``run`` needs to tell of events."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.events import Observer
    from bridge.monitoring.board import Board
    from bridge.notify.ways import Sent, Way

events_app = typer.Typer(
    help="Test the messages that the bridge sends to people and programs.", no_args_is_help=True
)


@events_app.command("test")
def try_events(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Send one test event to each receiver and show its answer.

    Exit code 3 if a receiver did not accept it.
    """
    from bridge.commands.output import print_json, print_table
    from bridge.config import load_settings
    from bridge.ledger.records import Notice
    from bridge.notify.event_kinds import EventKind, event_body

    settings = load_settings()
    ways = ways_out(settings)
    if not ways:
        raise ConfigurationError(
            "Events are sent nowhere.",
            advice="Set BRIDGE_WEBHOOK_URL or BRIDGE_NOTIFY_URLS. See: orthanc-bridge docs events.",
        )
    event_id, now = uuid.uuid4().hex, time.time()
    body = event_body(EventKind.TEST, {}, event_id=event_id, bridge=settings.name, created_at=now)
    answers = [
        (way.name, way.send(Notice(event_id, way.name, EventKind.TEST, body, now))) for way in ways
    ]
    if as_json:
        print_json(
            [{"way": way, "taken": sent.taken, "answer": _answer(sent)} for way, sent in answers]
        )
    else:
        print_table(
            ("WAY", "TAKEN", "ANSWER"),
            ((way, "yes" if sent.taken else "NO", _answer(sent)) for way, sent in answers),
        )
    return EXIT_DONE if all(sent.taken for _, sent in answers) else EXIT_INCOMPLETE


def _answer(sent: Sent) -> str:
    return f"{sent.text}: {sent.said}" if sent.said else sent.text


def ways_out(settings: Settings) -> tuple[Way, ...]:
    """Make the ways that are set. Raises ConfigurationError."""
    from bridge.credentials import notify_urls, webhook_secret
    from bridge.notify.ways import Webhook, apprise_places

    receiver, secret = settings.receiver(), webhook_secret()
    posted = (Webhook(receiver, secret),) if receiver and secret else ()
    return (*posted, *apprise_places(notify_urls()))


@contextmanager
def telling(settings: Settings, board: Board, observer: Observer, *, once: bool) -> Iterator[None]:
    """Tell and send events meanwhile. Raises ConfigurationError.

    ``once``: a command; when it has ended well, what is left is told and sent before it ends.
    """
    from bridge.model import SideName
    from bridge.notify.event_kinds import chosen_events
    from bridge.notify.events_thread import EventsThread
    from bridge.notify.sending import Sender
    from bridge.notify.telling import Mailer, StudyWatch, Teller
    from bridge.orthanc.session import SideClient
    from bridge.pipeline.pacing import parse_daily
    from bridge.pipeline.runtime import SystemClock
    from bridge.retention.age_clock import AgeClock
    from bridge.service import look_at_feed

    ways, clock, stop = ways_out(settings), SystemClock(), threading.Event()
    mailer = Mailer(
        [way.name for way in ways],
        chosen_events(settings.events),
        bridge=settings.name,
        clock=clock,
    )
    with closing(SideClient(settings.endpoint(SideName.SOURCE))) as source:
        watch = StudyWatch(
            source,
            mailer,
            look_at_feed=partial(look_at_feed, source=source, overlap=settings.feed_overlap),
            newest=lambda: board.progress.last,
            clock=clock,
        )
        thread = EventsThread(
            Teller(
                mailer,
                lambda: [problem.code for problem in board.problems()],
                fold_s=settings.events_fold_s,
                digest_at=parse_daily(settings.digest_at),
                clock=clock,
            ),
            Sender(
                ways,
                observer,
                clock=clock,
                age=AgeClock().now_s,
                chance=random.Random().random,  # noqa: S311 (jitter, not secrets)
                stopping=stop.is_set,
            ),
            watch if settings.keep_studies_days else None,
            state_path=settings.state_path,
            observer=observer,
            source_up=lambda: board.progress.source.up,
            steady_s=clock.steady_s,
            stop=stop,
        )
        thread.start()
        ended = False
        try:
            yield
            ended = True
        finally:
            thread.stop(finish=once and ended)

"""Sends spans to an OpenTelemetry collector (BRIDGE_TRACES_URL), in a thread of its own.

Nobody waits for it: what does not fit into its queue is dropped and counted, and so is what a
collector does not want. A delivery is never delayed, and /health says nothing of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from bridge.events import Event, InstanceParked, Progress, Settled
from bridge.log import log
from bridge.model import Receiver
from bridge.monitoring.spans import Attribute, MoveSpan, otlp_json, spans_of
from bridge.orthanc.post import PostAnswer, PostFailed, post_json
from bridge.orthanc.trace_context import context_of

QUEUE_MAX = 10_000
"""Moves whose spans wait to be sent: about 5 MB."""
BATCH_MAX = 200
"""Moves whose spans are sent together: about 500 KB."""
EVERY_S = 1.0
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0
"""After a failure; doubled with each further one."""
DEADLINE_S = 10.0
STOP_S = 2.0
"""So long a stop waits for what is left to be sent."""
AGAIN = (408, 429, 502, 503, 504)
"""The collector wants it later (OTLP names the last four)."""

PostIt = Callable[[Receiver, bytes, Mapping[str, str]], PostAnswer]


class SpanSender:
    """An observer that hands spans to a thread. A context manager: the thread runs in its block.

    ``count`` is told how many moves were ``sent`` and ``dropped``.
    """

    def __init__(
        self,
        url: str,
        *,
        run: str,
        resource: Mapping[str, Attribute],
        count: Callable[[str, int], None],
        post: PostIt = post_json,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._receiver = Receiver(url, "BRIDGE_TRACES_", deadline_s=DEADLINE_S)
        self._run = run
        self._resource = resource
        self._count = count
        self._post = post
        self._now_s = now_s
        self._waiting: deque[tuple[Settled | InstanceParked, float]] = deque()
        self._stop = threading.Event()
        self._fails = False
        self._thread = threading.Thread(target=self._work, name="spans", daemon=True)

    def __enter__(self) -> SpanSender:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join(STOP_S)

    def on_event(self, event: Event) -> None:
        """Take what came to its end; returns at once."""
        if not isinstance(event, Settled | InstanceParked):
            return
        if len(self._waiting) >= QUEUE_MAX:
            self._count("dropped", 1)
            return
        self._waiting.append((event, self._now_s()))

    def on_progress(self, progress: Progress) -> None:
        """Do nothing: spans are of what came to its end."""

    def _work(self) -> None:
        pause_s = EVERY_S
        while not self._stop.wait(pause_s):
            pause_s = EVERY_S if self._send_all() else max(PAUSE_S, min(2 * pause_s, PAUSE_MAX_S))
        self._send_all()

    def _send_all(self) -> bool:
        """Send what waits; False when the collector cannot be used now."""
        while self._waiting:
            batch = [self._waiting[n] for n in range(min(BATCH_MAX, len(self._waiting)))]
            spans = [span for event, ended_at in batch for span in self._spans(event, ended_at)]
            try:
                answer = self._post(self._receiver, otlp_json(spans, self._resource), {})
            except PostFailed as exc:
                self._fail(str(exc))
                return False
            if answer.status in AGAIN:
                self._fail(f"it answered {answer.status}")
                return False
            for _ in batch:
                self._waiting.popleft()
            if answer.taken:
                self._fails = False
                self._count("sent", len(batch))
            else:
                self._fail(f"it answered {answer.status}: these spans are dropped")
                self._count("dropped", len(batch))
        return True

    def _spans(self, event: Settled | InstanceParked, ended_at: float) -> tuple[MoveSpan, ...]:
        context = context_of(self._run, event.move.instance_id, event.times.number)
        return spans_of(
            event, ended_at=ended_at, trace_id=context.trace_id, span_id=context.span_id
        )

    def _fail(self, why: str) -> None:
        """Say it once, until one batch was taken."""
        if not self._fails:
            text = f"spans do not reach the collector: {why}. Deliveries go on"
            log(logging.WARNING, "traces_failed", text)
        self._fails = True

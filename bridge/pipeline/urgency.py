"""Which waiting instances are urgent: asked of the source beside the work, in small batches.

Nothing waits for the answer. Until it comes an instance waits its turn as every other one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from bridge.errors import SideError
from bridge.pipeline.runtime import Answered, Background, UrgentAmong
from bridge.pipeline.window import WorkItem

URGENT = "urgent"
"""The name by which the answers are known."""
BATCH = 20
"""Instances that are asked for at once."""
UNASKED_MAX = 20_000
"""Instances that wait to be asked for, at most; beyond it the oldest are not asked for."""

AskUrgent = Callable[[Sequence[str]], UrgentAmong]
"""Tells which of these instances are urgent. May block; raises SideError."""


class Urgency:
    """Asks for one batch after the other. ``ask`` None: nothing is urgent."""

    def __init__(self, ask: AskUrgent | None, background: Background) -> None:
        self._ask = ask
        self._background = background
        self._unasked: deque[WorkItem] = deque(maxlen=UNASKED_MAX)
        self._asking = False

    def expect(self, items: Iterable[WorkItem]) -> None:
        """Note that these wait, and are to be asked for."""
        if self._ask is not None:
            self._unasked.extend(items)

    def look(self, *, wanted: bool) -> None:
        """Ask for the next ones that still wait, unless an answer is outstanding.

        ``wanted``: a rule makes something urgent.
        """
        if not wanted:
            self._unasked.clear()
        if self._ask is None or self._asking:
            return
        names: list[str] = []
        while self._unasked and len(names) < BATCH:
            item = self._unasked.popleft()
            if not item.started_at:
                names.append(item.move.instance_id)
        if names:
            self._asking = True
            ask = self._ask
            self._background.call(URGENT, lambda: ask(names))

    def take(self, answer: Answered) -> frozenset[str]:
        """Return which instances are urgent; none where the source could not be asked.

        Raises what was a bug in the asking.
        """
        self._asking = False
        if answer.error is not None and not isinstance(answer.error, SideError):
            raise answer.error
        return answer.value.instances if isinstance(answer.value, UrgentAmong) else frozenset()

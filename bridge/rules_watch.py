"""The rules file while a bridge runs: read again when it changes, a broken one refused.

What is being moved keeps the rules with which it was started; what starts afterwards has the new
ones, all of them or none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bridge.config import Settings
from bridge.errors import ConfigurationError
from bridge.events import Observer, RulesRead, RulesRefused
from bridge.model import Job

LOOK_EVERY_S = 1.0
"""A file is read when it was the same at two looks: nobody is in the middle of writing it."""

_Seen = tuple[int, int, int] | None


class RulesWatch:
    """Knows the job with the rules of now. Raises ConfigurationError for what is there at first."""

    def __init__(
        self, settings: Settings, observer: Observer, *, steady_s: Callable[[], float]
    ) -> None:
        self.job: Job = settings.job()
        self._settings = settings
        self._observer = observer
        self._steady_s = steady_s
        self._looked_s = float("-inf")
        self._read = self._seen = self._look()
        self._asked = False
        self._refused = ""

    def read_again(self) -> None:
        """Have the file read at the next look, changed or not; safe in a signal handler."""
        self._asked = True

    def current(self) -> Job:
        """Return the job, with the rules as they are now. Quick, and never raises."""
        now_s = self._steady_s()
        if self._settings.rules_file is None or now_s - self._looked_s < LOOK_EVERY_S:
            return self.job
        self._looked_s = now_s
        before, self._seen = self._seen, self._look()
        if self._seen == before and (self._seen != self._read or self._asked or self._refused):
            # What is refused may be well without a change: its mode or its directory was not.
            self._asked = False
            self._read = self._seen
            self._take()
        return self.job

    def _take(self) -> None:
        try:
            rules, generation = self._settings.rules()
        except ConfigurationError as exc:
            if exc.message != self._refused:
                self._refused = exc.message
                self._observer.on_event(RulesRefused(exc.message, self.job.rules_generation))
            return
        if self._look() != self._read:
            return  # it changes just now: it is read when it has been the same for a while
        if generation != self.job.rules_generation or self._refused:
            self._refused = ""
            self.job = replace(self.job, rules=rules, rules_generation=generation)
            self._observer.on_event(RulesRead(generation, len(rules)))

    def _look(self) -> _Seen:
        try:
            found = Path(self._settings.rules_file or "").stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

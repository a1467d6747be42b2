"""The source as a transient buffer: lets go of what was delivered, proved and is old enough.

Nothing is deleted on memory alone. Right before each deletion the ledger must still say so, the
target must read its file again and find it to be what was sent, and the source must still hold
what was fetched. Before the first deletion of a run the two servers are proved to be two.

Orthanc has no conditional deletion: an instance that is overwritten at the source between our
last look and the deletion, a few milliseconds, is lost. `doctor` warns of such a source.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from bridge.core.errors import (
    BridgeError,
    ConfigurationError,
    InstanceError,
    InstanceGone,
    SideError,
)
from bridge.core.events import Observer, SourceSwept, SweepFailed, SweepWorks
from bridge.entry import Entry, Kept
from bridge.ledger import Ledger
from bridge.log_lines import log

BATCH = 100
"""Instances looked at between two reports."""
PAUSE_S = 30.0
"""Between sweeps that found nothing to do; a server that is down is left alone so long too."""
POSTPONED_S = 3600.0
"""An instance that could not be judged is looked at again after this time."""
FAILURES_MAX = 5
"""Errors in one batch, each about one instance: then it is a server's trouble."""
NAMED_MAX = 10
"""Instances of one batch that are spared by name in the log; all are counted."""
JUMP_S = 60.0
"""The clock may be set forward by so much at once and still be believed."""
MARK = "4222"
"""The user-defined metadata by which one server is recognized behind two addresses."""


class KeepingServer(Protocol):
    """What is needed of the source."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 noted for a file. Raises InstanceGone, InstanceError, SideError."""

    def delete_instance(self, instance_id: str) -> bool:
        """Delete an instance; False when it was not there any more. Raises SideError."""

    def set_metadata(self, instance_id: str, name: str, value: str) -> None:
        """Set a metadata. Raises InstanceGone, InstanceError, SideError."""

    def delete_metadata(self, instance_id: str, name: str) -> None:
        """Delete a metadata. Raises InstanceGone, InstanceError, SideError."""


class HoldingServer(Protocol):
    """What is needed of the target."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 noted for a file. Raises InstanceError, SideError."""

    def verify_stored(self, instance_id: str) -> bool:
        """Read the file again and compare. Raises InstanceError, SideError."""

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return the metadata of an instance. Raises InstanceError, SideError."""


class Objection(StrEnum):
    """What speaks against deleting, as it is logged."""

    GONE = "the source does not hold it any more"
    SOURCE_DIFFERS = "the source holds other bytes than were moved"
    SOURCE_UNREADABLE = "the source has no file of it"
    TARGET_DIFFERS = "the target holds other bytes than were sent"
    TARGET_LACKS = "the target does not hold it any more"
    DAMAGED = "the target's file is damaged or lost"


@dataclass(slots=True)
class Sweep:
    """What one batch did. ``more``: another batch is due at once.

    ``spared``: the source or the target does not hold what was moved, or could not be asked.
    """

    deleted: int = 0
    spared: int = 0
    more: bool = False


class Sweeper:
    """Deletes batches. For one thread; remembers that the servers were proved to be two."""

    def __init__(
        self,
        source: KeepingServer,
        target: HoldingServer,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source = source
        self._target = target
        self._stopping = stopping
        self._are_two = False

    def sweep(self, ledger: Ledger, *, delivered_before: float, done: Sweep) -> None:
        """Delete one batch of what was delivered before that time, epoch seconds.

        Counts into ``done`` as it goes, which is right whatever is raised. Each step is written
        at once: a crash costs nothing but a second look. Raises SideError, StateError,
        InstanceError, and ConfigurationError when both addresses lead to one server.
        """
        failures = 0
        for _ in range(BATCH):
            kept = None if self._stopping() else _first(ledger, delivered_before)
            if kept is None:
                return
            later = replace(kept, delivered_at=delivered_before + POSTPONED_S)
            try:
                objection = self._target_objection(kept)
                # The target's look may have taken long: does the ledger still say so?
                if _first(ledger, delivered_before) == kept:
                    objection = objection or self._source_objection(kept)
                    self._conclude(ledger, kept, objection, later, done)
            except (SideError, InstanceError) as exc:
                # Looked at again later, so that one sick instance does not hold up the others.
                ledger.commit(Entry(kept=(later,)))
                done.spared += 1
                failures += 1
                specific = isinstance(exc, InstanceError) or exc.specific
                if not specific or failures == FAILURES_MAX:
                    raise
        done.more = True

    def _conclude(
        self, ledger: Ledger, kept: Kept, objection: Objection | None, later: Kept, done: Sweep
    ) -> None:
        if objection is None:
            self._prove_two(kept)
            done.deleted += self._source.delete_instance(kept.instance_id)
        elif objection is not Objection.GONE:
            if done.spared < NAMED_MAX:
                text = f"spared {kept.instance_id} at the source: {objection}"
                log(logging.WARNING, "source_spared", text, instance=kept.instance_id)
            done.spared += 1
        if objection is Objection.DAMAGED:
            ledger.commit(Entry(kept=(later,)))
        else:
            ledger.commit(Entry(not_kept=(kept,)))

    def _target_objection(self, kept: Kept) -> Objection | None:
        try:
            if self._target.stored_md5(kept.instance_id) != kept.target_md5:
                return Objection.TARGET_DIFFERS
            return None if self._target.verify_stored(kept.instance_id) else Objection.DAMAGED
        except InstanceError:
            return Objection.TARGET_LACKS

    def _source_objection(self, kept: Kept) -> Objection | None:
        try:
            same = self._source.stored_md5(kept.instance_id) == kept.source_md5
        except InstanceGone:
            return Objection.GONE
        except InstanceError:
            return Objection.SOURCE_UNREADABLE
        return None if same else Objection.SOURCE_DIFFERS

    def _prove_two(self, kept: Kept) -> None:
        """Mark the instance at the source and look whether the target shows the mark.

        Two addresses of one server, or two servers on one database, look like a perfect delivery.
        """
        if self._are_two:
            return
        mark = secrets.token_hex(16)
        self._source.set_metadata(kept.instance_id, MARK, mark)
        seen = self._target.instance_metadata(kept.instance_id).get(MARK)
        self._source.delete_metadata(kept.instance_id, MARK)
        if seen == mark:
            raise ConfigurationError(
                "BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL lead to the same server: what is marked "
                "at one shows at the other. Nothing was deleted.",
                advice="Correct them, or set BRIDGE_SOURCE_RETENTION=keep.",
            )
        self._are_two = True


def _first(ledger: Ledger, delivered_before: float) -> Kept | None:
    return next(iter(ledger.kept(delivered_before=delivered_before, limit=1)), None)


class AgeClock:
    """Epoch seconds to measure ages by: a clock that is set forward makes nothing older.

    After a jump the time goes on as before it; the new time is believed when it has stayed for
    ``wait_s``, since everything noted under the old one is then old enough in truth. ``steady_s``
    must go on while the machine sleeps.
    """

    def __init__(
        self, wait_s: float, *, now_s: Callable[[], float], steady_s: Callable[[], float]
    ) -> None:
        self._wait_s = wait_s
        self._now_s = now_s
        self._steady_s = steady_s
        self._base = (now_s(), steady_s())
        self._jumped_at_s: float | None = None

    def now_s(self) -> float:
        """Return the time."""
        now_s, steady_s = self._now_s(), self._steady_s()
        expected_s = self._base[0] + steady_s - self._base[1]
        if now_s > expected_s + JUMP_S:
            if self._jumped_at_s is None:
                self._jumped_at_s = steady_s
                text = f"the clock was set forward by {now_s - expected_s:.0f} s"
                log(logging.WARNING, "clock_jumped", f"{text}: nothing is deleted earlier for it")
            if steady_s - self._jumped_at_s < self._wait_s:
                return expected_s
        self._jumped_at_s = None
        self._base = (now_s, steady_s)
        return now_s


def boot_time_s() -> float:
    """Return seconds since the machine started, its sleep included; never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Janitor:
    """Sweeps in a thread of its own while the bridge runs."""

    def __init__(
        self,
        *,
        state_path: Path,
        source: KeepingServer,
        target: HoldingServer,
        retention_s: float,
        observer: Observer,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = boot_time_s,
    ) -> None:
        self._state_path = state_path
        self._retention_s = retention_s
        self._observer = observer
        self._clock = AgeClock(retention_s, now_s=now_s, steady_s=steady_s)
        self._stop = threading.Event()
        self._sweeper = Sweeper(source, target, stopping=self._stop.is_set)
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)
        self._said = ""

    def start(self) -> None:
        """Sweep from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the present instance and end."""
        self._stop.set()
        self._thread.join(timeout=timeout_s)

    def sweep_once(self) -> Sweep:
        """Do one batch and report it. Raises as ``Sweeper.sweep`` does."""
        done = Sweep()
        delivered_before = self._clock.now_s() - self._retention_s
        try:
            with Ledger(self._state_path, create=False) as ledger:
                self._sweeper.sweep(ledger, delivered_before=delivered_before, done=done)
        finally:
            if done.deleted or done.spared:
                self._observer.on_event(SourceSwept(done.deleted, done.spared))
        return done

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                more = self.sweep_once().more
                self._said = ""
                self._observer.on_event(SweepWorks())
            except BridgeError as exc:
                # Not always met by the pipeline too: a login may read and not delete.
                more = False
                self._observer.on_event(SweepFailed(str(exc)))
                if str(exc) != self._said:
                    self._said = str(exc)
                    log(logging.ERROR, "sweep_failed", f"nothing is deleted at present: {exc}")
            if not more:
                self._stop.wait(min(PAUSE_S, max(1.0, self._retention_s / 4)))

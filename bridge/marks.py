"""Marks that tell two servers apart: set at one, looked for at the other, and removed again.

A mark is a peer with a random name (in memory, in no feed), or, as two servers on one database do
not share that, a metadata of an instance under a number that nothing uses.

It is on record in the state file before it is set: a process that is killed leaves it where it is,
and the next one removes it, whatever instance it is at. One that a server does not give up stays on
record, is tried again, and is told in `/health` when it is MARK_TOLD_S old. No more than
MARKS_LEFT_MAX of one kind are ever left.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from bridge.errors import InstanceError, SideError, StateError
from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.orthanc import Need, lacks_right

NUMBERS = range(1024, 65536)
"""Orthanc's numbers for metadata of the user."""
NUMBERS_TRIED_MAX = 20
SEARCHED = 3
"""Instances of a server that are searched for marks that nobody has on record."""
PROBE_PEER = "orthanc-bridge-probe-"
PROBE_URL = "http://127.0.0.1:9/orthanc-bridge-probe/"
"""Where nobody listens: who sends there is refused. With the slash that Orthanc ends it with."""
PROBE_VALUE = "orthanc-bridge probe "
MARK = re.compile(r"(?:orthanc-bridge-probe-|orthanc-bridge probe )([0-9a-f]{10})-[0-9a-f]{16}")
"""What a mark of ours is called, or says, with the second in which it was set."""
MARK_S_MAX = 3600.0
"""No probe lasts so long: what a killed one has left is removed then, whoever set it."""
MARK_TOLD_S = 600.0
"""A mark that is on record so long is told in /health: it could not be removed."""
MARKS_LEFT_MAX = 10
"""So many marks of one kind may be left: no more are set before some are removed."""
_Answer = TypeVar("_Answer")
RECORD_KEY = "mark "
"""Ledger: begins the key of the note of a mark; the mark's value comes after it."""


class MarkedServer(Protocol):
    """What is needed of a server that is marked, or searched for marks."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        """Return instance IDs by position."""

    def peers(self) -> dict[str, str]:
        """Return the peers."""

    def set_peer(self, name: str, url: str) -> None:
        """Add a peer."""

    def delete_peer(self, name: str) -> None:
        """Remove a peer."""

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        """Return one metadata and its ETag, or None."""

    def set_metadata(self, instance_id: str, name: str, value: str) -> str:
        """Set a metadata; returns its ETag."""

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        """Delete a metadata."""

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return all metadata of an instance."""


class MarkedBy(StrEnum):
    """Who sets a mark."""

    RETENTION = "retention"
    PROBES = "probes"
    """Of the bridge that follows."""
    COMMAND = "command"
    """Beside a bridge that follows, and perhaps at this moment."""


@dataclass(frozen=True, slots=True)
class Mark:
    """``number``: of the metadata. A mark without an instance is the peer called ``value``."""

    value: str
    instance_id: str = ""
    number: str = ""

    def __str__(self) -> str:
        if not self.instance_id:
            return f"the peer {self.value}"
        return f"metadata {self.number} of instance {self.instance_id}"


class Marks(Protocol):
    """Where marks are on record."""

    def put(self, mark: Mark) -> bool:
        """Note a mark that is about to be set; False: too many are left, and it must not be."""

    def gone(self, mark: Mark) -> None:
        """Note that a mark is gone."""

    def left(self) -> list[Mark]:
        """List the marks that nobody is about to remove."""


class NotOnRecord:
    """For who has no state file: what is left is found only where ``remove_old_marks`` looks."""

    def put(self, mark: Mark) -> bool:
        """Note nothing."""
        return bool(mark)

    def gone(self, mark: Mark) -> None:
        """Note nothing."""

    def left(self) -> list[Mark]:
        """Know of none."""
        return []


class MarksOnRecord:
    """The marks of one kind in a ledger. ``opened`` opens it for one look or note.

    What follows and what deletes do one probe at a time, so what they find on record is not under
    way. What a command has left is removed when it is too old to be under way.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[Ledger]], by: MarkedBy) -> None:
        self._opened = opened
        self.by = by

    def put(self, mark: Mark) -> bool:
        """Note a mark that is about to be set. Raises StateError."""
        with self._opened() as ledger:
            if len(marks_on_record(ledger, self.by)) >= MARKS_LEFT_MAX:
                return False
            text = json.dumps([self.by, mark.value, mark.instance_id, mark.number])
            ledger.set_meta(RECORD_KEY + mark.value, text, durably=True)
        return True

    def gone(self, mark: Mark) -> None:
        """Note that a mark is gone. Raises StateError."""
        with self._opened() as ledger:
            ledger.set_meta(RECORD_KEY + mark.value, None)

    def left(self) -> list[Mark]:
        """List those that were not removed. Raises StateError."""
        with self._opened() as ledger:
            found = marks_on_record(ledger, MarkedBy.COMMAND)
            left = [mark for mark in found if left_behind(mark.value, time.time())]
            if self.by is not MarkedBy.COMMAND:
                left += marks_on_record(ledger, self.by)
        return left


class MarksAtBest:
    """Marks on record, for whoever goes on while the state file cannot be used."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def put(self, mark: Mark) -> bool:
        """Note a mark that is about to be set, if that can be done."""
        try:
            return self._marks.put(mark)
        except StateError as exc:
            log(
                logging.WARNING,
                "mark_not_on_record",
                f"the bridge sets {mark} and cannot note it in the state file: {exc.message}",
            )
            return True

    def gone(self, mark: Mark) -> None:
        """Note that a mark is gone, if that can be done: otherwise it is looked for again."""
        with suppress(StateError):
            self._marks.gone(mark)

    def left(self) -> list[Mark]:
        """List those that were not removed, as far as that can be read."""
        try:
            return self._marks.left()
        except StateError:
            return []


def marks_on_record(ledger: Ledger, *by: MarkedBy) -> list[Mark]:
    """List the marks that were set and are not known to be removed; of all without ``by``."""
    texts = ledger.metas(RECORD_KEY)
    with explained(ledger.path):
        found = [(MarkedBy(who), Mark(*map(str, mark))) for who, *mark in map(json.loads, texts)]
    return [mark for who, mark in found if not by or who in by]


def marks_that_stay(ledger: Ledger, now: float) -> list[Mark]:
    """List the marks that could not be removed for a while. ``now``: epoch seconds."""
    return [mark for mark in marks_on_record(ledger) if _age_s(mark.value, now) > MARK_TOLD_S]


def forget_marks(ledger: Ledger, now: float) -> list[Mark]:
    """Look no more for the marks that could not be removed for a while, and return them."""
    staying = marks_that_stay(ledger, now)
    for mark in staying:
        ledger.set_meta(RECORD_KEY + mark.value, None)
    return staying


def peer_shows(here: MarkedServer, there: MarkedServer, marks: Marks) -> bool | None:
    """Add a peer at one side and look at the other; None where that cannot be told."""
    mark = Mark(_new_value(PROBE_PEER))
    if not marks.put(mark):
        return None
    try:
        _set(lambda: here.set_peer(mark.value, PROBE_URL), mark, marks)
        try:
            if mark.value in there.peers():
                return True
            # One that is not where it was added proves nothing.
            return False if mark.value in here.peers() else None
        finally:
            _take_away(lambda: here.delete_peer(mark.value), mark, marks)
    except SideError as exc:
        if not lacks_right(exc, Need.WRITE):
            raise
        return None


def mark_shows(
    here: MarkedServer,
    there: MarkedServer,
    instance_id: str,
    *,
    marks: Marks,
    must: bool = False,
) -> bool | None:
    """Mark an instance that both hold at one side, and look at the other. Raises SideError.

    ``must``: also for a right that is missing, and for a mark that could not be removed.

    None where that cannot be told: it may not be written or read, or an instance went meanwhile.
    The number of the mark is one that the instance uses at neither side, and it is removed again;
    a server with CheckRevisions refuses to have another's metadata overwritten or removed.
    """
    try:
        number = _free_number(here, there, instance_id)
        if number is None:
            return None
        mark = Mark(_new_value(PROBE_VALUE), instance_id, number)
        if not marks.put(mark):
            return None
        etag = _set(lambda: here.set_metadata(instance_id, number, mark.value), mark, marks)
        try:
            seen = there.metadata_value(instance_id, number)
            own = here.metadata_value(instance_id, number)
        finally:
            _take_away(
                lambda: here.delete_metadata(instance_id, number, etag=etag), mark, marks, must=must
            )
    except InstanceError:
        return None
    except SideError as exc:
        if must or not lacks_right(exc, Need.WRITE):
            raise
        return None
    if seen is not None and seen[0] == mark.value:
        return True
    return False if own is not None and own[0] == mark.value else None


def remove_left(servers: Iterable[MarkedServer], marks: Marks) -> None:
    """Remove the marks that are on record, at whichever server they are. Raises SideError.

    One that a server does not give up, or does not let us remove, stays on record.
    """
    for mark in marks.left():
        try:
            any(_remove(server, mark) for server in servers)
        except SideError as exc:
            if not lacks_right(exc, Need.WRITE):
                raise
        else:
            marks.gone(mark)


def remove_old_marks(server: MarkedServer) -> None:
    """Remove the marks of killed probes that nobody has on record. Raises SideError."""
    now = time.time()
    try:
        for name, url in server.peers().items():
            if url == PROBE_URL and left_behind(name, now):
                server.delete_peer(name)
        for instance_id in server.list_instances(0, SEARCHED):
            with suppress(InstanceError):
                for number, value in server.instance_metadata(instance_id).items():
                    if left_behind(value, now):
                        _remove(server, Mark(value, instance_id, number))
    except SideError as exc:
        if not lacks_right(exc, Need.WRITE):
            raise


def left_behind(value: str, now: float) -> bool:
    """Tell whether a mark is one of ours, and older than any probe that is under way."""
    return _age_s(value, now) > MARK_S_MAX


def _age_s(value: str, now: float) -> float:
    """Return how long ago a mark was set; 0 for what is none of ours."""
    found = MARK.fullmatch(value)
    return 0.0 if found is None else now - int(found[1], 16)


def _new_value(begin: str) -> str:
    return f"{begin}{int(time.time()):010x}-{secrets.token_hex(8)}"


def _set(request: Callable[[], _Answer], mark: Mark, marks: Marks) -> _Answer:
    """Set a mark; one that a server refuses is not on record any more."""
    try:
        return request()
    except SideError as exc:
        if lacks_right(exc, Need.WRITE) and not exc.specific:
            marks.gone(mark)  # refused, and not failed at
        raise


def _take_away(
    request: Callable[[], None], mark: Mark, marks: Marks, *, must: bool = False
) -> None:
    """Remove a mark that was set a moment ago. One at which the server fails stays on record.

    ``must``: that is an error too. Raises SideError.
    """
    try:
        request()
    except InstanceError:
        pass  # the instance is gone, and the mark with it
    except SideError as exc:
        if must or not exc.specific:
            raise
        log(logging.WARNING, "mark_stays", f"{mark} could not be removed: {exc.message}")
        return
    marks.gone(mark)


def _remove(server: MarkedServer, mark: Mark) -> bool:
    """Remove a mark from a server; False when it is not there. Raises SideError."""
    if not mark.instance_id:
        there = mark.value in server.peers()
        if there:
            server.delete_peer(mark.value)
        return there
    try:
        known = server.metadata_value(mark.instance_id, mark.number)
        if known is None or known[0] != mark.value:
            return False
        server.delete_metadata(mark.instance_id, mark.number, etag=known[1])
    except InstanceError:
        return False  # the instance is gone, and the mark with it
    return True


def _free_number(here: MarkedServer, there: MarkedServer, instance_id: str) -> str | None:
    for _ in range(NUMBERS_TRIED_MAX):
        number = str(secrets.choice(NUMBERS))
        sides = (here, there)
        if all(side.metadata_value(instance_id, number) is None for side in sides):
            return number
    return None

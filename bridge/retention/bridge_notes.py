"""Who follows a server, and who deletes there: notes that bridges leave at the servers.

A bridge notes itself at its source ("follows"), and at its target too ("delivers") one that deletes
at either of them: another one may count on what it deletes. A note is an Orthanc peer with a name
of ours and an address where nobody listens: it is in no feed, belongs to no instance and so does
not go with one, and costs a request. It lives in the server's memory, so it is looked for and made
anew every half minute and after each trouble; whoever reads it remembers it in the ledger for good,
until a person says otherwise.

A bridge is its state file. A copy of one is another bridge, which may well deliver elsewhere: a
file that is not the one that its name was given to gets a name of its own, and the first one counts
as another bridge from then on. A copy that cannot be told by its file has the name of the first
one: there the tokens of their processes tell them apart (note_tokens.py), and each of them knows
the other as NAME-copy.

Before each deletion both servers are asked. A bridge notes itself before it deletes anything, and
looks after that: of two bridges that would empty each other's target at least one sees the other.
A process that follows one that may still run does not delete before that one had the time to renew
its notes.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from bridge.errors import SideError, StateError
from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.model import SideName, SideProblem
from bridge.orthanc import Need, lacks_right
from bridge.retention.note_tokens import (
    OF_BEFORE,
    TOKENS_KEY,
    Whose,
    is_new,
    last_ended,
    record_end,
    record_note,
    record_removal,
    record_token,
    tokens_on_record,
    whose,
)

PREFIX = "orthanc-bridge-"
NOBODY = "http://127.0.0.1:9/"
"""The discard service: whoever sends images there is refused."""
ANNOUNCE_EVERY_S = 30.0
LOOK_EVERY_S = 1.0
"""So often it is seen whether a note is due, and a server that did not answer is asked again."""
SETTLE_S = ANNOUNCE_EVERY_S + 5.0
"""After a server has forgotten the notes of bridges: longer than they take to renew them."""
NOTES_AWAITED = "waiting for the notes of other bridges"
"""Why nothing is deleted until then."""
NOTED_KEY = "noted_at_{}"
"""Ledger: this bridge has left a note at that side once, or was about to."""
FORGOTTEN_KEY = "notes_forgotten"
"""Ledger: a server has forgotten the notes, or the process before this one may still run. "" until
a sweep begins, then since when by the age clock the others have had the time to renew theirs."""
BRIDGE_ID_KEY = "bridge_id"
"""Ledger: the name of this bridge to others."""
BRIDGE_FILE_KEY = "bridge_file"
"""Ledger: the number of the file (inode) that the name was given to."""
UNSAID = "unknown"
"""What another bridge does at its source, where its note does not say so."""
FOLLOWERS_KEY = "followers"
"""Ledger: other bridges that follow the source, as JSON: name -> what they do with it."""
FOLLOWERS_MAX = 100
NO_ANSWER = frozenset({SideProblem.UNREACHABLE, SideProblem.TIMED_OUT, SideProblem.TLS})
"""The server is in trouble. Whatever a server or a proxy answers stops no more than retention."""
COPY = "-copy"
"""Ends the name under which a bridge knows another one that has its own name."""
TOKENED = re.compile(r"(?P<bridge>.+)-(?P<token>[0-9a-f]{8})")
END_S = 1.0
"""A process that ends waits so long for the note that it is leaving at this moment."""
KEEP = "keep"
MIRRORS = "mirrors-deletions"
"""In the note at the target of a bridge that deletes there what its source lacks."""


class Role(StrEnum):
    """What a bridge is to the server that has its note."""

    FOLLOWS = "follows"
    DELIVERS = "delivers"


class NotedServer(Protocol):
    """What is needed of a server."""

    def peers(self) -> dict[str, str]:
        """Return the peers."""

    def set_peer(self, name: str, url: str) -> None:
        """Add a peer."""

    def delete_peer(self, name: str) -> None:
        """Remove a peer; one that is not there is no error."""


@dataclass(frozen=True, slots=True)
class Note:
    """``retention``: keep, or after what time the bridge deletes at its source; or MIRRORS.

    ``token``: of the process that has left it.
    """

    role: Role
    bridge_id: str
    retention: str
    token: str = OF_BEFORE

    @property
    def name(self) -> str:
        """The name of the peer that is this note."""
        return name_of(self.role, self.bridge_id, self.token)


@dataclass(frozen=True, slots=True)
class NotesSeen:
    """The notes at a server, as a process of this bridge finds them.

    ``own``: the name of this bridge. ``token``: of the process, or of the one for which it asks.
    ``known``: the processes on record before the notes were read. What is removed and put on record
    by another thread after that is no note that came back.
    """

    side: SideName
    own: str
    token: str
    known: Mapping[str, list[str]]
    notes: tuple[Note, ...]

    def under_our_name(self) -> dict[Note, Whose]:
        """Tell whose each note is that is of our role here and has our name."""
        return {
            note: whose(note.token, self.side, own=self.token, known=self.known)
            for note in self.notes
            if note.role is role_at(self.side) and note.bridge_id == self.own
        }

    def told_apart(self) -> tuple[Note, ...]:
        """Return all notes; the bridge of one that another has left under our name is NAME-copy."""
        ours = self.under_our_name()

        def is_anothers(note: Note) -> bool:
            if note in ours:
                return ours[note] is Whose.ANOTHERS
            return note.bridge_id == self.own and note.token not in {self.token, *self.known}

        return tuple(
            replace(note, bridge_id=self.own + COPY) if is_anothers(note) else note
            for note in self.notes
        )


def bridge_id(ledger: Ledger) -> str:
    """Return the name of the bridge of this ledger, and make one up the first time."""
    known, file = ledger.meta(BRIDGE_ID_KEY), str(ledger.path.stat().st_ino)
    given_to = ledger.meta(BRIDGE_FILE_KEY)
    if known is not None and given_to == file:
        return known
    if known is None or given_to is not None:
        first, known = known, secrets.token_hex(6)
        if first is not None:
            # Before the new name: a crash in between must not leave the first one unknown.
            remember_followers(ledger, {first: UNSAID})
            text = (
                "The state file was copied, moved or restored from a backup. So this bridge now "
                f"has the name {known}, and {first} counts as another bridge. If no bridge uses "
                f"the first file any more: orthanc-bridge retention --forget {first}."
            )
            log(logging.WARNING, "state_file_copied", text)
        ledger.set_meta(BRIDGE_ID_KEY, known)
    ledger.set_meta(BRIDGE_FILE_KEY, file)
    return known


def stay_the_same(before: Ledger, restored: Ledger) -> None:
    """Let a restored ledger be that of the same bridge, in the place of the one before it."""
    noted = (NOTED_KEY.format(side) for side in SideName)
    for key in (TOKENS_KEY, *noted):
        restored.set_meta(key, before.meta(key))
    if before.meta(FORGOTTEN_KEY) is not None:
        restored.set_meta(FORGOTTEN_KEY, "")  # from when on is told by another age clock
    remember_followers(restored, known_followers(before))
    restored.set_meta(BRIDGE_FILE_KEY, str(restored.path.stat().st_ino))


def expect_note(ledger: Ledger, side: SideName, *, missing: bool) -> None:
    """Put on record that a note is at a server, or (``missing``) is about to be.

    Where it is missing and was there once, the server was restarted, perhaps while no bridge ran:
    it has forgotten the others too. That has to be on record before the note is there again: who
    sees the note may delete, and a process that is killed after it is followed by another one.
    """
    key = NOTED_KEY.format(side)
    if ledger.meta(key) is None:
        ledger.set_meta(key, "1")
    elif missing:
        await_notes(ledger)


def begin_process(ledger: Ledger, token: str) -> None:
    """Put on record that a process leaves notes from now on. Again: nothing changes.

    Where the process before it may still run, its note is waited for: this state file may be a copy
    of its.
    """
    if is_new(ledger, token):
        of_before = any(ledger.meta(NOTED_KEY.format(side)) is not None for side in SideName)
        if not last_ended(ledger, of_before=of_before):
            await_notes(ledger)
        record_token(ledger, token, of_before=of_before)


def see_notes(ledger: Ledger, server: NotedServer, side: SideName, *, token: str) -> NotesSeen:
    """Read the notes at a server, for a process of this bridge. Raises SideError."""
    own, known = bridge_id(ledger), tokens_on_record(ledger)
    return NotesSeen(side, own, token, known, read_notes(server))


def keep_note(ledger: Ledger, server: NotedServer, seen: NotesSeen, said: str) -> bool:
    """See to it that a process's note is at a server, and none of a process before it.

    Tells whether anything was changed since it was seen. Raises SideError.
    """
    begin_process(ledger, seen.token)
    side, found = seen.side, seen.under_our_name()
    expect_note(ledger, side, missing=all(whom is Whose.ANOTHERS for whom in found.values()))
    own = Note(role_at(side), seen.own, said, seen.token)
    new = Whose.OURS not in found.values()
    changed = own not in found
    if changed:
        record_note(ledger, seen.token)
        try:
            server.set_peer(own.name, address_of(said))
        except SideError as exc:
            if lacks_right(exc, Need.WRITE):
                # None is to be expected there: one that is missing will tell nothing.
                ledger.set_meta(NOTED_KEY.format(side), None)
            raise
    for note, whom in found.items():
        if whom is Whose.ENDED and new:
            with suppress(SideError):  # whoever may not remove it knows it all the same
                server.delete_peer(note.name)
        if whom is Whose.UNCERTAIN:
            # Before it: whoever is killed after it is followed by one that waits too.
            await_notes(ledger)
            server.delete_peer(note.name)
            record_removal(ledger, note.token, side)
            changed = True
    return changed


def await_notes(ledger: Ledger) -> None:
    """Delete nothing before other bridges had the time to renew their notes."""
    ledger.set_meta(FORGOTTEN_KEY, "")


def begin_wait(ledger: Ledger, now: float) -> None:
    """Wait from now on, by the age clock, if a server has forgotten the notes since the last time.

    It is in the ledger: the next process goes on waiting.
    """
    if ledger.meta(FORGOTTEN_KEY) == "":
        ledger.set_meta(FORGOTTEN_KEY, repr(now))


def notes_awaited(ledger: Ledger, now: float) -> bool:
    """Tell whether other bridges may not have had the time to renew their notes."""
    since = ledger.meta(FORGOTTEN_KEY)
    if not since:
        return since is not None
    with explained(ledger.path):
        return not now - float(since) >= SETTLE_S


def role_at(side: SideName) -> Role:
    """Say what a bridge is to the server at this side of it."""
    return Role.FOLLOWS if side is SideName.SOURCE else Role.DELIVERS


def name_of(role: Role, bridge: str, token: str = OF_BEFORE) -> str:
    """Return the name of the peer that is a note."""
    return f"{PREFIX}{role}-{bridge}" + (f"-{token}" if token else "")


def address_of(said: str) -> str:
    """Return the address of the peer that is a note, as a server tells it: Orthanc ends it so."""
    return f"{NOBODY}{said}/"


def _said_in(url: str) -> str:
    return url.removeprefix(NOBODY).removesuffix("/") if url.startswith(NOBODY) else UNSAID


def read_notes(server: NotedServer) -> tuple[Note, ...]:
    """Read all notes at a server. Raises SideError, also where we may not read them."""
    found = []
    for name, url in server.peers().items():
        for role in Role:
            begin = name_of(role, "")
            if name.startswith(begin):
                bridge, token = name.removeprefix(begin), OF_BEFORE
                if tokened := TOKENED.fullmatch(bridge):
                    bridge, token = tokened["bridge"], tokened["token"]
                found.append(Note(role, bridge, _said_in(url), token))
    return tuple(found)


class Announcer:
    """Keeps this process's notes at the servers. For any number of threads.

    ``servers``: clients for it alone, asked by one thread at a time. ``mirrors``: it deletes at the
    target what the source lacks.
    """

    def __init__(
        self,
        servers: Mapping[SideName, NotedServer],
        *,
        token: str,
        retention: str,
        mirrors: bool = False,
    ) -> None:
        self._servers = servers
        self._token = token
        self._retention = retention
        self._said = {SideName.SOURCE: retention}
        """What the note at each side says; no note at any other."""
        if mirrors or retention != KEEP:
            self._said[SideName.TARGET] = MIRRORS if mirrors else retention
        self._bridge = ""
        self._locks = {side: threading.Lock() for side in SideName}
        """One for each server: the notes at one do not wait for the other, which may hang."""
        self._ended = threading.Event()
        self._noted_at_s = dict.fromkeys(SideName, float("-inf"))
        self._copy_told = False
        self._state_path = Path()
        self.refused: dict[SideName, str] = {}
        """Where notes may not be left, and what the server said."""

    def begin(self, ledger: Ledger) -> None:
        """Announce the bridge of this ledger from now on. Again: nothing changes."""
        self._state_path = ledger.path
        begin_process(ledger, self._token)
        self._bridge = bridge_id(ledger)

    def end(self, ledger: Ledger) -> None:
        """Leave no note any more, and put that on record: the next process need not wait.

        One that cannot be sure of it does not say so.
        """
        self._ended.set()
        with ExitStack() as held:
            for lock in self._locks.values():
                if not self._bridge or not lock.acquire(timeout=END_S):
                    return
                held.callback(lock.release)
            self._bridge = ""
            record_end(ledger, self._token)

    def keep(self, side: SideName, steady_s: Callable[[], float]) -> None:
        """Renew the note at a server until the end, in a thread of its own.

        Others wait SETTLE_S for it. Probes come as late as BRIDGE_POLL_INTERVAL_S, a server that
        hangs and a bridge that is busy otherwise let them.
        """
        while not self._ended.wait(LOOK_EVERY_S):
            with suppress(SideError):  # it is asked again
                self.announce(side, steady_s())

    def void(self, side: SideName) -> None:
        """The server was in trouble: it may have forgotten."""
        self._noted_at_s[side] = float("-inf")

    def renew(self, side: SideName, now_s: float) -> None:
        """Announce, but not to a server in trouble: its own next probe does. Raises SideError."""
        if self._noted_at_s[side] > float("-inf"):
            self.announce(side, now_s)

    def announce(self, side: SideName, now_s: float) -> None:
        """See to it that the note is there. ``now_s``: any steady clock. Raises SideError.

        A refusal is kept in ``refused``: it stops nothing but retention.
        """
        with self._locks[side]:
            if not self._bridge or side not in self._said:
                return
            if now_s - self._noted_at_s[side] < ANNOUNCE_EVERY_S:
                return
            try:
                self._leave(side)
                self.refused.pop(side, None)
            except StateError as exc:
                self.refused[side] = exc.message
                return
            except SideError as exc:
                if exc.problem in NO_ANSWER:
                    raise
                self.refused[side] = exc.message
                if not lacks_right(exc, Need.WRITE):
                    return  # it may pass: the next probe tries again
            self._noted_at_s[side] = now_s

    def _leave(self, side: SideName) -> None:
        """Leave a note that is not there as it should be. Raises SideError, StateError."""
        server, said = self._servers[side], self._said[side]
        own = Note(role_at(side), self._bridge, said, self._token)
        try:
            # A connection of its own: the ledger's is another thread's.
            with Ledger(self._state_path, create=False) as ledger:
                seen = see_notes(ledger, server, side, token=self._token)
                self._tell_copies(ledger, seen)
                keep_note(ledger, server, seen, said)
        except StateError:
            if self._retention != KEEP:
                raise
            # It deletes nothing, and needs its note most.
            server.set_peer(own.name, address_of(said))

    def _tell_copies(self, ledger: Ledger, seen: NotesSeen) -> None:
        """Tell of a bridge that has our name, and remember one that follows the source."""
        copy, role = self._bridge + COPY, role_at(seen.side)
        copies = {
            note.bridge_id: note.retention
            for note in seen.told_apart()
            if note.bridge_id == copy and note.role is role
        }
        if copies and seen.side is SideName.SOURCE:
            remember_followers(ledger, copies)
        if copies and not self._copy_told:
            self._copy_told = True
            text = (
                f"Another bridge has the name of this one at the {seen.side} ({copy}): it runs on "
                "a copy of this state file, or this file was restored from an older copy. Give "
                "that bridge a new state file. If there is none: orthanc-bridge retention --forget "
                f"{copy}."
            )
            log(logging.WARNING, "state_file_copied", text)


def known_followers(ledger: Ledger) -> dict[str, str]:
    """Return the other bridges that were seen to follow the source."""
    text = ledger.meta(FOLLOWERS_KEY)
    with explained(ledger.path):
        known = dict(json.loads(text)) if text else {}
        return {str(name): str(retention) for name, retention in known.items()}


def remember_followers(ledger: Ledger, seen: Mapping[str, str]) -> dict[str, str]:
    """Add other bridges to those that are known, and return all of them."""
    known = known_followers(ledger)
    new = dict(sorted((known | dict(seen)).items())[:FOLLOWERS_MAX])
    if new != known:
        ledger.set_meta(FOLLOWERS_KEY, json.dumps(new))
    return new


def forget_follower(ledger: Ledger, bridge: str) -> bool:
    """Forget another bridge; False when it was not known."""
    known = known_followers(ledger)
    if known.pop(bridge, None) is None:
        return False
    ledger.set_meta(FOLLOWERS_KEY, json.dumps(known) if known else None)
    return True

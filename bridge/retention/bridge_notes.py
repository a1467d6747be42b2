"""Who follows a server, and who deletes there: notes that bridges leave at the servers.

A bridge notes itself at its source ("follows"), and at its target too ("delivers") one that deletes
at either of them: another one may count on what it deletes. A note is an Orthanc peer with a name
of ours and an address where nobody listens: it is in no feed, belongs to no instance and so does
not go with one, and costs a request. It lives in the server's memory, so it is looked for and made
anew every half minute and after each trouble; whoever reads it remembers it in the ledger for good,
until a person says otherwise.

A bridge is its state file. A copy of one is another bridge, which may well deliver elsewhere: a
file that is not the one that its name was given to gets a name of its own, and the first one counts
as another bridge from then on.

Before each deletion both servers are asked. A bridge notes itself before it deletes anything, and
looks after that: of two bridges that would empty each other's target at least one sees the other.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from bridge.errors import SideError, StateError
from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.model import SideName, SideProblem
from bridge.orthanc import Need, lacks_right

PREFIX = "orthanc-bridge-"
NOBODY = "http://127.0.0.1:9/"
"""The discard service: whoever sends images there is refused."""
ANNOUNCE_EVERY_S = 30.0
SETTLE_S = ANNOUNCE_EVERY_S + 5.0
"""After a server has forgotten the notes of bridges: longer than they take to renew them."""
NOTES_AWAITED = "waiting for the notes of other bridges"
"""Why nothing is deleted until then."""
NOTED_KEY = "noted_at_{}"
"""Ledger: this bridge has left a note at that side once, or was about to."""
FORGOTTEN_KEY = "notes_forgotten"
"""Ledger: a server has forgotten the notes. "" until a sweep begins, then since when by the age
clock the others have had the time to renew theirs."""
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


@dataclass(frozen=True, slots=True)
class Note:
    """``retention``: keep, or after what time the bridge deletes at its source; or MIRRORS."""

    role: Role
    bridge_id: str
    retention: str


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
                f"The state file is a copy, moved or restored from a backup: this is bridge "
                f"{known} now, and {first} is another one. If no bridge uses the first file any "
                f"more: orthanc-bridge retention --forget {first}."
            )
            log(logging.WARNING, "state_file_copied", text)
        ledger.set_meta(BRIDGE_ID_KEY, known)
    ledger.set_meta(BRIDGE_FILE_KEY, file)
    return known


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
        ledger.set_meta(FORGOTTEN_KEY, "")


def leave_note(
    ledger: Ledger, server: NotedServer, side: SideName, url: str, *, missing: bool
) -> None:
    """Leave this bridge's note at a server, or (not ``missing``) correct it. Raises SideError."""
    expect_note(ledger, side, missing=missing)
    try:
        server.set_peer(name_of(role_at(side), bridge_id(ledger)), url)
    except SideError as exc:
        if lacks_right(exc, Need.WRITE):
            # None is to be expected there: one that is missing will tell nothing.
            ledger.set_meta(NOTED_KEY.format(side), None)
        raise


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


def name_of(role: Role, bridge: str) -> str:
    """Return the name of the peer that is a note."""
    return f"{PREFIX}{role}-{bridge}"


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
                found.append(Note(role, name.removeprefix(begin), _said_in(url)))
    return tuple(found)


class Announcer:
    """Keeps this bridge's notes at the servers. For any number of threads.

    ``mirrors``: it deletes at the target what the source lacks.
    """

    def __init__(
        self, servers: Mapping[SideName, NotedServer], *, retention: str, mirrors: bool = False
    ) -> None:
        self._servers = servers
        self._retention = retention
        self._said = {SideName.SOURCE: retention}
        """What the note at each side says; no note at any other."""
        if mirrors or retention != KEEP:
            self._said[SideName.TARGET] = MIRRORS if mirrors else retention
        self._bridge = ""
        self._lock = threading.Lock()
        self._noted_at_s = dict.fromkeys(SideName, float("-inf"))
        self._on_record: set[SideName] = set()
        """Where the ledger says that there is a note."""
        self._state_path = Path()
        self.refused: dict[SideName, str] = {}
        """Where notes may not be left, and what the server said."""

    def begin(self, ledger: Ledger) -> None:
        """Announce the bridge of this ledger from now on. Again: nothing changes."""
        self._state_path = ledger.path
        self._bridge = bridge_id(ledger)

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
        if not self._bridge or side not in self._said:
            return
        with self._lock:
            if now_s - self._noted_at_s[side] < ANNOUNCE_EVERY_S:
                return
            name, url = name_of(role_at(side), self._bridge), address_of(self._said[side])
            try:
                known = self._servers[side].peers().get(name)
                self._leave(side, url, known)
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

    def _leave(self, side: SideName, url: str, known: str | None) -> None:
        """Leave a note that is not there as it should be. Raises SideError, StateError."""
        if known == url and side in self._on_record:
            return
        server = self._servers[side]
        try:
            # A connection of its own: the ledger's is another thread's.
            with Ledger(self._state_path, create=False) as ledger:
                if known == url:
                    expect_note(ledger, side, missing=False)
                else:
                    leave_note(ledger, server, side, url, missing=known is None)
        except StateError:
            if self._retention != KEEP:
                raise
            # It deletes nothing, and needs its note most.
            server.set_peer(name_of(role_at(side), self._bridge), url)
        self._on_record.add(side)


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

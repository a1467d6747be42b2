"""Which process has left a note under the name of this bridge.

The name of a bridge is in its state file, and so in each copy of that file. A copy on the same file
system has another inode, which bridge_notes.py sees. On another volume or machine it may have the
same one. So each process that follows has a token of its own, at random. It is in the names of the
process's notes, and on record in the ledger before the first of them is left. What a process finds
under its bridge's name is told by the token:

    it is its own                                        OURS
    on record, and its process has said that it ended    ENDED: the note may go
    on record, and its process has not said so           UNCERTAIN: that one was killed, or runs on
                                                         the file that this one is a copy of
    the same, where the note was removed once            ANOTHERS: somebody leaves it anew
    not on record                                        ANOTHERS

An uncertain note is removed, and after that nothing is deleted before its process, if there is one,
has had the time to leave it anew. Two processes never write the same note. So none hides another,
whenever they start, and each sees the other at its next look.

A late token is an error on the safe side: a server that hung does a request of a killed process, or
gets its peers back from a backup. A person forgets that one by name.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from enum import StrEnum

from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.model import SideName

TOKENS_KEY = "note_tokens"
"""Ledger: the tokens of this bridge's processes, the newest last, as JSON: token -> what is known
of it, which is ENDED and the servers at which a later process has removed its note. Two threads may
write it at once: what one of them loses is seen again."""
TOKENS_MAX = 500
"""So many are on record; of more, those that have left no note are dropped first, then the oldest.
One that is dropped and still at a server is taken for another bridge's. A server may have many: of
a bridge whose login may leave notes and not remove them."""
ENDED = "ended"
NOTED = "noted"
"""Of a token: its process has left a note, or was about to."""
OF_BEFORE = ""
"""The token of a process of a version that left notes without one."""


class Whose(StrEnum):
    """Whose a note under this bridge's name is."""

    OURS = "ours"
    ENDED = "ended"
    UNCERTAIN = "uncertain"
    ANOTHERS = "another's"


def new_token() -> str:
    """Make up the token of a process."""
    return secrets.token_hex(4)


def tokens_on_record(ledger: Ledger) -> dict[str, list[str]]:
    """Return what is known of this bridge's processes, the newest last."""
    text = ledger.meta(TOKENS_KEY)
    with explained(ledger.path):
        known = dict(json.loads(text)) if text else {}
        return {str(token): list(map(str, said)) for token, said in known.items()}


def newest_token(ledger: Ledger) -> str:
    """Return the token of the process that runs now, or ran last."""
    return next(reversed(tokens_on_record(ledger)), OF_BEFORE)


def is_new(ledger: Ledger, token: str) -> bool:
    """Tell whether a process is not on record yet."""
    return token not in tokens_on_record(ledger)


def last_ended(ledger: Ledger, *, of_before: bool) -> bool:
    """Tell whether the newest process on record has ended, if there is one.

    ``of_before``: an older version has left notes.
    """
    known = tokens_on_record(ledger)
    return ENDED in next(reversed(known.values())) if known else not of_before


def record_token(ledger: Ledger, token: str, *, of_before: bool) -> None:
    """Put a process on record, before it leaves a note."""
    known = tokens_on_record(ledger)
    if of_before and not known:
        known[OF_BEFORE] = []
    # Durably: a power cut must not make our own note another bridge's.
    _write(ledger, known | {token: []}, durably=True)


def record_note(ledger: Ledger, token: str) -> None:
    """Put on record that a process leaves a note, before it does."""
    _add(ledger, token, NOTED)


def record_end(ledger: Ledger, token: str) -> None:
    """Put on record that a process leaves no note any more, and deletes nothing."""
    _add(ledger, token, ENDED)


def record_removal(ledger: Ledger, token: str, side: SideName) -> None:
    """Put on record that the note of an earlier process is removed from a server."""
    _add(ledger, token, side)


def whose(token: str, side: SideName, *, own: str, known: Mapping[str, list[str]]) -> Whose:
    """Tell whose a note under this bridge's name is: the table at the head of this file."""
    if token == own:
        return Whose.OURS
    said = known.get(token)
    if said is None:
        return Whose.ANOTHERS
    if ENDED in said:
        return Whose.ENDED
    return Whose.ANOTHERS if side in said else Whose.UNCERTAIN


def _add(ledger: Ledger, token: str, said: str) -> None:
    known = tokens_on_record(ledger)
    if token in known and said not in known[token]:
        known[token].append(said)
        _write(ledger, known)


def _write(ledger: Ledger, known: dict[str, list[str]], *, durably: bool = False) -> None:
    unheard = [token for token, said in list(known.items())[:-1] if NOTED not in said]
    dropped = set([*unheard, *known][: max(0, len(known) - TOKENS_MAX)])
    kept = {token: said for token, said in known.items() if token not in dropped}
    ledger.set_meta(TOKENS_KEY, json.dumps(kept), durably=durably)

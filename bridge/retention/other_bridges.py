"""Nobody else needs the source, and nobody empties the target: what the notes of bridges say.

Two kinds of bridge count on each other. One with retention deletes at the source what the target
holds; one that mirrors deletions deletes at the target what its source lacks. Where both have one
target, and both have delivered an instance, each deletes a copy that the other takes for the one
that stays. So each of them refuses while the note of the other is at the target.
"""

from __future__ import annotations

from collections.abc import Iterable

from bridge.errors import ConfigurationError, SideError
from bridge.ledger.store import Ledger
from bridge.model import SideName
from bridge.orthanc import Need, lacks_right
from bridge.retention.bridge_notes import (
    COPY,
    KEEP,
    MIRRORS,
    UNSAID,
    Note,
    NotedServer,
    NotesSeen,
    Role,
    begin_wait,
    bridge_id,
    keep_note,
    known_followers,
    notes_awaited,
    remember_followers,
    see_notes,
)
from bridge.retention.limits_and_risks import RetentionRules, Risk, risky

NAMED_MAX = 10
"""Bridges that are named in an error."""


class OtherBridges:
    """The other bridges at both servers, as their notes tell of them.

    ``token``: of this process, or of the one for which it asks.
    """

    def __init__(
        self, source: NotedServer, target: NotedServer, rules: RetentionRules, *, token: str
    ) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._token = token

    def refuse(self, ledger: Ledger, *, noted: bool = False) -> None:
        """Make sure that no other bridge needs the source or empties the target.

        ``noted``: do not note ourselves. Raises SideError, ConfigurationError.
        """
        own = bridge_id(ledger)
        # One by one: what may be read counts, also where the rest may not. The source first: ours
        # is there before others' are looked for at the target, so of two bridges that go opposite
        # ways at least one sees the other.
        seen = [self._seen_at(side, ledger) for side in SideName]
        if not noted and self._note_us(ledger, seen):
            seen = [self._seen_at(side, ledger) for side in SideName]
        here, there = (() if found is None else found.told_apart() for found in seen)
        follow = {n.bridge_id: n.retention for n in here if n.role is Role.FOLLOWS}
        follow.pop(own, None)
        known = known_followers(ledger) | follow if noted else remember_followers(ledger, follow)
        _refuse_known(known)
        exchanged = [n.name for n in there if (n.role, n.bridge_id) == (Role.FOLLOWS, own)]
        emptied = {n.bridge_id: n.retention for n in there if n.role is Role.FOLLOWS}
        if emptied.pop(own, None) is not None:
            raise ConfigurationError(
                "A note at the target says that this bridge follows the target: the two addresses "
                "lead to one server, or were exchanged. Nothing is deleted.",
                advice="Correct BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL. If you exchanged them on "
                f"purpose, restart the new target, or delete the peer {exchanged[0]} "
                "there, and use another BRIDGE_STATE_PATH.",
            )
        emptied = {name: retention for name, retention in emptied.items() if retention != KEEP}
        mirrors = _delivering(there, own, mirror=True)
        opposite = sorted({n.bridge_id for n in here if n.role is Role.DELIVERS} & set(emptied))
        if opposite:
            raise ConfigurationError(
                f"Bridge {opposite[0]} goes the opposite way, from this target to this source, "
                "and deletes at this target what this bridge delivers. Nothing is deleted.",
                advice="Set BRIDGE_SOURCE_RETENTION=keep in one of the two bridges.",
            )
        if emptied and not self._rules.accepts(Risk.TARGET_EMPTIED):
            raise risky(
                f"Bridge {min(emptied)} deletes at the target what it has moved on from there (if "
                f"that bridge is gone for good: orthanc-bridge retention --forget {min(emptied)})",
                Risk.TARGET_EMPTIED,
            )
        if mirrors and not self._rules.accepts(Risk.TARGET_EMPTIED):
            raise risky(
                f"Bridge {mirrors[0]} deletes at the target what its own source lacks "
                "(BRIDGE_MIRROR_DELETIONS), also what this bridge has delivered (if that bridge "
                f"is gone for good: orthanc-bridge retention --forget {mirrors[0]})",
                Risk.TARGET_EMPTIED,
            )

    def remember(self, ledger: Ledger) -> None:
        """Remember who follows the source while nothing is due: it may forget them before."""
        try:
            seen = see_notes(ledger, self._source, SideName.SOURCE, token=self._token)
        except SideError:
            return  # whoever is about to delete asks again
        follow = {n.bridge_id: n.retention for n in seen.told_apart() if n.role is Role.FOLLOWS}
        follow.pop(bridge_id(ledger), None)
        remember_followers(ledger, follow)

    def _server(self, side: SideName) -> NotedServer:
        return self._source if side is SideName.SOURCE else self._target

    def _seen_at(self, side: SideName, ledger: Ledger) -> NotesSeen | None:
        """Read the notes at a server; None where we may not, and the operator accepts that."""
        try:
            return see_notes(ledger, self._server(side), side, token=self._token)
        except SideError as exc:
            self._refuse_unregistered(exc, Need.LOOK)
            return None

    def _refuse_unregistered(self, exc: SideError, need: Need) -> None:
        """Refuse where notes may not be read or left, unless the operator accepts that."""
        if not lacks_right(exc, need):
            raise exc
        if not self._rules.accepts(Risk.UNREGISTERED):
            raise risky(
                "The bridge cannot find out whether another bridge needs the source or empties "
                f"the target: {exc.message} Allow GET, PUT and DELETE on /peers",
                Risk.UNREGISTERED,
            ) from exc

    def _note_us(self, ledger: Ledger, seen: Iterable[NotesSeen | None]) -> bool:
        """Keep the notes of this process at the servers; tells whether that changed any."""
        changed = False
        for found in seen:
            if found is None:
                continue
            server, said = self._server(found.side), self._rules.retention or UNSAID
            try:
                changed |= keep_note(ledger, server, found, said)
            except SideError as exc:
                self._refuse_unregistered(exc, Need.WRITE)
                changed = True
        return changed


def awaits_notes_at_target(
    ledger: Ledger, target: NotedServer, *, now: float, accepted: frozenset[str], token: str
) -> bool:
    """Tell whether one that mirrors deletions has to wait for the notes of others at the target.

    ``now``: by the age clock. ``accepted``: risks. ``token``: of this process. Raises SideError,
    and ConfigurationError while a bridge with retention delivers there: what that one has deleted
    at its source is there alone.
    """
    own = bridge_id(ledger)
    try:
        seen = see_notes(ledger, target, SideName.TARGET, token=token)
        if keep_note(ledger, target, seen, MIRRORS):
            seen = see_notes(ledger, target, SideName.TARGET, token=token)
    except SideError as exc:
        if not (lacks_right(exc, Need.LOOK) or lacks_right(exc, Need.WRITE)):
            raise
        if Risk.UNREGISTERED in accepted:
            return False
        raise ConfigurationError(
            "The bridge cannot find out whether another bridge relies on what the target holds: "
            f"{exc.message} Nothing is deleted at the target.",
            advice="Allow GET, PUT and DELETE on /peers at the target, or, if no bridge with "
            f"retention delivers there, set BRIDGE_RETENTION_RISK={Risk.UNREGISTERED}.",
        ) from exc
    others = _delivering(seen.told_apart(), own, mirror=False)
    if others and Risk.TARGET_EMPTIED not in accepted:
        raise ConfigurationError(
            f"Bridge {others[0]} delivers to this target too, and deletes at its source what it "
            "has delivered: the copy at the target may be the last one. Nothing is deleted at the "
            "target.",
            advice="Set BRIDGE_MIRROR_DELETIONS=off, or BRIDGE_SOURCE_RETENTION=keep in that "
            f"bridge, or BRIDGE_RETENTION_RISK={Risk.TARGET_EMPTIED} here if you accept "
            "that. If that bridge is gone for good: orthanc-bridge retention --forget "
            f"{others[0]}.",
        )
    begin_wait(ledger, now)
    return notes_awaited(ledger, now)


def _delivering(notes: Iterable[Note], own: str, *, mirror: bool) -> list[str]:
    """Name the other bridges that deliver there: those that mirror deletions, or all others."""
    return sorted(
        note.bridge_id
        for note in notes
        if note.role is Role.DELIVERS
        and note.bridge_id != own
        and (note.retention == MIRRORS) is mirror
    )


def _refuse_known(known: dict[str, str]) -> None:
    copies = [name for name in known if name.endswith(COPY)]
    if copies:
        raise ConfigurationError(
            f"Another bridge follows this source under the name of this one ({copies[0]}): it runs "
            "on a copy of this state file, or this file was restored from an older copy. It may "
            "still need what would be deleted. Nothing is deleted.",
            advice="Give the other bridge a new state file (BRIDGE_START=snapshot). Once none runs "
            f"on a copy any more: orthanc-bridge retention --forget {copies[0]}.",
        )
    if known:
        names = ", ".join(sorted(known)[:NAMED_MAX])
        raise ConfigurationError(
            f"Another bridge follows this source ({names}) and may still need the instances. "
            "Nothing is deleted.",
            advice="If that bridge, or its state file, is gone for good: orthanc-bridge retention "
            "--forget NAME.",
        )

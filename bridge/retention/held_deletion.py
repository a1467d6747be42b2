"""Every deletion can be undone for a while: its bytes are held until the target has shown its file.

Two storage areas can be one in a way that no name tells, for all instances or for some: then the
target's file goes with the deletion. So before each

1. the file that is about to go is written beside the state file (``.held``, mode 0600), and
2. the deletion is noted in the ledger; both survive a kill and a power cut;

and after it, before anything else is deleted, the target reads its file again. Whoever comes next
begins there: this process, or the one after a kill. When the file is gone, it is given back to the
source from ``.held``, or kept beside the state file, and nothing is deleted any more before a
person has said so. A kill may leave ``.held`` without a note: then nothing was deleted.

A deletion may also be followed at the target some time later: by a script, or by a storage that
replicates. So one deletion a day is on trial: its bytes are held for ``trial_s``, and nothing else
is deleted before the target has shown its file once more at the end of it. What comes later than
that is found by samples of what was deleted (deleted_samples.py).

A deletion without an answer (a kill, a time-out) may still wait in a server that hangs, and be done
later. So where the source still holds the instance, note and ``.held`` stay for FATE_S more, and
nothing else is deleted meanwhile. The same holds for a source that answers that it has deleted the
instance, and still holds it; IGNORED_MAX of those in a row are told as a failure. The evidence of
that instance is taken back, and its retention time begins anew: in an hour, and later the more
deletions in a row were not done, a day at most. All is proved again then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from bridge.errors import (
    BridgeError,
    ConfigurationError,
    InstanceError,
    InstanceGone,
    SideError,
    StateError,
)
from bridge.ledger.lock import explained
from bridge.ledger.records import Kept
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.model import SideProblem
from bridge.own_files import open_to_read, real_path, write_private
from bridge.retention.deletion_limits import STOPPED_KEY, is_stopped, refuse_stopped
from bridge.retention.objections import InstanceLooks, Objection
from bridge.retention.protocols import KeepingServer

HELD_BYTES_MAX = 64 * 1024 * 1024
"""A larger file is not held: it costs seconds, and room beside the state file."""
UNVERIFIED_KEY = "retention_unverified"
"""Ledger: the deletion after which the target's file was not verified yet, as JSON."""
FATE_S = 900.0
"""A deletion without an answer that the source has not done after this time is done no more."""
FATE_AWAITED = "a deletion at the source was not answered or not done yet, and may still happen"
FATE_AWAITED_TEXT = (
    "The source has not answered a deletion, or has not done it, and may still do it: nothing else "
    f"is deleted for {FATE_S / 60:.0f} minutes."
)
ANSWERED = "answered"
"""Of the note: the source has answered that it deleted it."""
IGNORED_KEY = "retention_ignored"
"""Ledger: how many deletions in a row the source has answered and not done, and of which instance
the last one was, as JSON."""
RETRY_S, RETRY_S_MAX = 3600.0, 86_400.0
"""A deletion that was not done is tried again after the retention time and this, doubled with each
that follows in a row, and not more than that."""
IGNORED_MAX = 2
"""So many make it sure that deletions are not done: then it is told."""
ON_TRIAL = "a deletion is on trial: does the target keep its copy?"
TRIED_KEY = "retention_tried_at"
"""Ledger: when the last trial ended well, by the age clock."""
TRIED_AGAIN_S = 86_400.0
"""A trial counts for so long."""
TRIAL_UNTIL = "trial_until"
"""Of the note: until when the deletion is on trial, by the age clock."""
AWAITED_FROM = "awaited_from"
"""Of the note: when the instance was found to be still there, by the age clock."""
GIVEN_BACK_KEY = "retention_given_back"
"""Ledger: which instance was given back to the source at last."""
STORED = frozenset({"Success", "AlreadyStored"})


class HeldDeletion:
    """What surrounds a deletion. ``trial_s``: 0 for no trial."""

    def __init__(self, source: KeepingServer, looks: InstanceLooks, *, trial_s: float) -> None:
        self._source = source
        self._looks = looks
        self._trial_s = trial_s

    def announce(self, ledger: Ledger, kept: Kept, file: bytes | None) -> None:
        """Hold the bytes of what is about to be deleted, and note that it is. Raises StateError.

        ``file`` None: it is larger than HELD_BYTES_MAX.
        """
        with explained(ledger.path):
            held = held_path(ledger)
            held.unlink(missing_ok=True)
            if file is not None:
                write_private(held, file)
        ledger.set_meta(UNVERIFIED_KEY, json.dumps(asdict(kept)), durably=True)

    def note_answer(self, ledger: Ledger) -> None:
        """Note that the source has answered: it has deleted the instance. Before ``verify``."""
        text = ledger.meta(UNVERIFIED_KEY)
        if text is not None:
            with explained(ledger.path):
                noted = json.dumps(dict(json.loads(text)) | {ANSWERED: True})
            ledger.set_meta(UNVERIFIED_KEY, noted)

    def refuse_ignored(self, ledger: Ledger) -> None:
        """Raise ConfigurationError while the source does none of the deletions that it answers.

        Until one is done, or the instance of the last one is gone.
        """
        text = ledger.meta(IGNORED_KEY)
        if text is None:
            return
        with explained(ledger.path):
            noted = dict(json.loads(text))
            count, instance_id = int(noted["count"]), str(noted["instance_id"])
        if count >= IGNORED_MAX and self._is_there(instance_id) is not False:
            raise ConfigurationError(
                f"The source answered {count} deletions in a row as done, but still holds the "
                f"instances. The last one is {instance_id}.",
                advice="Look for a proxy or a plugin in front of the source that answers for it, "
                "and read its log. The bridge tries one deletion every 15 minutes.",
            )

    def verify(self, ledger: Ledger, *, now: float, answered: bool = False) -> str:
        """Have the target read the file of the deletion that was not verified yet, if there is one.

        ``answered``: the source has refused it. Returns why nothing else may be deleted at ``now``,
        by the age clock, or "": the source still holds the instance and may delete it later, or the
        deletion is on trial.
        Raises SideError, ConfigurationError when the file is lost (its bytes are given back, or
        kept), and StateError when they could neither be given back nor keep their place.
        """
        text = ledger.meta(UNVERIFIED_KEY)
        if text is not None and is_stopped(ledger):
            # Found to be lost, and told: the process was killed before it could strike the note.
            ledger.set_meta(UNVERIFIED_KEY, None)
        elif text is not None:
            with explained(ledger.path):
                noted = dict(json.loads(text))
                since = noted.pop(AWAITED_FROM, None)
                since = None if since is None else float(since)
                until = noted.pop(TRIAL_UNTIL, None)
                said_done = bool(noted.pop(ANSWERED, False))
                kept = Kept(**noted)
            there = self._is_there(kept.instance_id)
            if until is not None and there is None:
                return ON_TRIAL  # it was gone: another look tells
            stored_again = until is not None and there
            if (
                not stored_again
                and there is not False
                and not answered
                and not _is_over(since, now)
            ):
                if since is None:
                    if said_done and there:
                        count = _count_ignored(ledger, kept.instance_id)
                        ledger.keep_again(kept, aged_from=now + retry_s(count))
                    _begin_wait(ledger, kept, now, said_done=said_done, there=there)
                self.refuse_ignored(ledger)
                return FATE_AWAITED
            if there is False:
                ledger.set_meta(IGNORED_KEY, None)
            if not there:
                objection = self._looks.target_objection(kept)
                if objection is not None:
                    self._give_back(ledger, kept, objection)
            if there is False and self._is_on_trial(ledger, kept, until, now):
                return ON_TRIAL
            ledger.set_meta(UNVERIFIED_KEY, None)
        with explained(ledger.path):
            held_path(ledger).unlink(missing_ok=True)
        return ""

    def _is_on_trial(self, ledger: Ledger, kept: Kept, until: object, now: float) -> bool:
        """Begin a trial of a deletion that is well so far, go on with it, or end it."""
        if until is not None:
            with explained(ledger.path):
                if now < float(str(until)):
                    return True
            ledger.set_meta(TRIED_KEY, repr(now))
            return False
        with explained(ledger.path):
            tried = float(ledger.meta(TRIED_KEY) or "-inf")
        if not self._trial_s or tried <= now < tried + TRIED_AGAIN_S:
            return False
        note = asdict(kept) | {ANSWERED: True, TRIAL_UNTIL: now + self._trial_s}
        ledger.set_meta(UNVERIFIED_KEY, json.dumps(note), durably=True)
        text = (
            f"the source has deleted instance {kept.instance_id}; the bridge waits "
            f"{self._trial_s:.0f} s to see that the target keeps its copy, before it deletes more"
        )
        log(logging.INFO, "deletion_on_trial", text, instance=kept.instance_id)
        return True

    def _is_there(self, instance_id: str) -> bool | None:
        """Tell whether the source still holds the instance; None where it does not tell."""
        try:
            self._source.stored_file(instance_id)
        except InstanceGone:
            return False
        except InstanceError:
            return None
        return True

    def _give_back(self, ledger: Ledger, kept: Kept, objection: Objection) -> None:
        """Upload what was deleted to the source again, and delete nothing any more."""
        held = held_path(ledger)
        how = "The bridge did not keep its file: look for the instance in a backup."
        file = _read(held, kept.source_md5)
        if file is not None:
            # Before it: its row may be read at once, and must not count as one that came back.
            ledger.set_meta(GIVEN_BACK_KEY, kept.instance_id)
            refused = self._refused(kept, file)
            how = "The bridge sent it back to the source."
            if refused:
                how = (
                    f"The bridge could not send it back to the source ({refused}) and saved "
                    f"it as {_rescue(held, kept)}."
                )
        text = (
            f"After instance {kept.instance_id} was deleted at the source, the target no longer "
            f"has it ({objection}): do the two servers share their files, or does something "
            f"delete at the target what is deleted at the source? {how}"
        )
        log(logging.CRITICAL, "retention_stopped", text, instance=kept.instance_id)
        ledger.set_meta(STOPPED_KEY, text, durably=True)
        ledger.set_meta(UNVERIFIED_KEY, None)
        with explained(ledger.path):
            held.unlink(missing_ok=True)
        refuse_stopped(ledger)

    def _refused(self, kept: Kept, file: bytes) -> str:
        """Upload a file to the source; returns why it does not have it then, or ""."""
        try:
            answer = self._source.store_instance(file)
        except BridgeError as exc:
            return exc.message
        stored = answer.instance_id == kept.instance_id and answer.status in STORED
        return "" if stored else f"the source answered {answer.status}"


def given_back(ledger: Ledger) -> str:
    """Return the instance that was given back to the source at last; "" for none. StateError."""
    return ledger.meta(GIVEN_BACK_KEY) or ""


def why_unverified(ledger: Ledger) -> str:
    """Say what the note of the last deletion waits for; "" without one. Raises StateError."""
    text = ledger.meta(UNVERIFIED_KEY)
    if text is None:
        return ""
    with explained(ledger.path):
        return ON_TRIAL if TRIAL_UNTIL in dict(json.loads(text)) else FATE_AWAITED


def take_over(before: Ledger, restored: Ledger) -> None:
    """Let a restored ledger know of the deletion that is not verified yet: its bytes are held."""
    text = before.meta(UNVERIFIED_KEY)
    with explained(before.path):
        noted = dict(json.loads(text)) if text is not None else {}
    for told in (AWAITED_FROM, TRIAL_UNTIL):
        noted.pop(told, None)  # by another age clock
    restored.set_meta(UNVERIFIED_KEY, json.dumps(noted) if noted else None)
    restored.set_meta(IGNORED_KEY, before.meta(IGNORED_KEY))


def was_answered(error: SideError) -> bool:
    """Tell whether the source itself has refused a deletion, and does not do it later.

    A proxy that answers for a server that hangs (502, 504) does not know that.
    """
    refused = error.problem in (SideProblem.FORBIDDEN, SideProblem.LOGIN_REFUSED)
    return refused or (error.specific and error.problem is SideProblem.SERVER_ERROR)


def _is_over(since: float | None, now: float) -> bool:
    return since is not None and now - since >= FATE_S


def retry_s(ignored: int) -> float:
    """Say for how long a deletion that was not done is let alone. ``ignored``: so many in a row."""
    return min(RETRY_S * 2.0 ** min(ignored - 1, 16), RETRY_S_MAX)


def _count_ignored(ledger: Ledger, instance_id: str) -> int:
    """Count a deletion that was not done; returns how many that makes in a row."""
    text = ledger.meta(IGNORED_KEY)
    with explained(ledger.path):
        before = 0 if text is None else int(json.loads(text)["count"])
    noted = {"count": before + 1, "instance_id": instance_id}
    ledger.set_meta(IGNORED_KEY, json.dumps(noted))
    return before + 1


def _begin_wait(
    ledger: Ledger, kept: Kept, now: float, *, said_done: bool, there: bool | None
) -> None:
    note = asdict(kept) | {AWAITED_FROM: now, ANSWERED: said_done}
    ledger.set_meta(UNVERIFIED_KEY, json.dumps(note), durably=True)
    asked = "and still holds it" if there else "and does not say whether it still holds it"
    text, event = f"the source has not answered, {asked}", "deletion_unanswered"
    if said_done:
        text, event = f"the source answered that it is done, {asked}", "deletion_not_done"
    text = f"the deletion of instance {kept.instance_id}: {text}. "
    text += f"Nothing else is deleted for {FATE_S / 60:.0f} minutes"
    log(logging.WARNING, event, text, instance=kept.instance_id)


def held_path(ledger: Ledger) -> Path:
    """Return where the bytes of a deletion are held."""
    real = real_path(ledger.path)
    return real.with_name(real.name + ".held")


def _read(held: Path, md5: str) -> bytes | None:
    """Return what is held, if it is the file with this MD5."""
    try:
        with os.fdopen(open_to_read(held), "rb") as stream:
            file = stream.read()
    except OSError:
        return None
    return file if hashlib.md5(file, usedforsecurity=False).hexdigest() == md5 else None


def _rescue(held: Path, kept: Kept) -> Path:
    """Give the file that is held a name under which it stays; returns it. Raises StateError."""
    path = held.with_name(f"rescued-{kept.instance_id}.dcm")
    if path.exists():
        path = held.with_name(f"rescued-{kept.instance_id}-{kept.source_md5}.dcm")
    try:
        held.replace(path)
    except OSError as failure:
        # Nothing is noted: the next sweep begins here again.
        raise StateError(
            f"Instance {kept.instance_id} was deleted at the source, and the target no longer has "
            f"it. Its file is {held}. The bridge could neither send it back to the source nor "
            f"rename it to {path.name}: {failure.strerror}.",
            advice="Keep that file. Upload it to the source yourself, or make the directory "
            "writable: the bridge tries again.",
        ) from failure
    return path

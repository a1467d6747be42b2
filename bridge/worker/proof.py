"""Proof of arrival (G8): what the target says of an instance, held against what was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from bridge.dicom.orthanc_id import orthanc_id_of
from bridge.errors import InstanceError, SideError, side_error
from bridge.model import Reason, SideName, SideProblem, StoreAnswer
from bridge.orthanc import StoredFile
from bridge.worker.payload import Buffer, Payload

ALREADY_STORED = "AlreadyStored"
FOLLOWS = "orthanc-bridge-follows-"
"""How the name of a note begins: Role.FOLLOWS of retention/bridge_notes.py (a test compares)."""


class ProvingServer(Protocol):
    """What is needed of a server to prove a delivery: an Orthanc, or a file (worker/prepare.py)."""

    def stored_md5(self, instance_id: str) -> str:
        """Return the MD5 of an instance's file. Raises InstanceError, SideError."""

    def stored_file(self, instance_id: str) -> StoredFile:
        """Return the name of an instance's file. Raises InstanceError, SideError."""

    def peers(self) -> dict[str, str]:
        """Return the peers. Raises SideError."""


HIDDEN = (SideProblem.FORBIDDEN, SideProblem.LOGIN_REFUSED)
"""Answers of a target that lets us store and not look."""


def _hides(error: SideError) -> bool:
    """Whether a server does not tell, as opposed to being in trouble."""
    return error.problem in HIDDEN or error.specific


def stored_md5(target: ProvingServer, instance_id: str, *, may_hide: bool) -> str:
    """Ask the target for the MD5 of what it holds; "" when it may hide it and does.

    Raises SideError.
    """
    try:
        return target.stored_md5(instance_id)
    except SideError as exc:
        if not may_hide or exc.problem not in HIDDEN:
            raise
        return ""  # the answer is the proof that was asked for, and it was given
    except InstanceError as exc:
        # It may note no MD5s (StoreMD5ForAttachments), which is how it hides them from everybody.
        if not may_hide or exc.reason is not Reason.SERVER_REFUSES_INSTANCE:
            raise
        return ""


def file_name(server: ProvingServer, instance_id: str, *, md5: str) -> str:
    """Ask a server for the name of an instance's file in its storage area.

    "" where it does not tell, or holds other bytes than these by now: then nothing is deleted on
    the strength of this delivery before the name was learned. Raises SideError.
    """
    try:
        file = server.stored_file(instance_id)
    except InstanceError:
        return ""
    except SideError as exc:
        if not _hides(exc):
            raise
        return ""
    return file.uuid if file.md5 == md5 else ""


def check_another_file(source: ProvingServer, target: ProvingServer, instance_id: str) -> None:
    """Make sure that what the target says it holds already is not the file at the source.

    An address that leads to the source for a moment answers AlreadyStored too, and the target never
    gets the instance. Every server names its files by itself: another name is another file. The
    target is asked first, so that it cannot be the source's newer file that differs. The same name
    is the same server, or a copy of its folders: a copy has no note of a bridge that follows the
    source (retention/bridge_notes.py), because notes are in no folder. Where one of them does not
    tell, the answer alone counts. Raises SideError, and InstanceError where the target lacks the
    instance.
    """
    held = _named(target, instance_id)
    if held and held == _named(source, instance_id) and _notes(target) & _notes(source):
        raise side_error(
            SideName.TARGET,
            SideProblem.SERVER_ERROR,
            f"The target's address leads to the source: it holds instance {instance_id} in the "
            "source's file, and has the note of a bridge that follows the source.",
            advice="Make sure that BRIDGE_TARGET_URL leads to the target at all times (a name, a "
            "proxy, a forwarder). The bridge tries again.",
        )


def check_another_server(source: ProvingServer, target: ProvingServer, instance_id: str) -> None:
    """Make sure that it was not the source that has just named an instance as the target.

    Asked with the target's client that was told so: its connection leads to the same server. The
    same as check_another_file, for whoever read a list. Raises SideError.
    """
    with suppress(InstanceError):  # it was deleted since
        check_another_file(source, target, instance_id)


def _notes(server: ProvingServer) -> set[str]:
    """Return the names of bridges that follow a server; none where it does not tell.

    Raises SideError.
    """
    try:
        return {name for name in server.peers() if name.startswith(FOLLOWS)}
    except SideError as exc:
        if not _hides(exc):
            raise
        return set()


def _named(server: ProvingServer, instance_id: str) -> str:
    """Return the name of an instance's file; "" where it is not told. Raises as above."""
    try:
        return server.stored_file(instance_id).uuid
    except InstanceError as exc:
        if exc.reason is Reason.PROOF_MISMATCH:
            raise
        return ""
    except SideError as exc:
        if not _hides(exc):
            raise
        return ""


class AlreadyAtTarget(Exception):
    """The target holds exactly the source's file: an instance came back from there."""


def is_at_target(target: ProvingServer, instance_id: str, payload: Payload) -> bool:
    """Tell whether the target holds the bytes that are to be sent. Raises SideError.

    Asked only for what was delivered before. A target that does not tell, or lacks it, is sent it.
    """
    try:
        stored = stored_md5(target, instance_id, may_hide=True)
    except InstanceError:
        return False
    return bool(stored) and stored == md5_of(payload)


def md5_of(payload: Payload) -> str:
    """Return the MD5 of what was sent."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in payload.chunks():
        digest.update(chunk)
    return digest.hexdigest()


def check_answer(answer: StoreAnswer, instance_id: str) -> None:
    """Hold the target to its answer (G8). Raises InstanceError."""
    if answer.status == "FilteredOut":
        raise InstanceError(
            Reason.FILTERED_OUT,
            "A filter at the target (a Lua script or a plugin) refused it.",
        )
    if answer.status not in ("Success", ALREADY_STORED):
        raise InstanceError(
            Reason.REJECTED_BY_TARGET,
            f"The target answered Status {answer.status!r} instead of Success or AlreadyStored.",
            final=False,
        )
    if answer.instance_id != instance_id:
        raise InstanceError(
            Reason.IDENTITY_CHANGED,
            f"The target stored it under another ID, {answer.instance_id}: something there "
            "changes identifiers (an anonymising script or plugin), or its DefaultEncoding "
            "differs from the source's.",
        )


def check_source_file(data: memoryview, instance_id: str) -> None:
    """Tell a source that gave another instance's file from a target that changes identifiers.

    Called when the target has another identifier than was expected. Raises InstanceError.
    """
    found = orthanc_id_of(data)
    if found and found != instance_id:
        raise InstanceError(
            Reason.IDENTITY_CHANGED,
            f"The source sent the file of another instance, {found}: its storage, or something in "
            "front of it, mixes up files. The target has stored that file under the ID that it "
            "belongs to.",
            final=False,
        )


class FileSource(Protocol):
    """What is needed of the source to tell whether a file came as the source holds it."""

    def check_fetched(
        self,
        instance_id: str,
        *,
        size_bytes: int,
        md5: Callable[[], str],
        whose: Callable[[], str],
    ) -> None:
        """Compare a file with what the server notes. Raises SideError, InstanceGone."""


def check_fetched(source: FileSource, instance_id: str, body: Buffer) -> None:
    """Blame the source for a file that did not come as the source holds it.

    Asked only where there is a doubt: the file does not decode, the target refuses it or holds
    another. Nothing is known of a source that does not tell. Raises SideError of the source,
    InstanceGone.
    """
    source.check_fetched(
        instance_id,
        size_bytes=len(body),
        md5=lambda: hashlib.md5(body, usedforsecurity=False).hexdigest(),
        whose=lambda: orthanc_id_of(memoryview(body)),
    )


def check_stored(stored: str, sent: str, status: str) -> None:
    """Compare the MD5 of what the target holds with that of what was sent. Raises InstanceError."""
    if stored == sent:
        return
    seen = (
        "already had another file under this ID, and kept it"
        if status == ALREADY_STORED
        else "holds other bytes than were sent"
    )
    raise InstanceError(Reason.PROOF_MISMATCH, f"The target {seen}: MD5 {stored}, sent {sent}.")

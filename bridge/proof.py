"""Proof of arrival (G8): what the target says of an instance, held against what was sent."""

from __future__ import annotations

import hashlib

from bridge.core.errors import InstanceError, SideError
from bridge.core.model import Reason, SideProblem, StoreAnswer
from bridge.orthanc import OrthancClient
from bridge.parcels import Parcel

ALREADY_STORED = "AlreadyStored"
HIDDEN = (SideProblem.FORBIDDEN, SideProblem.LOGIN_REFUSED)
"""Answers of a target that lets us store and not look."""


def stored_md5(target: OrthancClient, instance_id: str, *, may_hide: bool) -> str:
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


def md5_of(parcel: Parcel) -> str:
    """Return the MD5 of what was sent."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in parcel.chunks():
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
            f"The target stored it under the ID {answer.instance_id}: something there changes "
            "identifiers (an anonymising script or plugin), or it reads them in another "
            "DefaultEncoding than the source.",
        )


def check_stored(stored: str, sent: str, status: str) -> None:
    """Compare the MD5 of what the target holds with that of what was sent. Raises InstanceError."""
    if stored == sent:
        return
    seen = (
        "had another file under this ID before, and kept it"
        if status == ALREADY_STORED
        else "holds other bytes than were sent"
    )
    raise InstanceError(Reason.PROOF_MISMATCH, f"The target {seen}: MD5 {stored}, sent {sent}.")

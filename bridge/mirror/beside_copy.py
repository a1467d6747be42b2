"""What users have put beside a copy that is about to be replaced: read before, put back after.

Orthanc deletes labels, metadata and attachments with what they belong to: those of an instance with
the instance, and those of its series, study and patient with the last instance of them. A repair
deletes and sends, so they would be lost with a copy that is the only one. Therefore:

1. What would vanish is read before the deletion, and written to a file beside the state file, whole
   and on the disk, with a sum. Where it cannot be read, or is too large, nothing is deleted.
2. Once the new copy is proved, what the target lacks of it is put back: what somebody has written
   meanwhile stays. What the bridge itself has copied there since (BRIDGE_CARRY) gives way to what
   was somebody else's; and what was its own comes back only while that is the newest. Then the
   file goes. A process that is killed is followed by one that does it
   again, also where the note of the repair is lost: the file has the name of the instance.
3. What the target refuses stays in the file, under another name, and is told.

What Orthanc itself keeps there (when an instance arrived, from where) belongs to the copy that
goes; nobody may write it. Marks and signs of bridges are about that copy, too.

The values may be about patients: no message, event or log has any. The file has mode 0600.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from bridge.errors import InstanceError, SideError
from bridge.ledger.lock import explained
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.marks import MARK
from bridge.mirror.beside_files import (
    attachment_key,
    digest_of,
    digest_of_attachment,
    metadata_key,
)
from bridge.mirror.sign_decision import SIGN
from bridge.model import ResourceKind, ServerInfo, SideProblem
from bridge.orthanc import Need, lacks_right
from bridge.orthanc.answers import INSTANCE_ID, Resource
from bridge.orthanc.carry_client import Attachment, Value
from bridge.own_files import open_own, open_to_read
from bridge.worker.prepare import PART, sync_directory

KEPT_SUFFIX = ".repair.beside."
"""Of the file, after the name of the state file; the instance's identifier comes after it."""
KEPT_BYTES_MAX = 32 * 1024 * 1024
"""So much is kept of one copy, in memory and on the disk. A copy that has more is not replaced."""
FIRST_LINE = b"orthanc-bridge beside 1\n"
USERS_FROM = 1024
"""Numbers of metadata and attachments from here on are a user's or a plugin's."""
OWN_METADATA = frozenset(
    {
        "IndexInSeries",
        "ReceptionDate",
        "RemoteAET",
        "ExpectedNumberOfInstances",
        "ModifiedFrom",
        "AnonymizedFrom",
        "LastUpdate",
        "Origin",
        "TransferSyntax",
        "SopClassUid",
        "RemoteIP",
        "CalledAET",
        "HttpUsername",
        "HttpHost",
        "PixelDataOffset",
        "MainDicomTagsSignature",
        "MainDicomSequences",
        "PixelDataVR",
    }
)
"""What Orthanc itself keeps, by name. Before 1.12 it does not tell which names are a user's."""
IS_SPOILT = "its bytes are not those that were written"
OWN_ATTACHMENTS = frozenset({"dicom", "dicom-as-json", "dicom-until-pixel-data"})


class What(StrEnum):
    """What something beside a copy is."""

    LABEL = "label"
    METADATA = "metadata"
    ATTACHMENT = "attachment"
    PROTECTED = "protected"
    """The patient is protected from recycling."""


Key = tuple[ResourceKind, str, What, str]
"""Of which resource it is, what it is, and its name."""


class BesideTarget(Protocol):
    """What is needed of the target. All raise SideError, InstanceError."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def vanishing(self, instance_id: str) -> list[Resource]:
        """Tell what would be deleted with an instance: itself, and what has no other one."""

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        """Tell labels and metadata of resources."""

    def metadata_of(self, kind: ResourceKind, resource_id: str, name: str) -> Value | None:
        """Return a metadata as it is stored."""

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write a metadata."""

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        """Add a label."""

    def attachment_names(self, kind: ResourceKind, resource_id: str) -> list[str]:
        """List the attachments of a resource."""

    def attachment(self, kind: ResourceKind, resource_id: str, name: str) -> Attachment | None:
        """Describe an attachment."""

    def attachment_data(
        self, kind: ResourceKind, resource_id: str, name: str, *, bytes_max: int
    ) -> bytes:
        """Return the content of an attachment."""

    def put_attachment(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write an attachment."""

    def is_protected(self, patient_id: str) -> bool:
        """Tell whether a patient is protected from recycling."""

    def protect_patient(self, patient_id: str) -> None:
        """Protect a patient from recycling."""


class CannotKeep(Exception):
    """What is beside a copy would be lost with it. ``message``: without anything of a user's."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class KeptValue:
    """One value. ``is_ours``: the bridge has copied it there (BRIDGE_CARRY)."""

    data: bytes = field(default=b"", repr=False)
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Beside:
    """What users have put beside one copy."""

    instance_id: str
    values: dict[Key, KeptValue] = field(default_factory=dict, repr=False)


class BesideKeeper:
    """Keeps what users have put beside copies. For one thread."""

    def __init__(self, target: BesideTarget) -> None:
        self._target = target

    def check(self, ledger: Ledger, instance_id: str) -> None:
        """Make sure that all of it could be kept. Raises CannotKeep, SideError for an outage."""
        self._look(ledger, instance_id, with_data=False)

    def keep(self, ledger: Ledger, instance_id: str, *, adds: bool) -> None:
        """Read what would vanish with a copy, and bring it to the disk.

        ``adds``: to what is kept of it already: the copy is one that a repair has sent, and what
        was beside the one before is not put back yet. Raises CannotKeep, StateError, SideError.
        """
        found, path = (
            self._look(ledger, instance_id, with_data=True),
            kept_path(ledger, instance_id),
        )
        with explained(ledger.path):
            if adds and os.path.lexists(path):
                before = self._read(path)
                if before is None:
                    _put_aside(path, instance_id, [IS_SPOILT])
                else:
                    found = Beside(instance_id, before.values | found.values)
            if found.values:
                _write(path, found)
            else:
                self.discard(ledger, instance_id)

    def discard(self, ledger: Ledger, instance_id: str) -> None:
        """Forget it: the copy is there as it was."""
        with explained(ledger.path):
            path = kept_path(ledger, instance_id)
            if os.path.lexists(path):
                path.unlink()
                sync_directory(path.parent)

    def put_back(self, ledger: Ledger, instance_id: str) -> None:
        """Put back what the target lacks of it, and forget it. Raises SideError for an outage.

        What the target refuses stays in the file, under another name.
        """
        path = kept_path(ledger, instance_id)
        with explained(ledger.path):
            if not os.path.lexists(path):
                return
            kept = self._read(path)
        refused = [IS_SPOILT] if kept is None else self._put(ledger, kept)
        if refused:
            with explained(ledger.path):
                _put_aside(path, instance_id, refused)
        self.discard(ledger, instance_id)

    def put_back_left(self, ledger: Ledger) -> None:
        """Put back what a process has left whose note of the repair is lost. Raises SideError."""
        _remove_parts(ledger)
        for instance_id in kept_instances(ledger):
            if self._target.resources([instance_id]):
                self.put_back(ledger, instance_id)

    # Reading

    def _look(self, ledger: Ledger, instance_id: str, *, with_data: bool) -> Beside:
        try:
            found = dict(self._found(instance_id, with_data=with_data))
        except InstanceError as exc:
            raise CannotKeep(_cannot(exc.message)) from exc
        except SideError as exc:
            if not lacks_right(exc, Need.WRITE):
                raise
            raise CannotKeep(_cannot(f"the target refuses to tell it ({exc.problem})")) from exc
        kept = {key: KeptValue(data, _is_ours(ledger, key, data)) for key, data in found.items()}
        return Beside(instance_id, kept)

    def _found(self, instance_id: str, *, with_data: bool) -> Iterator[tuple[Key, bytes]]:
        users = None
        left = KEPT_BYTES_MAX
        for here in self._target.vanishing(instance_id):
            kind, resource_id = here.kind, here.resource_id
            for label in here.labels or ():
                yield (kind, resource_id, What.LABEL, label), b""
            for name in here.metadata:
                if name in OWN_METADATA:
                    continue
                users = self._target.system().user_metadata if users is None else users
                if not _is_users(name, users):
                    continue
                value = self._target.metadata_of(kind, resource_id, name)
                if value is None or _is_bridges(value.data):
                    continue
                left = _after(left, len(value.data))
                yield (kind, resource_id, What.METADATA, name), value.data
            for name in self._target.attachment_names(kind, resource_id):
                if name in OWN_ATTACHMENTS or (name.isdigit() and int(name) < USERS_FROM):
                    continue
                told = self._target.attachment(kind, resource_id, name)
                if told is None:
                    continue
                left = _after(left, told.size_bytes)
                data = b""
                if with_data:
                    data = self._target.attachment_data(
                        kind, resource_id, name, bytes_max=told.size_bytes
                    )
                    if told.md5 and _md5(data) != told.md5:
                        raise CannotKeep(_cannot("an attachment is damaged at the target"))
                yield (kind, resource_id, What.ATTACHMENT, name), data
            if kind is ResourceKind.PATIENT and self._target.is_protected(resource_id):
                yield (kind, resource_id, What.PROTECTED, ""), b""

    # Putting back

    def _put(self, ledger: Ledger, kept: Beside) -> list[str]:
        """Put back what the target lacks; returns why some of it could not be. Raises SideError."""
        refused = []
        named = sorted({(kind, resource_id) for kind, resource_id, _, _ in kept.values})
        there = {one.resource_id: one for one in self._target.resources([i for _, i in named])}
        for key, value in kept.values.items():
            held = there.get(key[1])
            if held is None:
                refused.append("the target does not hold what it belongs to")
                continue
            try:
                self._put_one(ledger, key, value, held)
            except InstanceError as exc:
                refused.append(exc.message)
            except CannotKeep as exc:
                refused.append(exc.message)
            except SideError as exc:
                if not (lacks_right(exc, Need.WRITE) or exc.problem is SideProblem.BODY_LIMIT):
                    raise
                if not self._is_orthancs(key, exc):
                    refused.append(f"the target refuses it ({exc.problem})")
        return refused

    def _is_orthancs(self, key: Key, error: SideError) -> bool:
        """Tell whether nobody may write it: a metadata of Orthanc's that we do not know by name."""
        _, _, what, name = key
        return (
            what is What.METADATA
            and error.problem is SideProblem.FORBIDDEN
            and not name.isdigit()
            and name not in self._target.system().user_metadata
        )

    def _put_one(self, ledger: Ledger, key: Key, value: KeptValue, held: Resource) -> None:
        kind, resource_id, what, name = key
        data = value.data
        match what:
            case What.LABEL:
                if name not in (held.labels or ()):
                    self._target.put_label(kind, resource_id, name)
            case What.METADATA:
                now = self._target.metadata_of(kind, resource_id, name)
                told = None if now is None else digest_of(now.data)
                if _is_to_be_put(ledger, key, value, told):
                    etag = "" if now is None else now.etag
                    self._target.put_metadata(kind, resource_id, name, data, etag=etag)
            case What.ATTACHMENT:
                there = self._target.attachment(kind, resource_id, name)
                told = None if there is None else digest_of_attachment(there.md5)
                if _is_to_be_put(ledger, key, value, told):
                    etag = "" if there is None else there.etag
                    self._target.put_attachment(kind, resource_id, name, data, etag=etag)
                    # 1.10 answers 200 for a study that is not there.
                    stored = self._target.attachment(kind, resource_id, name)
                    if stored is None or stored.md5 not in ("", _md5(data)):
                        raise CannotKeep("the target accepted it but does not hold it")
            case What.PROTECTED:
                if not self._target.is_protected(resource_id):
                    self._target.protect_patient(resource_id)

    @staticmethod
    def _read(path: Path) -> Beside | None:
        """Read a file; None where there is none, or its bytes are not those that were written."""
        try:
            with os.fdopen(open_to_read(path), "rb") as file:
                return _parsed(file.read())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, LookupError):
            return None


def kept_path(ledger: Ledger, instance_id: str) -> Path:
    """Return where what is beside an instance is kept: beside the state file, on one disk."""
    return ledger.path.with_name(f"{ledger.path.name}{KEPT_SUFFIX}{instance_id}")


def kept_instances(ledger: Ledger) -> list[str]:
    """List the instances of which something is kept. Raises StateError."""
    return sorted(name for name in _endings(ledger) if INSTANCE_ID.fullmatch(name))


def _endings(ledger: Ledger) -> list[str]:
    """Return the ends of the names of all such files."""
    begin = ledger.path.name + KEPT_SUFFIX
    with explained(ledger.path):
        names = [path.name for path in ledger.path.parent.iterdir()]
    return [name.removeprefix(begin) for name in names if name.startswith(begin)]


def _remove_parts(ledger: Ledger) -> None:
    """Remove what a process was killed at writing: nothing was deleted after it."""
    for name in _endings(ledger):
        if name.endswith(PART):
            with explained(ledger.path):
                kept_path(ledger, name).unlink(missing_ok=True)


def is_anything_kept(ledger: Ledger) -> bool:
    """Tell whether something is to be put back. Raises StateError."""
    return bool(kept_instances(ledger))


def _digest(what: What, data: bytes) -> str:
    """Return what a value is known again by, as carry.py notes it."""
    return digest_of_attachment(_md5(data)) if what is What.ATTACHMENT else digest_of(data)


def _ours(ledger: Ledger, key: Key) -> tuple[str, ...]:
    """Return the digests of what the bridge has copied there, or was about to."""
    _, resource_id, what, name = key
    if what is What.METADATA:
        return ledger.carried(resource_id, metadata_key(name))
    if what is What.ATTACHMENT:
        return ledger.carried(resource_id, attachment_key(name))
    return ()


def _is_ours(ledger: Ledger, key: Key, data: bytes) -> bool:
    return _digest(key[2], data) in _ours(ledger, key)


def _is_to_be_put(ledger: Ledger, key: Key, value: KeptValue, now: str | None) -> bool:
    """Decide about a metadata or an attachment. ``now``: the digest of what is there."""
    ours = _ours(ledger, key)
    if now is None:
        return not value.is_ours or _digest(key[2], value.data) in ours
    return not value.is_ours and now in ours and now != _digest(key[2], value.data)


def _is_users(name: str, users: Collection[str]) -> bool:
    if name.isdigit():
        return int(name) >= USERS_FROM
    # A server that names none may be one that does not tell them.
    return name in users or not users


def _is_bridges(data: bytes) -> bool:
    """Tell whether a bridge has written it, about the copy or the server."""
    text = data.decode("utf-8", "replace")
    return bool(MARK.fullmatch(text) or SIGN.fullmatch(text))


def _after(left: int, size_bytes: int) -> int:
    if size_bytes > left:
        raise CannotKeep(_cannot(f"it is more than {KEPT_BYTES_MAX // (1024 * 1024)} MB"))
    return left - size_bytes


def _cannot(why: str) -> str:
    return (
        "It was not replaced, because what users have put beside it at the target (metadata, "
        f"labels, attachments) would be lost: {why.rstrip('.')}."
    )


def _write(path: Path, kept: Beside) -> None:
    """Write a file: whole under its name, or not at all. Raises OSError."""
    digest = hashlib.sha256()
    part = path.with_name(path.name + PART)
    with os.fdopen(open_own(part, os.O_RDWR | os.O_TRUNC), "r+b") as file:
        for piece in _pieces(kept):
            file.write(piece)
            digest.update(piece)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    sync_directory(path.parent)


def _pieces(kept: Beside) -> Iterator[bytes]:
    """Write it in lines of JSON, each followed by the bytes that it tells of."""
    yield FIRST_LINE
    yield _line({"instance": kept.instance_id, "values": len(kept.values)})
    for (kind, resource_id, what, name), value in kept.values.items():
        told = {"kind": kind, "resource": resource_id, "what": what, "name": name}
        yield _line(told | {"is_ours": value.is_ours, "bytes": len(value.data)})
        yield value.data


def _line(told: Mapping[str, object]) -> bytes:
    return json.dumps(told).encode("ascii") + b"\n"


def _parsed(data: bytes) -> Beside:
    """Read what ``_write`` has written. Raises ValueError, TypeError, LookupError."""
    size = hashlib.sha256().digest_size
    whole, noted = data[:-size], data[-size:]
    if hashlib.sha256(whole).digest() != noted or not whole.startswith(FIRST_LINE):
        raise ValueError("other bytes than were written")
    file = io.BytesIO(whole[len(FIRST_LINE) :])
    head: dict[str, Any] = json.loads(file.readline())
    values: dict[Key, KeptValue] = {}
    for _ in range(head["values"]):
        told: dict[str, Any] = json.loads(file.readline())
        key = (
            ResourceKind(told["kind"]),
            str(told["resource"]),
            What(told["what"]),
            str(told["name"]),
        )
        values[key] = KeptValue(file.read(told["bytes"]), bool(told["is_ours"]))
    return Beside(str(head["instance"]), values)


def _put_aside(path: Path, instance_id: str, refused: Sequence[str]) -> None:
    aside = path.with_name(f"{path.name}.{_md5_of(path)}")
    path.rename(aside)
    sync_directory(path.parent)
    text = (
        f"The bridge keeps the file {aside}: it has what users had put beside instance "
        f"{instance_id} at the target, and {len(refused)} of that could not be put back: "
        f"{refused[0].rstrip('.')}. Put it back by hand, then delete the file."
    )
    log(logging.CRITICAL, "repair_put_aside", text)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5_of(path: Path) -> str:
    with os.fdopen(open_to_read(path), "rb") as file:
        return _md5(file.read())

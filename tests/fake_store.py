"""What an Orthanc remembers: instances, their parents, and the feed of changes.

The semantics are those measured on a real server; tests/contract keeps both equal.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import struct
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import uuid4

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from tests.dicom_samples import identity_of, orthanc_id


class FeedRow(NamedTuple):
    """One row of /changes."""

    seq: int
    change_type: str
    resource_id: str
    date: str = "20200101T120000"

    def json(self) -> dict[str, object]:
        level = self.change_type.removeprefix("New").removeprefix("Stable")
        level = level if level in {"Patient", "Study", "Series", "Instance"} else "Instance"
        folder = {"Patient": "patients", "Study": "studies", "Series": "series"}.get(
            level, "instances"
        )
        return {
            "ChangeType": self.change_type,
            "Date": self.date,
            "ID": self.resource_id,
            "Path": f"/{folder}/{self.resource_id}",
            "ResourceType": level,
            "Seq": self.seq,
        }


@dataclass(slots=True)
class StoredInstance:
    data: bytes
    parents: tuple[str, str, str]  # series, study, patient
    metadata: dict[str, str]
    uuid: str = field(default_factory=lambda: str(uuid4()))
    """The name of its file in the storage area."""

    @property
    def md5(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


PARSE_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises for files that are none; Orthanc calls all of it a bad file."""


class BadFile(Exception):
    """The upload is not a DICOM file, or not a whole one."""


class FakeStore:
    """Instances and feed of one fake server. Safe for its server's threads."""

    def __init__(self, *, overwrite: bool = False) -> None:
        self.overwrite = overwrite
        self.instances: dict[str, StoredInstance] = {}
        self.peers: dict[str, str] = {}
        self.protected: set[str] = set()
        self.rows: Sequence[FeedRow] = []
        self.unstable: set[str] = set()
        """Studies to which more may come, by their Orthanc IDs."""
        self.counter = 0
        self.lock = threading.RLock()

    def put(self, data: bytes, *, instance_id: str | None = None) -> tuple[str, str]:
        """Store a file; returns its Orthanc ID and Success or AlreadyStored."""
        parsed = _parse(data)
        with self.lock:
            new_id = instance_id or parsed.orthanc_id
            if new_id in self.instances:
                if not self.overwrite:
                    return new_id, "AlreadyStored"
                self.delete(new_id)
            known = {parent for i in self.instances.values() for parent in i.parents}
            self.instances[new_id] = StoredInstance(data, parsed.parents, parsed.metadata)
            self.add_change("NewInstance", new_id)
            names = ("NewSeries", "NewStudy", "NewPatient")
            for name, parent in zip(names, parsed.parents, strict=True):
                if parent not in known:
                    self.add_change(name, parent)
            return new_id, "Success"

    def delete(self, instance_id: str) -> bool:
        """Delete an instance, the parents that it leaves empty, and the rows of all of them."""
        with self.lock:
            gone = self.instances.pop(instance_id, None)
            if gone is None:
                return False
            left = {parent for i in self.instances.values() for parent in i.parents}
            dead = {instance_id} | (set(gone.parents) - left)
            self.rows = [row for row in self.rows if row.resource_id not in dead]
            return True

    def add_change(self, change_type: str, resource_id: str) -> int:
        """Append a row to the feed; returns its sequence."""
        with self.lock:
            self.counter += 1
            date = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
            row = FeedRow(self.counter, change_type, resource_id, date)
            self.rows = [*self.rows, row] if not isinstance(self.rows, list) else self.rows
            self.rows.append(row)
            return self.counter

    def script_feed(self, rows: Sequence[FeedRow], *, counter: int | None = None) -> None:
        """Replace the feed by given rows, ascending; any sequence type, also a lazy one."""
        with self.lock:
            self.rows = rows
            self.counter = counter if counter is not None else (rows[-1].seq if rows else 0)

    def clear_changes(self) -> None:
        """Empty the feed as DELETE /changes does: the counter goes on."""
        with self.lock:
            self.rows = []

    def reset(self) -> None:
        """Become a new server: no instances, no feed, counter at 0."""
        with self.lock:
            self.instances.clear()
            self.rows = []
            self.counter = 0

    def listing(self) -> list[str]:
        """Every instance, in the order of arrival."""
        with self.lock:
            return list(self.instances)

    def last(self) -> tuple[FeedRow | None, int]:
        """Return the newest row that is left, and the ``Last`` that goes with it."""
        with self.lock:
            row = self.rows[-1] if self.rows else None
            return row, row.seq if row else self.counter

    def page(
        self, since: int, limit: int, *, to: int | None = None, types: frozenset[str] | None = None
    ) -> tuple[list[FeedRow], bool, int]:
        """Return rows above ``since``, whether they are the last, and the answer's ``Last``."""
        with self.lock:
            start = bisect_right(self.rows, since, key=lambda row: row.seq)
            picked: list[FeedRow] = []
            done = True
            for index in range(start, len(self.rows)):
                row = self.rows[index]
                if to is not None and row.seq > to:
                    break
                if types is not None and row.change_type not in types:
                    continue
                if len(picked) == limit:
                    done = False
                    break
                picked.append(row)
            return picked, done, picked[-1].seq if picked else self.counter


def identified(uid: str, instance_id: str, stored: StoredInstance) -> set[tuple[str, str]]:
    """What of an instance and its parents a DICOM identifier names: level and Orthanc ID."""
    identity = identity_of(stored.data)
    series, study, patient = stored.parents
    named = {
        ("Instance", instance_id): identity.sop_uid,
        ("Series", series): identity.series_uid,
        ("Study", study): identity.study_uid,
        ("Patient", patient): identity.patient_id,
    }
    return {resource for resource, known_as in named.items() if known_as == uid}


class _Parsed(NamedTuple):
    orthanc_id: str
    parents: tuple[str, str, str]
    metadata: dict[str, str]


def _parse(data: bytes) -> _Parsed:
    try:
        dataset = dcmread(io.BytesIO(data))
        identifiers = (
            str(dataset.get("PatientID", "")).rstrip(),
            str(dataset.StudyInstanceUID),
            str(dataset.SeriesInstanceUID),
            str(dataset.SOPInstanceUID),
        )
        pixels = dataset.get("PixelData")
        syntax = dataset.file_meta.TransferSyntaxUID
        if pixels is not None and not syntax.is_compressed:
            expected = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel
            expected *= dataset.BitsAllocated // 8 * int(dataset.get("NumberOfFrames", 1) or 1)
            if len(pixels) < expected:
                raise ValueError("the pixels are cut off")
    except PARSE_ERRORS as exc:
        raise BadFile from exc
    metadata = {
        "IndexInSeries": str(dataset.get("InstanceNumber", "")),
        "Origin": "RestApi",
        "ReceptionDate": datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S"),
        "RemoteAET": "",
        "RemoteIP": "127.0.0.1",
        "SopClassUid": str(dataset.get("SOPClassUID", "")),
        "TransferSyntax": str(syntax),
    }
    offset = data.rfind(b"\xe0\x7f\x10\x00")
    if offset >= 0:
        metadata["PixelDataOffset"] = str(offset)
    return _Parsed(
        orthanc_id(*identifiers),
        (orthanc_id(*identifiers[:3]), orthanc_id(*identifiers[:2]), orthanc_id(identifiers[0])),
        metadata,
    )

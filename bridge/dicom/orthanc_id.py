"""Which instance a file is, and of which study: the identifiers that Orthanc computes from it.

This file must not know: sockets, files, clocks, logging, settings.

Orthanc's identifier of an instance is the SHA-1 of PatientID, StudyInstanceUID, SeriesInstanceUID
and SOPInstanceUID, joined by "|", without the blanks and zeros at their ends. That of a study is
the SHA-1 of the first two.
"""

from __future__ import annotations

import hashlib
import zlib

from bridge.dicom.elements import UNDEFINED, Reader
from bridge.dicom.facts import HEAD_BYTES
from bridge.dicom.file_meta import read_file_meta, uid_or_empty
from bridge.dicom.inflate import inflated_head
from bridge.dicom.syntaxes import SYNTAXES
from bridge.errors import InstanceError
from bridge.model import Study

SOP_INSTANCE, PATIENT, STUDY, SERIES = 0x00080018, 0x00100020, 0x0020000D, 0x0020000E
VALUE_BYTES_MAX = 1024
PADDING = b"\0 "


def orthanc_id_of(data: memoryview) -> str:
    """Return the identifier of a DICOM file, or "" where it cannot be known for certain.

    An identifier beyond ASCII is not certain: it depends on the encoding that a server takes for
    the default.
    """
    try:
        values = _values(data, len(data))
    except InstanceError:
        return ""
    return _digest(values, (PATIENT, STUDY, SERIES, SOP_INSTANCE))


def study_of_file(data: memoryview) -> Study | None:
    """Return the study of a DICOM file; None where its head does not tell it for certain.

    What is no UID may be a name, and is left out: such a study has its identifier only.
    """
    try:
        values = _values(data, HEAD_BYTES)
    except InstanceError:
        return None
    uid = uid_or_empty(values.get(STUDY, b"").strip(PADDING).decode("ascii", "replace"))
    known = _digest(values, (PATIENT, STUDY))
    return Study(uid, known) if uid or values.get(STUDY, b"").strip(PADDING) else None


def _digest(values: dict[int, bytes], tags: tuple[int, ...]) -> str:
    """Return the identifier that the values of those elements make, or ""."""
    raw = [values.get(tag, b"").strip(PADDING) for tag in tags]
    if not all(raw[1:]) or not all(value.isascii() for value in raw):
        return ""
    digest = hashlib.sha1(b"|".join(raw), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def _values(data: memoryview, bytes_max: int) -> dict[int, bytes]:
    """Read the values; ``bytes_max``: of so much of the data set."""
    meta = read_file_meta(data)
    syntax = SYNTAXES.get(meta.syntax)
    dataset = data[meta.dataset_offset :]
    if syntax is not None and syntax.deflated:
        try:
            dataset, _ = inflated_head(dataset, HEAD_BYTES)
        except zlib.error:
            return {}
    dataset = dataset[:bytes_max]
    reader = Reader(
        dataset,
        implicit=syntax is not None and syntax.implicit,
        big_endian=syntax is not None and syntax.big_endian,
    )
    found: dict[int, bytes] = {}
    pos = 0
    while len(dataset) - pos >= 8:
        tag, vr, value, length = reader.header(pos, len(dataset))
        if tag > SERIES:
            break
        if length == UNDEFINED:
            _, pos = reader.skip_undefined(tag, vr, value, len(dataset), 1)
            continue
        if tag in (SOP_INSTANCE, PATIENT, STUDY, SERIES):
            if length > VALUE_BYTES_MAX or tag in found:
                return {}
            found[tag] = bytes(dataset[value : value + length])
        pos = value + length
    return found

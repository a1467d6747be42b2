"""Remove what identifies somebody from a DICOM file, and leave its pixel data byte for byte.

This file must not know: sockets, files, clocks, logging, settings.
PS3.15 Annex E, Basic Application Level Confidentiality Profile, and stricter than it: of what the
table does not name, dates, times, names and free text go too, private and unknown elements, and
binary data outside the image. What cannot be walked cannot be cleaned and is refused. Made for
reproducers: the encoding of the file, wrong labels included, stays as it is.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import pack

from bridge.dicom.confidentiality import PROTECTIONS, Protection
from bridge.dicom.elements import (
    ITEM,
    ITEM_END,
    KNOWN_VRS,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Reader,
    damaged,
)
from bridge.dicom.file_meta import FileMeta, read_file_meta, sniff_dataset, write_file_meta
from bridge.dicom.syntaxes import SYNTAXES, Syntax, syntax_of
from bridge.dicom.transcode import Buffer
from bridge.dicom.vrs import TEXT_VRS, implicit_vr
from bridge.errors import InstanceError
from bridge.model import Reason

MODALITY = 0x00080060
BURNED_IN = 0x00280301
METHOD = b"PS3.15 E Basic Profile by orthanc-bridge; pixel data unchanged"
INFLATED_BYTES_MAX = 1 << 30
PIXEL_ELEMENTS = frozenset(0x7FE00000 | number for number in (1, 2, 3, 8, 9, 0x10))
BINARY_GROUPS = frozenset((0x0028, 0x5600, 0x7FE0))
"""Look-up tables, spectra, pixels."""
BINARY_VRS = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV"))
PATIENT_GROUPS = frozenset((0x0004, 0x0010, 0x0012, 0x0032, 0x0038, 0x4008))
"""File names, patient, trial, request, visit and result: nothing in them is needed to decode."""
FREE_VRS = frozenset(b"PN LO SH LT ST UT UC UR AE AS DA DT TM".split())
TEXT_KEPT = frozenset(
    (
        0x00080070,  # Manufacturer
        0x00081090,  # Manufacturer's Model Name
        0x00181020,  # Software Versions
    )
)
"""Free text that a bug report needs and that names no person."""
DUMMIES = {b"DA": b"19000101", b"TM": b"000000", b"DT": b"19000101000000", b"AS": b"000Y"}
ADDED = (
    (0x00120062, b"CS", b"YES"),  # Patient Identity Removed
    (0x00120063, b"LO", METHOD),  # De-identification Method
)
STANDARD_ROOT = b"1.2.840.10008."
"""UIDs of the standard: classes, syntaxes, codes. They name no instance."""
CLASS_UIDS = frozenset((0x00080016, 0x0008001A, 0x0008001B, 0x00081150, 0x00080062))

_UID = re.compile(rb"[0-9.]{1,64}")


@dataclass
class Cleaned:
    """A file without identifying elements. ``data`` is the file; tags name what was changed.

    ``burned_in`` and ``modality``: Burned In Annotation (0028,0301) and Modality (0008,0060).
    """

    data: bytes = b""
    syntax: str = ""
    modality: str = ""
    burned_in: str = ""
    removed: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)


def deidentify(source: Buffer, *, secret: bytes) -> Cleaned:
    """Return the file without what identifies somebody.

    ``secret`` makes the new UIDs: with the same secret the same UID becomes the same new one.
    Raises InstanceError for what is not DICOM, or cannot be walked to its end.
    """
    data = memoryview(source).cast("B")
    meta = read_file_meta(data)
    syntax = syntax_of(meta.syntax)
    dataset = data[meta.dataset_offset :]
    if syntax.deflated and not sniff_dataset(dataset[:16]):
        dataset = _inflated(dataset)
    cleaner = _Cleaner(dataset, _shape(syntax, dataset), secret)
    body = b"".join(cleaner.top())
    if syntax.deflated and dataset.obj is not data.obj:
        body = _deflated(body)
    done = cleaner.done
    done.syntax = meta.syntax
    done.data = _meta(meta, secret) + body
    return done


def _shape(syntax: Syntax, dataset: memoryview) -> Syntax:
    """The encoding that the data set has, where its label lies about it."""
    seen = sniff_dataset(dataset[:16])
    return SYNTAXES[seen] if seen else syntax


def _meta(meta: FileMeta, secret: bytes) -> bytes:
    """File meta information without AE titles, private information and the old UIDs."""
    instance = meta.uid(0x0003).encode()
    return write_file_meta(
        FileMeta(meta.syntax, 0, {}),
        syntax=meta.syntax,
        sop_class_uid=meta.uid(0x0002),
        sop_instance_uid=_new_uid(instance, secret).decode() if instance else "",
    )


def _new_uid(uid: bytes, secret: bytes) -> bytes:
    """Return the UID that takes the place of ``uid`` (PS3.5 B.2: 2.25 and a number)."""
    digest = hashlib.blake2b(uid, key=secret[:64], digest_size=16).digest()
    return b"2.25.%d" % int.from_bytes(digest)


def _inflated(packed: memoryview) -> memoryview:
    engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        plain = engine.decompress(packed, INFLATED_BYTES_MAX)
    except zlib.error as exc:
        raise InstanceError(Reason.UNDECODABLE, "The deflated data set is damaged.") from exc
    if not engine.eof:
        text = f"The deflated data set is cut short, or has more than {INFLATED_BYTES_MAX} bytes."
        raise InstanceError(Reason.UNDECODABLE, text)
    return memoryview(plain)


def _deflated(plain: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = engine.compress(plain) + engine.flush()
    return packed + b"\0" * (len(packed) & 1)


class _Cleaner:
    """Writes a data set again, in its own encoding, without what identifies."""

    def __init__(self, dataset: memoryview, shape: Syntax, secret: bytes) -> None:
        self.done = Cleaned()
        self._data = dataset
        self._secret = secret
        self._implicit = shape.implicit
        self._mark = ">" if shape.big_endian else "<"
        self._reader = Reader(dataset, implicit=shape.implicit, big_endian=shape.big_endian)

    def top(self) -> Iterator[bytes]:
        """Yield the data set. Raises InstanceError."""
        added = [(tag, self._element(tag, vr, value)) for tag, vr, value in ADDED]
        for e in self._top_elements():
            while added and added[0][0] <= e.tag:
                yield added.pop(0)[1]
            if all(e.tag != tag for tag, _, _ in ADDED):
                yield self._clean(e, depth=0)
        yield from (element for _, element in added)

    def _top_elements(self) -> Iterator[Element]:
        """Walk the top level; pixel data that runs past the end is taken to end there."""
        pos, end = 0, len(self._data)
        while pos < end:
            if self._data[pos] == 0 and self._reader.blank(pos, end):
                return  # padding, as everywhere
            tag, vr, value, length = self._reader.header(pos, end)
            if tag >= ITEM:
                damaged(pos, "a sequence delimiter outside a sequence")
            if length == UNDEFINED:
                stop, after = self._reader.skip_undefined(tag, vr, value, end, 1)
            else:
                stop = after = value + length
                if stop > end and tag != PIXEL_DATA:
                    damaged(pos, f"an element of {length} bytes runs past the end")
                stop = after = min(stop, end)
            yield Element(tag, vr, pos, value, stop, after, length == UNDEFINED)
            pos = after

    def _clean(self, e: Element, *, depth: int) -> bytes:  # noqa: PLR0911 (a table of cases)
        """Return what becomes of an element; b"" when it is removed."""
        if not depth and e.tag in PIXEL_ELEMENTS:
            return bytes(self._data[e.start : e.end])
        vr = self._vr(e)
        protection = self._protection(e, vr)
        match protection:
            case None if vr == b"SQ":
                return self._sequence(e, depth)
            case None:
                self._note(e)
                return bytes(self._data[e.start : e.end])
            case Protection.REMOVE:
                self.done.removed.add(e.tag)
                return b""
            case Protection.EMPTY:
                self.done.replaced.add(e.tag)
                return self._element(e.tag, vr, b"")
            case Protection.DUMMY:
                self.done.replaced.add(e.tag)
                return self._element(e.tag, vr, _dummy(vr))
            case Protection.NEW_UID:
                self.done.replaced.add(e.tag)
                return self._element(e.tag, b"UI", self._new_uids(e))

    def _note(self, e: Element) -> None:
        """Remember what tells whether text is to be expected in the picture."""
        name = {MODALITY: "modality", BURNED_IN: "burned_in"}.get(e.tag)
        if name:
            text = bytes(self._data[e.value : e.stop][:16]).strip(b"\0 ")
            setattr(self.done, name, text.decode("ascii", "replace"))

    def _vr(self, e: Element) -> bytes:
        if e.vr in KNOWN_VRS and e.vr != b"UN":
            return e.vr
        if e.undefined:
            # Its content is implicit, in an explicit data set too (PS3.5 6.2.2 note 4), and is
            # removed.
            return b"SQ" if self._implicit else b"UN"
        vr = implicit_vr(e.tag, creator=None, signed=False, lut_entries=None)
        # A sequence that was written as UN is implicit inside as well.
        return b"UN" if vr == b"SQ" and e.vr == b"UN" else vr

    def _protection(  # noqa: PLR0911 (a table of cases)
        self, e: Element, vr: bytes
    ) -> Protection | None:
        """What is to be done; None: nothing, or a sequence is looked into."""
        group, number = e.tag >> 16, e.tag & 0xFFFF
        if (
            group & 1
            or number == 0
            or group < 0x0004
            or group & 0xFF00 in (0x5000, 0x6000)
            or vr == b"UN"
        ):
            return Protection.REMOVE
        listed = PROTECTIONS.get(e.tag)
        if listed is Protection.NEW_UID and vr != b"UI":
            return Protection.REMOVE
        if listed is Protection.DUMMY and vr == b"SQ":
            return Protection.EMPTY
        if listed is not None:
            return listed
        if group in PATIENT_GROUPS or (vr in BINARY_VRS and group not in BINARY_GROUPS):
            return Protection.REMOVE
        if vr in FREE_VRS and e.tag not in TEXT_KEPT:
            return Protection.REMOVE
        if vr == b"UI" and e.tag not in CLASS_UIDS and not self._of_the_standard(e):
            return Protection.NEW_UID
        return None

    def _of_the_standard(self, e: Element) -> bool:
        values = bytes(self._data[e.value : e.stop]).split(b"\\")
        return all(value.startswith(STANDARD_ROOT) for value in values)

    def _new_uids(self, e: Element) -> bytes:
        values = (v.strip(b"\0 ") for v in bytes(self._data[e.value : e.stop]).split(b"\\"))
        return b"\\".join(_new_uid(v, self._secret) for v in values if _UID.fullmatch(v))

    def _sequence(self, e: Element, depth: int) -> bytes:
        inner = b"".join(
            self._item(item.start, item.stop, depth + 1, undefined=item.undefined)
            for item in self._reader.items(e, depth + 1)
        )
        length = UNDEFINED if e.undefined else len(inner)
        end = self._delimiter(SEQUENCE_END) if e.undefined else b""
        return self._header(e.tag, b"SQ", length) + inner + end

    def _item(self, start: int, stop: int, depth: int, *, undefined: bool) -> bytes:
        elements = self._reader.level(start, stop, depth)
        inner = b"".join(self._clean(e, depth=depth) for e in elements)
        length = UNDEFINED if undefined else len(inner)
        head = pack(f"{self._mark}HHI", ITEM >> 16, ITEM & 0xFFFF, length)
        return head + inner + (self._delimiter(ITEM_END) if undefined else b"")

    def _delimiter(self, tag: int) -> bytes:
        return pack(f"{self._mark}HHI", tag >> 16, tag & 0xFFFF, 0)

    def _element(self, tag: int, vr: bytes, value: bytes) -> bytes:
        if len(value) & 1:
            value += b" " if vr in TEXT_VRS else b"\0"
        return self._header(tag, vr, len(value)) + value

    def _header(self, tag: int, vr: bytes, length: int) -> bytes:
        group, number = tag >> 16, tag & 0xFFFF
        if self._implicit:
            return pack(f"{self._mark}HHI", group, number, length)
        if vr in LONG_VRS:
            return pack(f"{self._mark}HH2sHI", group, number, vr, 0, length)
        return pack(f"{self._mark}HH2sH", group, number, vr, length)


def _dummy(vr: bytes) -> bytes:
    """A value that is right for the VR and tells nothing; empty for what is not text."""
    if vr in (b"IS", b"DS"):
        return b"0"
    return DUMMIES.get(vr, b"REMOVED" if vr in TEXT_VRS else b"")

"""The pixel description: group 0028 as it is, and as it must be for the bytes we write.

This file must not know: sockets, files, clocks, logging, settings.
PS3.3 C.7.6.3 (Image Pixel module), PS3.5 section 8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import pack, unpack_from

from bridge.dicom.elements import Element, Reader
from bridge.errors import InstanceError
from bridge.model import Reason

SAMPLES = 0x00280002
PHOTOMETRIC = 0x00280004
PLANAR = 0x00280006
FRAMES = 0x00280008
ROWS = 0x00280010
COLUMNS = 0x00280011
ALLOCATED = 0x00280100
STORED = 0x00280101
HIGH_BIT = 0x00280102
REPRESENTATION = 0x00280103
LOSSY = 0x00282110
LOSSY_RATIO = 0x00282112
LOSSY_METHOD = 0x00282114

_NUMBERS = (SAMPLES, PLANAR, ROWS, COLUMNS, ALLOCATED, STORED, HIGH_BIT, REPRESENTATION)
_OVERLAY_BIT_POSITION, _ANY_OVERLAY = 0x60000102, 0xFF00FFFF
_WANTED = frozenset([*_NUMBERS, PHOTOMETRIC, FRAMES, LOSSY, LOSSY_RATIO, LOSSY_METHOD])
FRAME_BYTES_MAX = 1 << 30
FRAMES_MAX = 5_000_000


@dataclass(frozen=True, slots=True)
class Description:
    """Group 0028 as far as it says how to read the pixels. ``lossy`` is (0028,2110) or "".

    ``spare_bits_used``: the bits above Bits Stored are not just the room of a sign. High Bit puts
    the samples elsewhere, or an overlay lies there (retired, PS3.5 8.1.2).
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int | None
    allocated: int
    stored: int
    signed: bool
    frames: int
    lossy: str
    has_ratio: bool = False
    has_method: bool = False
    spare_bits_used: bool = False

    @property
    def container_bytes(self) -> int:
        """Bytes of one sample in an array: 1 for one-bit data, which is packed when written."""
        return max(1, self.allocated // 8)

    @property
    def frame_samples(self) -> int:
        """Samples in one frame, all components."""
        return self.rows * self.columns * self.samples

    @property
    def frame_array_bytes(self) -> int:
        """Bytes of one decoded frame in memory, one-bit data unpacked."""
        return self.frame_samples * self.container_bytes

    @property
    def native_bytes(self) -> int:
        """Bytes of all frames as native pixel data, colour not subsampled, without padding."""
        if self.allocated == 1:
            return (self.frame_samples * self.frames + 7) // 8
        return self.frame_array_bytes * self.frames


def number_of(reader: Reader, element: Element) -> int | None:
    """Return the first value of a binary number element, whatever integer VR it was given."""
    length = element.stop - element.value
    mark = ">" if reader.big_endian else "<"
    if length >= 4 and element.vr in (b"UL", b"SL"):
        return int(unpack_from(mark + "I", reader.data, element.value)[0])
    if length >= 2 and element.vr not in (b"IS", b"DS"):
        return int(unpack_from(mark + "H", reader.data, element.value)[0])
    return _text_number(reader, element)


def _text_number(reader: Reader, element: Element) -> int | None:
    text = bytes(reader.data[element.value : element.stop][:16]).strip(b"\0 ")
    try:
        return int(text) if text else None
    except ValueError:
        raise _contradiction(
            f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) is no number"
        ) from None


def _contradiction(what: str) -> InstanceError:
    return InstanceError(Reason.UNDECODABLE, f"The pixel description cannot be right: {what}.")


def describe(reader: Reader, elements: Iterable[Element]) -> Description:
    """Read the pixel description of one level. Raises InstanceError when it is unusable."""
    elements = list(elements)
    found = _found_once(reader, elements)
    values = {tag: number_of(reader, found[tag]) for tag in _NUMBERS if tag in found}
    needed = (ROWS, COLUMNS, ALLOCATED, *({SAMPLES} & values.keys()))
    missing = [t for t in needed if not values.get(t)]
    if missing:
        names = ", ".join(f"({t >> 16:04X},{t & 0xFFFF:04X})" for t in missing)
        raise _contradiction(f"{names} missing or zero")
    frames = _text_number(reader, found[FRAMES]) if FRAMES in found else 1
    stored = values.get(STORED) or values[ALLOCATED] or 0
    description = Description(
        rows=values[ROWS] or 0,
        columns=values[COLUMNS] or 0,
        samples=values.get(SAMPLES) or 1,
        photometric=_text(reader, found.get(PHOTOMETRIC)),
        planar=values.get(PLANAR),
        allocated=values[ALLOCATED] or 0,
        stored=stored,
        signed=values.get(REPRESENTATION) == 1,
        frames=1 if frames in (None, 0) else int(frames or 1),
        lossy=_text(reader, found.get(LOSSY)),
        has_ratio=LOSSY_RATIO in found,
        has_method=LOSSY_METHOD in found,
        spare_bits_used=values.get(HIGH_BIT) not in (None, stored - 1)
        or any(
            # An Overlay Bit Position (60xx,0102) other than 0: the overlay lies in the pixels.
            e.tag & _ANY_OVERLAY == _OVERLAY_BIT_POSITION and any(reader.data[e.value : e.stop])
            for e in elements
        ),
    )
    _check(description)
    return description


def _found_once(reader: Reader, elements: Iterable[Element]) -> dict[int, Element]:
    """Return the elements of the description that have a value.

    Of an element that is there twice DCMTK, and so Orthanc, reads the first and pydicom the last:
    with two values the pixels can be read in two ways. Raises InstanceError.
    """
    found: dict[int, Element] = {}
    for e in elements:
        if e.tag not in _WANTED:
            continue
        before = found.setdefault(e.tag, e)
        if reader.data[before.value : before.stop] != reader.data[e.value : e.stop]:
            where = f"({e.tag >> 16:04X},{e.tag & 0xFFFF:04X})"
            raise _contradiction(f"{where} is in the data set twice, with two values")
    return {tag: e for tag, e in found.items() if e.stop > e.value}


def _text(reader: Reader, element: Element | None) -> str:
    if element is None:
        return ""
    raw = bytes(reader.data[element.value : element.stop][:64])
    return raw.strip(b"\0 ").decode("ascii", "replace").upper()


def _check(d: Description) -> None:
    if not 1 <= d.frames <= FRAMES_MAX:
        raise _contradiction(f"{d.frames} frames")
    if d.allocated not in (1, 8, 16, 32, 64):
        raise _contradiction(f"{d.allocated} bits allocated")
    if d.stored > d.allocated:
        raise _contradiction(f"{d.stored} bits stored in {d.allocated} allocated")
    if d.frame_array_bytes > FRAME_BYTES_MAX:
        raise InstanceError(
            Reason.TOO_LARGE, f"One frame would be {d.frame_array_bytes} bytes when decoded."
        )


@dataclass(frozen=True, slots=True)
class NewValue:
    """A new value for one element of group 0028, encoded explicitly as little endian."""

    vr: bytes
    value: bytes


def new_number(value: int) -> NewValue:
    """A US element."""
    return NewValue(b"US", pack("<H", value))


def new_text(value: str) -> NewValue:
    """A CS or DS element, padded to even length."""
    raw = value.encode("ascii")
    return NewValue(b"CS", raw + b" " * (len(raw) & 1))

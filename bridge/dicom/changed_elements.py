"""Which bytes of a file may change: the whole list, and what group 0028 says afterwards.

This file must not know: sockets, files, clocks, logging, settings.
Every element that is not listed here keeps its value: rewrite.py may encode it anew, in another
byte order or with another header, and refuses a change of it. Whether a file is changed at all is
said in decision.py. PS3.3 C.7.6.3.1 (photometric interpretation, planar configuration),
C.7.6.1.1.5 (lossy); PS3.5 8.2 (what goes with which code stream).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.dicom.description import (
    HIGH_BIT,
    LOSSY,
    LOSSY_METHOD,
    LOSSY_RATIO,
    PHOTOMETRIC,
    PLANAR,
    STORED,
    Description,
    NewValue,
    new_number,
    new_text,
)
from bridge.dicom.elements import PIXEL_DATA, TRAILING_PADDING
from bridge.dicom.syntaxes import Family
from bridge.errors import InstanceError
from bridge.model import Reason

if TYPE_CHECKING:
    from bridge.dicom.codecs import Encoder
    from bridge.dicom.frames import CompressedFrames

NewValues = Mapping[int, NewValue | None]
"""New values by tag. None leaves the element out."""

EXTENDED_OFFSETS = 0x7FE00001
EXTENDED_TABLES = (EXTENDED_OFFSETS, 0x7FE00002, 0x7FE00003)
"""Of encapsulated pixel data: where its frames begin, how long each is, how long all of it is."""


@dataclass(frozen=True, slots=True)
class ChangedElement:
    """What may happen to one element, or to one kind of bytes.

    ``tags``: those of the data set that may get another value or be left out because of it; none
    where the bytes are no element's value. ``standard``: the part and section of DICOM.
    """

    what: str
    rule: str
    standard: str
    tags: tuple[int, ...] = ()


WHAT_CHANGES = (
    ChangedElement(
        "Pixel Data",
        "native: OB up to 8 bits allocated, OW above; one frame follows the other, one-bit pixels "
        "are packed without gaps, an odd length is padded",
        "PS3.5 8.1.1, A.2",
        (PIXEL_DATA,),
    ),
    ChangedElement("Photometric Interpretation", "see below", "PS3.3 C.7.6.3.1.2", (PHOTOMETRIC,)),
    ChangedElement(
        "Planar Configuration",
        "0 with several samples a pixel: colour by pixel",
        "PS3.3 C.7.6.3.1.3",
        (PLANAR,),
    ),
    ChangedElement(
        "Bits Allocated, Pixel Representation",
        "never changed; the decoded samples are fitted to them, or the frame is refused",
        "PS3.3 C.7.6.3",
    ),
    ChangedElement(
        "Bits Stored, High Bit",
        "kept; but if unsigned lossy samples exceed Bits Stored: those of the code stream",
        "PS3.5 8.2.1, PS3.3 C.7.6.3",
        (STORED, HIGH_BIT),
    ),
    ChangedElement(
        "Lossy Image Compression",
        "01 stays. If it was missing or 00, and any scan of any frame is lossy (DCT, NEAR or a "
        "point transform above 0, the irreversible wavelet, XYB): 01, with ratio and method",
        "PS3.3 C.7.6.1.1.5",
        (LOSSY, LOSSY_RATIO, LOSSY_METHOD),
    ),
    ChangedElement(
        "Extended Offset Table and its lengths, total length of encapsulated pixel data",
        "removed",
        "PS3.3 C.7.6.3, C.7.6.3.1.8",
        EXTENDED_TABLES,
    ),
    ChangedElement(
        "group lengths, trailing padding (FFFC,FFFC)", "removed", "PS3.5 7.2, PS3.10 7.2"
    ),
    ChangedElement(
        "odd value lengths", "padded: text with a space, the rest with zero", "PS3.5 6.2"
    ),
    ChangedElement(
        "icons in sequences, those in UN of undefined length included",
        "decoded by the same rules, always to native. A damaged icon stays coded if the wanted "
        "syntax allows that (HTJ2K, JPEG-LS). If not, the instance is refused, and the message "
        "says where the icon is",
        "PS3.3 C.7.6.1.1.6, PS3.5 A.4",
    ),
    ChangedElement(
        "file meta information",
        "rewritten: our implementation UID, the data set's UIDs; AE titles and private information "
        "kept; the preamble is zero",
        "PS3.10 7.1",
    ),
    ChangedElement(
        "the preamble of a file that is not transcoded",
        "cleared if it begins like an archive, otherwise kept",
        "PS3.10 7.1",
    ),
    ChangedElement("value representations that do not exist", "UN", "PS3.5 6.2.2"),
)
"""All that may differ between what the source holds and what the target gets.

docs/reference/transfer-syntaxes.md shows this table.
"""

MAY_CHANGE = frozenset(tag for row in WHAT_CHANGES for tag in row.tags)

_METHODS = {
    Family.JPEG_DCT: "ISO_10918_1",
    Family.JPEG_LOSSLESS: "ISO_10918_1",
    Family.JPEG_LS: "ISO_14495_1",
    Family.J2K: "ISO_15444_1",
    Family.HTJ2K: "ISO_15444_15",
    Family.JPEG_XL: "ISO_18181_1",
}


def refuse_unlisted(changes: NewValues) -> None:
    """Raise InstanceError if an element would change that may not: such a file does not leave."""
    unlisted = sorted(changes.keys() - MAY_CHANGE)
    if unlisted:
        tag = unlisted[0]
        raise InstanceError(
            Reason.VERIFICATION_FAILED,
            f"({tag >> 16:04X},{tag & 0xFFFF:04X}) would change, which no change of syntax needs. "
            "This is a bug of the bridge.",
        )


def is_left_out(tag: int) -> bool:
    """Whether an element says nothing: a group length, or the padding behind the last element."""
    return not tag & 0xFFFF or tag == TRAILING_PADDING


def decoded_changes(frames: CompressedFrames, *, top: bool) -> dict[int, NewValue | None]:
    """Return what group 0028 (and the offset tables) must say after decoding.

    Lossy Image Compression is never taken back; where a lossy code stream of any frame came
    without it, it is set, with its ratio and method. ``top``: False inside an icon, which has no
    such elements.
    """
    d = frames.d
    changes: dict[int, NewValue | None] = dict.fromkeys(EXTENDED_TABLES)
    if frames.photometric != d.photometric:
        changes[PHOTOMETRIC] = new_text(frames.photometric)
    if d.samples > 1 and d.planar != 0:
        changes[PLANAR] = new_number(0)
    if top and frames.lossy and d.lossy != "01":
        changes[LOSSY] = new_text("01")
        if not d.has_ratio:
            ratio = new_text(f"{d.native_bytes / max(frames.compressed_bytes, 1):.2f}"[:16])
            changes[LOSSY_RATIO] = NewValue(b"DS", ratio.value)
        if not d.has_method:
            changes[LOSSY_METHOD] = new_text(_METHODS[frames.first.family])
    return changes


def widened_changes(frames: CompressedFrames) -> dict[int, NewValue | None]:
    """Return what Bits Stored and High Bit must say once all frames that are held were decoded.

    What is decoded later must fit in it, for the header has been written.
    """
    frames.header_is_final = True
    if frames.bits_stored == frames.d.stored:
        return {}
    return {
        STORED: new_number(frames.bits_stored),
        HIGH_BIT: new_number(frames.bits_stored - 1),
    }


def encoded_changes(
    d: Description, encoder: Encoder, *, stored: Description | None = None
) -> dict[int, NewValue | None]:
    """Return what group 0028 must say beside losslessly compressed pixels (PS3.5 8.2).

    ``d`` describes the samples that are encoded, ``stored`` the source if that is another.
    """
    changes: dict[int, NewValue | None] = {}
    if stored is not None and stored.photometric != d.photometric:
        changes[PHOTOMETRIC] = new_text(d.photometric)
    if encoder.colour_transform and d.samples == 3 and d.photometric == "RGB":
        changes[PHOTOMETRIC] = new_text("YBR_RCT")
    if d.samples > 1 and d.planar != 0:
        changes[PLANAR] = new_number(0)
    return changes

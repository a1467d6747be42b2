"""What a data set says beside its image, whatever syntax it is in: a sum over its elements.

This file must not know: sockets, files, clocks, logging, settings.

Two files have the same sum when one is the other in another transfer syntax: a server or a plugin
that rewrites a file may change how elements are encoded (PS3.5 section 7), never what they say. So
tags and values count, and not value representations, lengths, padding or the byte order. Left out
is what describes how pixels are coded, what follows from the length of other elements, and icons.
"""

from __future__ import annotations

import hashlib
from struct import pack

from bridge.dicom.changed_elements import is_left_out
from bridge.dicom.elements import PIXEL_DATA, Element, Reader
from bridge.dicom.file_meta import read_file_meta
from bridge.dicom.inflate import inflated_dataset
from bridge.dicom.syntaxes import syntax_of
from bridge.dicom.transcode import Buffer
from bridge.dicom.vrs import WORD_BYTES, swapped

PIXEL_CODING = frozenset(
    0x00280000 | number
    for number in (
        *(0x0002, 0x0004, 0x0006, 0x0008, 0x0010, 0x0011),  # samples, photometric, planar, size
        *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0107),  # bits, sign, smallest and largest
        *(0x2110, 0x2112, 0x2114),  # lossy or not, ratio, method
    )
)
"""PS3.3 C.7.6.3: what belongs to the coding of pixels, which are compared as decoded samples."""
ICON_IMAGE_SEQUENCE = 0x00880200
PIXEL_GROUP = 0x7FE0
BLOCK_BYTES = 1 << 20
PADDING = b"\0 "
SEQUENCE = b"SQ"
ITEM_LITTLE, ITEM_BIG = pack("<HH", 0xFFFE, 0xE000), pack(">HH", 0xFFFE, 0xE000)


def content_sum(source: Buffer) -> str:
    """Sum the data set of a whole DICOM file. Raises InstanceError where it cannot be walked."""
    data = memoryview(source).cast("B")
    meta = read_file_meta(data)
    syntax = syntax_of(meta.syntax)
    start = meta.dataset_offset
    if syntax.deflated:
        data, start = inflated_dataset(data[start:]), 0
    reader = Reader(data, implicit=syntax.implicit, big_endian=syntax.big_endian)
    return _level(reader, reader.level(start, len(data)), depth=0).hex()


def _level(reader: Reader, elements: list[Element], *, depth: int) -> bytes:
    digest = hashlib.sha256()
    for element in elements:
        if counts(element.tag):
            digest.update(pack("<I", element.tag))
            digest.update(_value(reader, element, depth=depth))
    return digest.digest()


def counts(tag: int) -> bool:
    """Tell whether an element is part of what a data set says."""
    coding = tag >> 16 == PIXEL_GROUP or tag in PIXEL_CODING
    derived = is_left_out(tag) or tag == ICON_IMAGE_SEQUENCE
    return not coding and not derived and tag != PIXEL_DATA


def _value(reader: Reader, element: Element, *, depth: int) -> bytes:
    """Sum one value; of a sequence, its items.

    Zeros and blanks at the end do not count: whether they are padding depends on the VR, which one
    of two files may not tell.
    """
    within = _sequence_reader(reader, element)
    if within is not None:
        return _items(within, element, depth=depth)
    word_bytes = WORD_BYTES.get(element.vr) if reader.big_endian else None
    if element.stop - element.value <= BLOCK_BYTES:
        value = reader.data[element.value : element.stop]
        whole = swapped(value, word_bytes) if word_bytes else bytes(value)
        return hashlib.sha256(whole.rstrip(PADDING)).digest()
    digest = hashlib.sha256()
    for at in range(element.value, element.stop, BLOCK_BYTES):
        block = reader.data[at : min(at + BLOCK_BYTES, element.stop)]
        digest.update(swapped(block, word_bytes) if word_bytes else block)
    return digest.digest()


def _sequence_reader(reader: Reader, element: Element) -> Reader | None:
    """Return what reads the items of an element; None for one that is no sequence.

    A sequence may lie in a UN, or have no VR and be in no dictionary: it is one when its value
    begins with an item and can be walked (PS3.5 6.2.2).
    """
    if element.vr not in (SEQUENCE, b"UN", b""):
        return None
    within = reader.nested(b"UN") if element.vr == b"UN" else reader
    if element.vr == SEQUENCE or element.undefined:
        return within
    begins = bytes(reader.data[element.value : element.value + 4])
    item = ITEM_BIG if within.big_endian else ITEM_LITTLE
    return within if begins == item and within.walks(element) else None


def _items(reader: Reader, element: Element, *, depth: int) -> bytes:
    digest = hashlib.sha256()
    for item in reader.items(element, depth + 1):
        elements = reader.level(item.start, item.stop, depth + 1)
        digest.update(_level(reader, elements, depth=depth + 1))
    return digest.digest()

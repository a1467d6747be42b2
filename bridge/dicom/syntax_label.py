"""Whether pixel data is encoded as the transfer syntax label says: native, or in fragments.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 8 and Annex A: under a native syntax Pixel Data has a length, at every depth; under an
encapsulated one that of the image is a sequence of fragments, while an icon's may be either (A.4).
Float and Double Float Pixel Data are always native (PS3.3 C.7.6.24, C.7.6.25).

A file that is not transcoded is checked as well: one that is passed on as "already in the wanted
syntax" and holds compressed pixels is a wrong image for every reader of its label. The check is
cheap: the bytes of a pixel data tag are searched for, and elements are walked only where a length
is missing behind one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NoReturn

from bridge.dicom.elements import DELIMITER_GROUP, PIXEL_DATA, SHORT_VRS, UNDEFINED, Element, Reader
from bridge.dicom.file_meta import FileMeta, sniff_dataset
from bridge.dicom.inflate import Room, inflated_dataset, inflated_head
from bridge.dicom.syntaxes import SYNTAXES, Kind, Syntax, syntax_of
from bridge.errors import InstanceError
from bridge.model import Reason

FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009
PIXELS = frozenset([PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA])
HOLDERS = frozenset([b"SQ", b"UN", b""])
"""What may hold items: sequences, known or not, and elements without a VR of their own."""
HEAD_BYTES = (1 << 16, 1 << 20, 1 << 23)
"""How much of a deflated data set is inflated to be checked: so much, then more, then all of it."""

BLOCK_BYTES = 1 << 20
_SYNTAX = 0x0010
# The header of encapsulated pixel data and of its first item, explicit or implicit.
_FRAGMENTS = re.compile(
    rb"\xe0\x7f[\x08\x09\x10]\0(?:[A-Z]{2}..)?\xff{4}\xfe\xff[\0\xdd]\xe0"
    rb"|\x7f\xe0\0[\x08\x09\x10](?:[A-Z]{2}..)?\xff{4}\xff\xfe\xe0[\0\xdd]",
    re.DOTALL,
)
_FRAGMENTS_BYTES = 16
_PIXEL_TAG = re.compile(rb"\xe0\x7f[\x08\x09\x10]\0")
_PADDING_TAG = b"\xfc\xff\xfc\xff"
UNDEFINED_LENGTH = b"\xff\xff\xff\xff"


class _CutOff(Exception):
    """The data set goes on behind the bytes that were given."""


def wrong_label(what: str) -> InstanceError:
    """Return the error for a label that the data set contradicts."""
    return InstanceError(Reason.WRONG_SYNTAX_LABEL, f"The transfer syntax label is wrong: {what}.")


def check_meta(data: memoryview, meta: FileMeta) -> None:
    """Raise InstanceError where the file has two sets of file meta information.

    Readers differ in which of them they believe.
    """
    if len(meta.syntaxes) > 1:
        raise wrong_label(f"the file names {len(meta.syntaxes)} different ones")
    start = meta.dataset_offset
    if meta.syntax and b"DICM" in (data[start : start + 4], data[start + 128 : start + 132]):
        raise wrong_label("a second file meta information follows the first")


def check_encoding(head: memoryview, syntax: Syntax) -> None:
    """Raise InstanceError where the data set that begins with ``head`` is of another encoding.

    Implicit or explicit, and byte order: seen in its first element, or not at all.
    """
    seen = sniff_dataset(head)
    if not seen:
        return
    shape = SYNTAXES[seen]
    if (shape.implicit, shape.big_endian) != (syntax.implicit, syntax.big_endian):
        raise wrong_label(f"{syntax.keyword}, but the data set is {shape.keyword}")


def check_levels(reader: Reader, elements: Sequence[Element], meta: FileMeta) -> None:
    """Raise InstanceError where pixel data contradicts the label, at any depth.

    ``elements``: the whole top level, read by ``reader``.
    """
    check_image(elements, meta)
    syntax = syntax_of(meta.syntax)
    if not syntax.encapsulated:
        _check_nested(reader, elements, syntax, meta)


def check_image(elements: Iterable[Element], meta: FileMeta) -> None:
    """Raise InstanceError where the pixel data of these elements contradicts the label."""
    syntax = syntax_of(meta.syntax)
    for e in elements:
        if e.tag in PIXELS:
            length = UNDEFINED if e.undefined and e.end > e.value else e.stop - e.value
            _check_top(e.tag, length, syntax, meta)


def check_label_of_file(data: memoryview, meta: FileMeta, room: Room | None = None) -> None:
    """Raise InstanceError where the pixel data of a whole file contradicts its label.

    For a file that is passed on as it is. A data set that cannot be walked is searched for the
    header of encapsulated pixel data, and passes without one. ``room``: where the data set of a
    deflated file is put when its first 8 MiB do not tell.
    """
    check_meta(data, meta)
    syntax = syntax_of(meta.syntax)
    if syntax.kind not in (Kind.NATIVE, Kind.ENCAPSULATED):
        return
    start = meta.dataset_offset
    if not syntax.deflated:
        check_encoding(data[start : start + 16], syntax)
        if _is_deflated(data[start:]):
            raise wrong_label(f"{syntax.keyword}, but the data set is deflated")
        if syntax.encapsulated or syntax.big_endian or _must_be_walked(data, start, syntax):
            _check_by_walking(data, start, syntax, meta, whole=True)
        return
    seen = sniff_dataset(data[start : start + 16])
    if seen:  # not deflated, whatever its label says
        _check_by_walking(data, start, SYNTAXES[seen], meta, whole=True)
        return
    try:
        _check_inflated(data[start:], syntax, meta, room)
    except zlib.error:
        return
    except InstanceError as exc:
        if exc.reason is Reason.WRONG_SYNTAX_LABEL:
            raise


def _is_deflated(rest: memoryview) -> bool:
    """True if no element can be seen where the data set begins, and one shows when inflated."""
    if sniff_dataset(rest[:16]):
        return False
    try:
        head, _ = inflated_head(rest, HEAD_BYTES[0])
    except zlib.error:
        return False
    return bool(sniff_dataset(head[:16]))


def _must_be_walked(data: memoryview, start: int, syntax: Syntax) -> bool:
    """True if a native data set may hold pixel data without a length.

    For nearly every file the answer is no, and this is the whole check: no element is walked, and a
    value of pixel data is skipped when an element may follow where it ends.
    """
    pos, end = start, len(data)
    head_bytes = 8 if syntax.implicit else 12
    while match := _PIXEL_TAG.search(data[pos:end]):
        at = pos + match.start()
        head = bytes(data[at : at + 20])
        if UNDEFINED_LENGTH in (head[4:8], head[8:12]):
            return True
        stop = at + head_bytes + int.from_bytes(head[head_bytes - 4 : head_bytes], "little")
        # Where nothing can follow, these bytes are no element: they lie inside another value.
        follows = stop == end or bytes(data[stop : stop + 4]) == _PADDING_TAG
        pos = stop if follows else at + 4
    return False


def _check_inflated(packed: memoryview, syntax: Syntax, meta: FileMeta, room: Room | None) -> None:
    for head_bytes in HEAD_BYTES:
        head, whole = inflated_head(packed, head_bytes)
        try:
            _check_by_walking(head, 0, syntax, meta, whole=whole)
        except _CutOff:
            continue
        return
    _check_by_walking(inflated_dataset(packed, room), 0, syntax, meta, whole=True)


def _check_by_walking(
    data: memoryview, start: int, syntax: Syntax, meta: FileMeta, *, whole: bool
) -> None:
    """Check by walking the top level. Raises _CutOff where the given bytes end before it does."""
    reader = Reader(data, implicit=syntax.implicit, big_endian=syntax.big_endian)
    try:
        for first, last in _walk(reader, start, syntax, meta, whole=whole):
            if fragments_in(data, first, last):
                # Walked only now: any value inside a sequence may hold such bytes by chance.
                _check_nested(reader, reader.level(first, last), syntax, meta)
    except InstanceError as exc:
        if exc.reason is Reason.WRONG_SYNTAX_LABEL:
            raise
        if not whole:
            raise _CutOff from exc
        # The label of the encoding may be the wrong one, or the data set is damaged.
        if not syntax.encapsulated and fragments_in(data, start, len(data)):
            _refuse(syntax, meta, PIXEL_DATA, "encapsulated")


def _walk(
    reader: Reader, start: int, syntax: Syntax, meta: FileMeta, *, whole: bool
) -> list[tuple[int, int]]:
    """Check the pixel data of the top level; return where encapsulated ones could be nested."""
    data, end, pos = reader.data, len(reader.data), start
    unpack = Struct(">HH2sH" if reader.big_endian else "<HH2sH").unpack_from
    holders: list[tuple[int, int]] = []
    while end - pos >= 8:
        at = pos
        if data[at] == 0 and reader.blank(at, end):
            break
        group, number, vr, length = unpack(data, at)
        tag, pos = group << 16 | number, at + 8
        if reader.implicit or vr not in SHORT_VRS or group == DELIMITER_GROUP:
            # Most headers of most files are read above: calling header() for each is slower.
            tag, vr, pos, length = reader.header(at, end)
        if tag in PIXELS:
            _check_top(tag, length, syntax, meta)
            if syntax.encapsulated and tag == PIXEL_DATA:
                return []
            if not whole:
                return holders
        if length == UNDEFINED:
            _, pos = reader.skip_undefined(tag, vr, pos, end, 1)
            holders.append((at, pos))
            continue
        pos += length
        if length >= _FRAGMENTS_BYTES and vr in HOLDERS and tag not in PIXELS:
            holders.append((at, min(pos, end)))
    if not whole:
        raise _CutOff
    return [] if syntax.encapsulated else holders


def _check_top(tag: int, length: int, syntax: Syntax, meta: FileMeta) -> None:
    """Compare the encoding of the image itself. Empty pixel data contradicts nothing."""
    encapsulated = length == UNDEFINED
    if length and encapsulated != (syntax.encapsulated and tag == PIXEL_DATA):
        _refuse(syntax, meta, tag, "encapsulated" if encapsulated else "native")


def _check_nested(
    reader: Reader, elements: Iterable[Element], syntax: Syntax, meta: FileMeta
) -> None:
    """Raise InstanceError for encapsulated pixel data below the top level of a native syntax."""
    for e in elements:
        if e.vr in HOLDERS and e.tag not in PIXELS:
            place = _nested_place(reader, e, 1)
            if place:
                _refuse(syntax, meta, PIXEL_DATA, "encapsulated", place)


def _nested_place(reader: Reader, e: Element, depth: int) -> str:
    """Return where in the items of ``e`` encapsulated pixel data lies, "" if nowhere."""
    if not fragments_in(reader.data, e.value, e.stop):
        return ""
    if e.vr != b"SQ" and not e.undefined and not (e.vr == b"" and reader.walks(e)):
        return ""
    inner = reader.nested(e.vr)
    for number, item in enumerate(inner.items(e, depth), start=1):
        here = f"item {number} of ({e.tag >> 16:04X},{e.tag & 0xFFFF:04X})"
        for child in inner.level(item.start, item.stop, depth):
            if child.tag in PIXELS and child.undefined:
                return here
            if child.vr in HOLDERS:
                place = _nested_place(inner, child, depth + 1)
                if place:
                    return f"{here}, {place}"
    return ""


def fragments_in(data: memoryview, start: int, stop: int) -> bool:
    """True if something that looks like encapsulated pixel data begins in ``[start:stop)``."""
    for at in range(start, stop, BLOCK_BYTES):
        last = min(stop, at + BLOCK_BYTES + _FRAGMENTS_BYTES)
        if _FRAGMENTS.search(data[at:last]):
            return True
    return False


def _refuse(syntax: Syntax, meta: FileMeta, tag: int, kind: str, place: str = "") -> NoReturn:
    given = syntax.keyword
    if not meta.text(_SYNTAX):
        given = f"none is given, and the data set looks like {syntax.keyword}"
    where = f" in {place}" if place else ""
    name = "the pixel data" if tag == PIXEL_DATA else "the float pixel data"
    raise wrong_label(f"{given}, but {name}{where} is {kind}")

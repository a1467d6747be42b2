"""Rewriter: elements of one encoding to bytes of another, values untouched.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 7 and Annex A. Explicit little endian to explicit little endian copies runs of
elements as they lie; everything else gets a new header and, from big endian, swapped words.
Group lengths (retired, PS3.5 7.2) and trailing padding (FFFC,FFFC) are left out, odd lengths
are padded (PS3.5 7.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import pack, unpack_from

from bridge.dicom.changed_elements import NewValues, is_left_out, refuse_unlisted
from bridge.dicom.description import REPRESENTATION, NewValue, number_of
from bridge.dicom.elements import (
    ITEM_END,
    KNOWN_VRS,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Item,
    Reader,
    damaged,
)
from bridge.dicom.vrs import (
    SAMPLE_BITS_TAGS,
    TEXT_VRS,
    WORD_BYTES,
    implicit_vr,
    sample_word_bytes,
    shown,
    swapped,
)
from bridge.errors import InstanceError
from bridge.model import Reason

Chunk = bytes | bytearray | memoryview
IconDecoder = Callable[[Reader, list[Element], Element], dict[int, NewValue | None]]

_SMALL_BYTES = 16 * 1024
ICON_IMAGE_SEQUENCE = 0x00880200
_LUT_DESCRIPTOR = 0x00283002
_PIXEL_DATA_BYTES = b"\xe0\x7f\x10\x00"
_ITEM = 0xFFFEE000


class Pieces:
    """Output as a list of chunks: small ones are gathered, large ones stay views."""

    def __init__(self) -> None:
        self.length = 0
        self._done: list[Chunk] = []
        self._open = bytearray()

    def add(self, chunk: Chunk) -> None:
        """Append a chunk."""
        self.length += len(chunk)
        if len(chunk) <= _SMALL_BYTES:
            self._open += chunk
            return
        self._close()
        self._done.append(chunk)

    def extend(self, other: Pieces) -> None:
        """Append everything in ``other``, which must not be used any more."""
        for chunk in other.chunks():
            self.add(chunk)

    def _close(self) -> None:
        if self._open:
            self._done.append(self._open)
            self._open = bytearray()

    def chunks(self) -> list[Chunk]:
        """Return the chunks in order."""
        self._close()
        return self._done


def element_header(tag: int, vr: bytes, length: int, *, implicit: bool) -> bytes:
    """Return the header of an element. A length that its VR cannot hold makes it UN.

    PS3.5 6.2.2 note 2 (CP-1066): an explicit VR element with a value of 64 KiB or more whose
    VR has a 16-bit length is written as UN.
    """
    group, number = tag >> 16, tag & 0xFFFF
    if implicit:
        return pack("<HHI", group, number, length)
    if vr in LONG_VRS or length > 0xFFFF:
        return pack("<HH2sHI", group, number, vr if vr in LONG_VRS else b"UN", 0, length)
    return pack("<HH2sH", group, number, vr, length)


def _delimiter(tag: int) -> bytes:
    return pack("<HHI", tag >> 16, tag & 0xFFFF, 0)


class Rewriter:
    """Writes levels read by ``reader`` in explicit or implicit VR little endian.

    ``icon`` is asked for the changes of a level below the top that has encapsulated pixel data
    (an icon, PS3.3 C.7.6.1.1.6), or None where the source syntax has none.
    """

    def __init__(
        self, reader: Reader, *, target_implicit: bool, icon: IconDecoder | None = None
    ) -> None:
        self._reader = reader
        self._data = reader.data
        self._implicit = target_implicit
        self._icon = icon
        self._verbatim = not (reader.implicit or reader.big_endian or target_implicit)

    def level(
        self,
        elements: Sequence[Element],
        changes: NewValues,
        out: Pieces,
        *,
        signed: bool,
        depth: int = 0,
    ) -> None:
        """Write one level: ``elements`` with ``changes`` by tag (None leaves the element out).

        ``signed``: Pixel Representation of this data set or the enclosing one. Raises
        InstanceError for the change of an element that may not change.
        """
        refuse_unlisted(changes)
        level = _Level(self._reader, elements) if self._reader.implicit else None
        if self._reader.big_endian:
            _refuse_two_readings(self._reader, elements)
        added = sorted((tag for tag, change in changes.items() if change), reverse=True)
        run_start = run_stop = -1
        for element in elements:
            tag = element.tag
            while added and added[-1] < tag:
                run_start = self._flush(run_start, run_stop, out)
                self._change(added[-1], changes[added.pop()], out)
            if tag in changes:
                run_start = self._flush(run_start, run_stop, out)
                if added and added[-1] == tag:
                    self._change(tag, changes[added.pop()], out)
            elif is_left_out(tag):
                run_start = self._flush(run_start, run_stop, out)
            elif self._verbatim and self._untouched(element):
                if run_start < 0:
                    run_start = element.start
                run_stop = element.end
            else:
                run_start = self._flush(run_start, run_stop, out)
                self._element(element, level, out, signed=signed, depth=depth)
        self._flush(run_start, run_stop, out)
        for tag in reversed(added):
            self._change(tag, changes[tag], out)

    def _flush(self, start: int, stop: int, out: Pieces) -> int:
        if start >= 0:
            out.add(self._data[start:stop])
        return -1

    def _untouched(self, e: Element) -> bool:
        """True if the element can be copied as it lies: even, delimited, no icon inside."""
        if e.irregular or e.vr not in KNOWN_VRS:
            return False
        if e.undefined:
            if e.end == e.stop:
                return False
        elif (e.stop - e.value) & 1:
            return False
        if self._icon is None or not (e.vr == b"SQ" or e.undefined):
            return True
        return _PIXEL_DATA_BYTES not in bytes(self._data[e.value : e.stop])

    def _change(self, tag: int, change: NewValue | None, out: Pieces) -> None:
        if change is not None:
            out.add(element_header(tag, change.vr, len(change.value), implicit=self._implicit))
            out.add(change.value)

    def _element(
        self, e: Element, level: _Level | None, out: Pieces, *, signed: bool, depth: int
    ) -> None:
        vr = e.vr
        if not vr:
            vr = level.vr(e, signed=signed) if level else _explicit_lookup(e, signed=signed)
            if vr == b"SQ" and not e.undefined and not self._reader.walks(e):
                vr = b"UN"  # another element than the one the dictionary knows
        elif vr not in KNOWN_VRS:
            vr = b"UN"  # a VR that is not in the standard stops other readers
        if vr == b"SQ" or (e.undefined and vr == b"UN"):
            self._sequence(e, out, signed=signed, depth=depth)
            return
        if e.undefined:
            self._fragments(e, out)
            return
        value: Chunk = self._data[e.value : e.stop]
        word_bytes = WORD_BYTES.get(vr) if self._reader.big_endian else None
        if word_bytes:
            value = swapped(memoryview(value), word_bytes)
        odd = len(value) & 1
        out.add(element_header(e.tag, vr, len(value) + odd, implicit=self._implicit))
        out.add(value)
        if odd:
            out.add(b" " if vr in TEXT_VRS else b"\0")

    def _fragments(self, e: Element, out: Pieces) -> None:
        """Encapsulated data of another element than Pixel Data: carried as it is, if at all."""
        if self._reader.big_endian or self._implicit:
            damaged(e.start, "encapsulated data that the wanted syntax cannot hold")
        if e.end == e.stop:
            damaged(e.stop, "encapsulated data that is cut off")
        out.add(self._data[e.start : e.end])

    def _sequence(self, e: Element, out: Pieces, *, signed: bool, depth: int) -> None:
        reader = self._reader.nested(e.vr)
        if reader is not self._reader:  # UN of undefined length: implicit inside, and stays so
            out.add(element_header(e.tag, b"UN", UNDEFINED, implicit=self._implicit))
            if self._icon is not None and _PIXEL_DATA_BYTES in bytes(self._data[e.value : e.stop]):
                within = Rewriter(reader, target_implicit=True, icon=self._icon)
                within._items(e, out, signed=signed, depth=depth)
            else:
                out.add(self._data[e.value : e.stop])
            out.add(_delimiter(SEQUENCE_END))
            return
        inner = Pieces()
        self._items(e, inner, signed=signed, depth=depth)
        length = UNDEFINED if e.undefined else inner.length
        out.add(element_header(e.tag, b"SQ", length, implicit=self._implicit))
        out.extend(inner)
        if e.undefined:
            out.add(_delimiter(SEQUENCE_END))

    def _items(self, e: Element, out: Pieces, *, signed: bool, depth: int) -> None:
        for number, item in enumerate(self._reader.items(e, depth + 1), start=1):
            place = f"Item {number} of {_named(e.tag)}"
            self._item(item, out, signed=signed, depth=depth + 1, place=place)

    def _item(self, item: Item, out: Pieces, *, signed: bool, depth: int, place: str) -> None:
        elements = self._reader.level(item.start, item.stop, depth)
        changes: NewValues = {}
        content = Pieces()
        for e in elements:
            if e.tag == REPRESENTATION and e.stop - e.value >= 2:
                signed = self._data[e.value + self._reader.big_endian] == 1
            elif e.tag == PIXEL_DATA and e.undefined:
                changes = self._icon_changes(elements, e, place)
        self.level(elements, changes, content, signed=signed, depth=depth)
        length = UNDEFINED if item.undefined else content.length
        out.add(pack("<HHI", _ITEM >> 16, _ITEM & 0xFFFF, length))
        out.extend(content)
        if item.undefined:
            out.add(_delimiter(ITEM_END))

    def _icon_changes(self, elements: list[Element], e: Element, place: str) -> NewValues:
        """Ask for the changes of an icon. Raises InstanceError that says where it lies."""
        if self._icon is None:
            damaged(e.start, "encapsulated pixel data in an uncompressed data set")
        try:
            return self._icon(self._reader, elements, e)
        except InstanceError as exc:
            raise InstanceError(
                exc.reason,
                f"{place} cannot be decoded: {exc.message}",
                final=exc.final,
                source_syntax=exc.source_syntax,
            ) from exc


def _named(tag: int) -> str:
    number = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return f"the Icon Image Sequence {number}" if tag == ICON_IMAGE_SEQUENCE else number


def _refuse_two_readings(reader: Reader, elements: Sequence[Element]) -> None:
    """Raise InstanceError for a level with big endian samples that are read in two ways."""
    by_tag = {e.tag: e for e in elements}
    for tag, bits_tag in SAMPLE_BITS_TAGS.items():
        e, bits = by_tag.get(tag), by_tag.get(bits_tag)
        if e is None or e.stop == e.value:
            continue
        count = (number_of(reader, bits) if bits else None) or 0
        if sample_word_bytes(e.vr, count) is None:
            raise InstanceError(
                Reason.UNDECODABLE,
                f"({tag >> 16:04X},{tag & 0xFFFF:04X}) at byte {e.start}: big endian samples of "
                f"{count} bits in {shown(e.vr)} can be read in two ways.",
            )


def _explicit_lookup(e: Element, *, signed: bool) -> bytes:
    """VR of an implicit element inside an explicit data set (its private creator is not sought)."""
    if e.undefined:
        return b"SQ"
    return implicit_vr(e.tag, creator=None, signed=signed, lut_entries=None)


class _Level:
    """What an implicit level must remember to find value representations."""

    def __init__(self, reader: Reader, elements: Iterable[Element]) -> None:
        self._data = reader.data
        self._creators: dict[int, str] = {}
        self._lut_entries: int | None = None
        for e in elements:
            group, number = e.tag >> 16, e.tag & 0xFFFF
            if group & 1 and 0x10 <= number <= 0xFF:
                name = bytes(self._data[e.value : e.stop][:64]).strip(b"\0 ")
                self._creators[group << 16 | number << 8] = name.decode("latin-1")
            elif e.tag == _LUT_DESCRIPTOR and e.stop - e.value >= 2:
                self._lut_entries = unpack_from("<H", self._data, e.value)[0]

    def vr(self, e: Element, *, signed: bool) -> bytes:
        if e.undefined:
            return b"SQ"
        creator = self._creators.get(e.tag & 0xFFFFFF00)
        return implicit_vr(e.tag, creator=creator, signed=signed, lut_entries=self._lut_entries)

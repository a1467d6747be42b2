"""Tokenizer: DICOM data elements as positions in a buffer, nothing copied, nothing interpreted.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 7 (element structure, sequences, undefined length), Annex A (the encodings).
Hostile input ends in an InstanceError: every step moves forward, nesting and the number of
elements of a level are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple, NoReturn

from bridge.errors import InstanceError
from bridge.model import Reason

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
DELIMITER_GROUP = 0xFFFE
PIXEL_DATA = 0x7FE00010
TRAILING_PADDING = 0xFFFCFFFC
NESTING_MAX = 64
_BLOCK_BYTES = 1 << 16
LEVEL_ELEMENTS_MAX = 200_000
SEQUENCE_ITEMS_MAX = 5_000_000

# PS3.5 Table 7.1-1: these have two reserved bytes and a 32-bit length.
LONG_VRS = frozenset(
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"]
)
SHORT_VRS = frozenset(
    (
        b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US"  # PS3.5 6.2
    ).split()
)
KNOWN_VRS = LONG_VRS | SHORT_VRS


class Element(NamedTuple):
    """Where one element lies: header from ``start``, value ``[value:stop)``, next at ``end``.

    ``undefined``: the length was FFFFFFFF, and ``[stop:end)`` is the delimiter (or nothing,
    where the file ends without one). ``irregular``: something nested in it has an odd length or
    a VR that is not in the standard, so it cannot be copied as it lies.
    """

    tag: int
    vr: bytes
    start: int
    value: int
    stop: int
    end: int
    undefined: bool
    irregular: bool = False


class Item(NamedTuple):
    """Content ``[start:stop)`` of one sequence item; the next begins at ``end``."""

    start: int
    stop: int
    end: int
    undefined: bool


def damaged(offset: int, what: str) -> NoReturn:
    """Raise the InstanceError for a data set that cannot be walked."""
    raise InstanceError(Reason.UNDECODABLE, f"The data set is damaged at byte {offset}: {what}.")


class Reader:
    """Walks elements of one encoding in ``data``, counting what is irregular in nested ones."""

    def __init__(self, data: memoryview, *, implicit: bool, big_endian: bool = False) -> None:
        self.data = data
        self.implicit = implicit
        self.big_endian = big_endian
        self.irregularities = 0
        mark = ">" if big_endian else "<"
        self._header = Struct(mark + "HHI")
        self._explicit = Struct(mark + "HH2sH")
        self._long = Struct(mark + "I")

    def nested(self, vr: bytes) -> Reader:
        """Return the reader for what is inside an undefined-length element of this VR.

        A UN of undefined length holds an implicit VR little endian sequence, whatever the
        syntax of the file (PS3.5 6.2.2 note 4, CP-246).
        """
        if vr != b"UN" or (self.implicit and not self.big_endian):
            return self
        return Reader(self.data, implicit=True)

    def header(self, pos: int, end: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR (b"" if implicit), position of the value, length at ``pos``."""
        if end - pos < 8:
            damaged(pos, "an element header is cut off")
        if self.implicit:
            group, number, length = self._header.unpack_from(self.data, pos)
            return group << 16 | number, b"", pos + 8, length
        group, number, vr, length = self._explicit.unpack_from(self.data, pos)
        tag = group << 16 | number
        # Before the VR: items and delimiters have none, and their length may spell one.
        if group == DELIMITER_GROUP:
            return tag, b"", pos + 8, self._long.unpack_from(self.data, pos + 4)[0]
        if vr in SHORT_VRS:
            return tag, vr, pos + 8, length
        if vr in LONG_VRS:
            if end - pos < 12:
                damaged(pos, "an element header is cut off")
            return tag, vr, pos + 12, self._long.unpack_from(self.data, pos + 8)[0]
        return self._odd_header(pos, end, tag, vr)

    def _odd_header(self, pos: int, end: int, tag: int, vr: bytes) -> tuple[int, bytes, int, int]:
        """Header whose VR is not in the standard: take the one reading that fits, or raise.

        Seen: "??" and blanks with a 16-bit length, VRs of a later edition with a 32-bit length
        (PS3.5 6.2 note 2), and implicit elements inside an explicit data set.
        """
        self.irregularities += 1
        readings = [(vr, pos + 8, self._explicit.unpack_from(self.data, pos)[3])]
        if end - pos >= 12:
            readings.append((vr, pos + 12, self._long.unpack_from(self.data, pos + 8)[0]))
        readings.append((b"", pos + 8, self._long.unpack_from(self.data, pos + 4)[0]))
        fitting = [
            reading for reading in readings if self._plausible_at(reading[1] + reading[2], end, tag)
        ]
        if len(fitting) != 1:
            damaged(pos, "a value representation that is not in the standard")
        return (tag, *fitting[0])

    def blank(self, pos: int, end: int) -> bool:
        """True if there is nothing but zeros from ``pos`` on: a tag of zero does not exist."""
        if any(self.data[pos : min(end, pos + 8)]):
            return False
        for start in range(pos, end, _BLOCK_BYTES):
            if bytes(self.data[start : min(end, start + _BLOCK_BYTES)]).strip(b"\0"):
                damaged(pos, "an element of tag zero")
        return True

    def _plausible_at(self, pos: int, end: int, after: int) -> bool:
        """True if an element that may follow ``after`` begins at ``pos``, or the level ends."""
        if pos == end:
            return True
        if pos + 8 > end:
            return False
        group, number, vr, _ = self._explicit.unpack_from(self.data, pos)
        tag = group << 16 | number
        return group == DELIMITER_GROUP or (tag > after and vr in KNOWN_VRS)

    def level(self, start: int, end: int, depth: int = 0) -> list[Element]:
        """Return the elements in ``[start:end)``: a data set, or the content of an item."""
        found: list[Element] = []
        pos = start
        unpack = self._explicit.unpack_from
        while pos < end:
            irregularities = self.irregularities
            if self.data[pos] == 0 and self.blank(pos, end):
                break  # zeros after the last element: padding of some transport or medium
            if self.implicit or end - pos < 8:
                tag, vr, value, length = self.header(pos, end)
            else:
                # Most headers of most files are read here: calling header() for each is slower.
                group, number, vr, length = unpack(self.data, pos)
                tag, value = group << 16 | number, pos + 8
                if vr not in SHORT_VRS or group == DELIMITER_GROUP:
                    tag, vr, value, length = self.header(pos, end)
            if tag >= ITEM:
                if depth and self.ends_defined_item(tag, length, value, end):
                    break
                damaged(pos, "a sequence delimiter outside a sequence")
            if length == UNDEFINED:
                stop, after = self.skip_undefined(tag, vr, value, end, depth + 1)
                irregular = self.irregularities > irregularities
                found.append(Element(tag, vr, pos, value, stop, after, True, irregular))
                pos = after
            else:
                stop = value + length
                if stop > end:
                    damaged(pos, f"an element of {length} bytes runs past the end")
                if vr == b"SQ":
                    self.check_items(value, stop, depth + 1)
                irregular = self.irregularities > irregularities
                found.append(Element(tag, vr, pos, value, stop, stop, False, irregular))
                pos = stop
            if len(found) > LEVEL_ELEMENTS_MAX:
                raise InstanceError(
                    Reason.TOO_LARGE, f"More than {LEVEL_ELEMENTS_MAX} elements on one level."
                )
        return found

    def skip_undefined(
        self, tag: int, vr: bytes, pos: int, end: int, depth: int
    ) -> tuple[int, int]:
        """Return where the content of an undefined-length element stops and what follows begins."""
        if depth > NESTING_MAX:
            raise InstanceError(
                Reason.NOT_DICOM, f"Sequences are nested more than {NESTING_MAX} deep."
            )
        fragments = vr not in (b"SQ", b"UN", b"") or (tag == PIXEL_DATA and vr != b"SQ")
        reader = self if fragments else self.nested(vr)
        top_pixels = tag == PIXEL_DATA and fragments and depth == 1
        count = 0
        while True:
            if pos >= end and depth == 1:
                return pos, pos  # the file ends where the delimiter should be
            item_tag, _, value, length = reader.header(pos, end)
            if item_tag == SEQUENCE_END:
                return pos, self._repeated_end(value, end) if top_pixels else value
            if item_tag != ITEM:
                damaged(pos, "no sequence item where one should begin")
            if length != UNDEFINED:
                if value + length > end:
                    if fragments and depth == 1:
                        return end, end  # cut short; the frame decides whether it is whole
                    damaged(pos, "a sequence item runs past the end")
                pos = value + length
                if not (fragments or reader.implicit):
                    reader.check_level(value, pos, depth)
            elif fragments:
                damaged(pos, "a fragment of undefined length")
            else:
                pos = reader.skip_item(value, end, depth)
            count += 1
            if count > SEQUENCE_ITEMS_MAX:
                raise InstanceError(Reason.TOO_LARGE, "A sequence has too many items.")

    def _repeated_end(self, pos: int, end: int) -> int:
        """Return where a delimiter that is written more than once ends.

        Seen behind encapsulated Pixel Data; inside sequences a second one could end another level.
        """
        delimiter = self._header.pack(SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0)
        while self.data[pos : min(end, pos + 8)] == delimiter:
            pos += 8
        return pos

    def ends_defined_item(self, tag: int, length: int, value: int, end: int) -> bool:
        """True for a delimiter at the end of an item whose length was given: it is superfluous.

        DCMTK, pydicom and Orthanc read it so. Anywhere else it is ambiguous, and refused.
        """
        return tag == ITEM_END and not length and value == end

    def skip_item(self, pos: int, end: int, depth: int) -> int:
        """Return the position after the delimiter of an undefined-length item."""
        while True:
            tag, vr, value, length = self.header(pos, end)
            if tag == ITEM_END:
                return value
            if tag >= ITEM:
                damaged(pos, "a sequence ends inside an item")
            if length == UNDEFINED:
                _, pos = self.skip_undefined(tag, vr, value, end, depth + 1)
            else:
                pos = value + length
                if pos > end:
                    damaged(pos, "an element runs past the end of its item")
                self.irregularities += length & 1
                if vr == b"SQ":
                    self.check_items(value, pos, depth + 1)

    def check_level(self, pos: int, end: int, depth: int) -> None:
        """Walk ``[pos:end)`` to its end at every depth; raise if it cannot be walked."""
        while pos < end:
            tag, vr, value, length = self.header(pos, end)
            if tag >= ITEM:
                if self.ends_defined_item(tag, length, value, end):
                    self.irregularities += 1
                    return
                damaged(pos, "a sequence delimiter outside a sequence")
            if length == UNDEFINED:
                _, pos = self.skip_undefined(tag, vr, value, end, depth + 1)
                continue
            pos = value + length
            if pos > end:
                damaged(value, "an element runs past the end of its item")
            self.irregularities += length & 1
            if vr == b"SQ":
                self.check_items(value, pos, depth + 1)

    def check_items(self, pos: int, end: int, depth: int) -> None:
        """Walk the items of a sequence of defined length; raise if they cannot be walked."""
        for item in self.items(Element(0, b"SQ", pos, pos, end, end, False), depth):
            if not item.undefined:
                self.check_level(item.start, item.stop, depth)

    def walks(self, element: Element) -> bool:
        """True if a sequence of defined length can be walked to its end."""
        try:
            self.check_items(element.value, element.stop, 1)
        except InstanceError as exc:
            if exc.reason is not Reason.UNDECODABLE:
                raise
            return False
        return True

    def items(self, element: Element, depth: int) -> Iterator[Item]:
        """Yield the items of a sequence element; ``self`` reads its content."""
        if depth > NESTING_MAX:
            raise InstanceError(
                Reason.NOT_DICOM, f"Sequences are nested more than {NESTING_MAX} deep."
            )
        pos, end = element.value, element.stop
        while pos < end:
            tag, _, value, length = self.header(pos, end)
            if tag == SEQUENCE_END:
                if value != end:
                    damaged(pos, "a sequence goes on behind its delimiter")
                self.irregularities += 1
                return
            if tag != ITEM:
                damaged(pos, "no sequence item where one should begin")
            if length == UNDEFINED:
                after = self.skip_item(value, end, depth)
                yield Item(value, after - 8, after, True)
                pos = after
            else:
                pos = value + length
                if pos > end:
                    damaged(value, "a sequence item runs past the end")
                yield Item(value, pos, pos, False)

"""A generator of DICOM files (hypothesis): trees of elements, and ways to write them.

The writer is of these tests only and shares nothing with the bridge's. What a file means is known
by construction: a tree whose values are little endian, and samples. What readers may differ about
(a value that is no whole number of words, a sequence that only its length tells from bytes in
implicit VR) is not made here; tests that want it make it by hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from struct import pack
from typing import Any

import numpy as np
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary

from tests.transcode_cases import (
    BIG_ENDIAN,
    DEFLATED,
    DEFLATED_FRAME,
    ENCODE,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG_LS,
    JPEG_SV1,
    RAW,
    RLE,
    Array,
    Image,
    native_bytes,
)

UNDEFINED = 0xFFFFFFFF
NATIVE = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
COMPRESSED = (RAW, RLE, DEFLATED_FRAME, JPEG_LS, JPEG_SV1, J2K, HTJ2K)
MARKED = (JPEG_LS, JPEG_SV1, J2K, HTJ2K)
"""Code streams that are known by their first bytes."""

# PS3.5 Table 7.1-1 and 6.2, written down again: not the bridge's tables.
LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
SHORT = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT", "PN", "SH", "SL"),
    *("SS", "ST", "TM", "UI", "UL", "US"),
)
TEXT = (
    *("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR"),
    "UT",
)
WORDS = {
    "AT": 2, "US": 2, "SS": 2, "OW": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4,
    "FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8,
}  # fmt: skip
SPELLED = sorted({ord(vr[0]) | ord(vr[1]) << 8 for vr in LONG + SHORT})

CREATORS = (b"SIEMENS CSA HEADER", b"NOBODY KNOWS", b"GEMS_IDEN_01")
SEQUENCES = (0x00081110, 0x00081115, 0x00081140, 0x00082112, 0x00400275, 0x00540016, 0x30060020)
"""In every dictionary, however old: in implicit VR a reader must know them."""
LAST_OF_ITEM = 0x7FE310FF
"""Behind every tag that a tree draws: of the element that gives an item a wanted length."""
TABLES = ("right", "right", "empty", "shifted", "equal", "short", "far")
PREAMBLES = (bytes(128), b"PK\3\4".ljust(128, b"x"), b"II*\0".ljust(128, b"x"), None)


@dataclass(frozen=True)
class Leaf:
    """An element with a value, in little endian words."""

    tag: int
    vr: str
    value: bytes


@dataclass(frozen=True)
class Item:
    """One item: its elements, and how its end is told."""

    elements: tuple[Any, ...]
    undefined: bool = False
    idle_delimiter: bool = False
    """A delimiter within the given length: says nothing, and is there."""


@dataclass(frozen=True)
class Branch:
    """A sequence. ``vr`` UN has a length that is not given and is implicit inside (CP-246)."""

    tag: int
    items: tuple[Item, ...]
    vr: str = "SQ"
    undefined: bool = False
    idle_delimiter: bool = False


@dataclass(frozen=True)
class Pixels:
    """The image, and how its frames are cut into fragments."""

    image: Image
    seed: int
    cuts: tuple[tuple[int, ...], ...] = ()
    """For each frame where it is cut, in permille of its length."""
    table: str = "right"
    extended: str = "none"
    repeated_delimiters: int = 0
    delimiter: bool = True

    @property
    def array(self) -> Array:
        return self.image.array(self.seed)


@dataclass(frozen=True)
class Made:
    """A file and what it means."""

    syntax: str
    tree: tuple[Any, ...]
    pixels: Pixels | None
    preamble: bytes | None = bytes(128)
    tail: bytes = b""
    meta_length: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def data(self) -> bytes:
        return written(self)

    @property
    def certain(self) -> bool:
        """False where it is right to refuse the file as contradictory."""
        p = self.pixels
        if p is None or self.syntax in NATIVE:
            return True
        one_each = all(not cuts for cuts in p.cuts)
        if p.image.frames == 1 or one_each:
            return True
        return self.syntax in MARKED or p.table == "right" or p.extended == "right"


# --- writing ---


def _padded(value: bytes, vr: str) -> bytes:
    return value + (b" " if vr in TEXT else b"\0") * (len(value) & 1)


class Writer:
    """Writes trees in one encoding."""

    def __init__(
        self, *, implicit: bool, big_endian: bool = False, lengths: list[int] | None = None
    ) -> None:
        self.implicit = implicit
        self.mark = ">" if big_endian else "<"
        self.lengths = [] if lengths is None else lengths
        """Of the elements written in implicit VR."""

    def header(self, tag: int, vr: str, length: int) -> bytes:
        head = pack(self.mark + "HH", tag >> 16, tag & 0xFFFF)
        if self.implicit:
            self.lengths.append(length)
            return head + pack(self.mark + "I", length)
        if vr in LONG or vr not in SHORT:
            return head + vr.encode() + pack(self.mark + "HI", 0, length)
        return head + vr.encode() + pack(self.mark + "H", length)

    def delimiter(self, number: int, length: int = 0) -> bytes:
        return pack(self.mark + "HHI", 0xFFFE, number, length)

    def value(self, leaf: Leaf) -> bytes:
        size = WORDS.get(leaf.vr, 1)
        if self.mark == "<" or size == 1:
            return leaf.value
        return np.frombuffer(leaf.value, f"<u{size}").byteswap().tobytes()

    def elements(self, tree: tuple[Any, ...]) -> bytes:
        return b"".join(self.element(node) for node in tree)

    def element(self, node: Any) -> bytes:
        if isinstance(node, Leaf):
            value = self.value(node)
            return self.header(node.tag, node.vr, len(value)) + value
        inner = self if node.vr == "SQ" else Writer(implicit=True, lengths=self.lengths)
        body = b"".join(inner.item(item) for item in node.items)
        if node.undefined or node.vr == "UN":
            head = self.header(node.tag, node.vr, UNDEFINED)
            return head + body + inner.delimiter(0xE0DD)
        body += self.delimiter(0xE0DD) if node.idle_delimiter else b""
        return self.header(node.tag, node.vr, len(body)) + body

    def item(self, item: Item) -> bytes:
        body = self.elements(item.elements)
        if item.undefined:
            return self.delimiter(0xE000, UNDEFINED) + body + self.delimiter(0xE00D)
        body += self.delimiter(0xE00D) if item.idle_delimiter else b""
        return self.delimiter(0xE000, len(body)) + body


def spells_a_vr(length: int) -> bool:
    """Whether the first two bytes of a length are capital letters."""
    low, high = length & 0xFF, length >> 8 & 0xFF
    return 0x40 < low < 0x5B and 0x40 < high < 0x5B


def implicit_length(node: Any) -> int:
    """The length that an element has in implicit VR."""
    writer = Writer(implicit=True)
    writer.element(node)
    return writer.lengths[-1]


def as_output(tree: tuple[Any, ...]) -> tuple[Any, ...]:
    """The tree as a careful writer lays it out: values padded, no delimiter that says nothing."""
    return tuple(
        replace(node, value=_padded(node.value, node.vr))
        if isinstance(node, Leaf)
        else replace(
            node,
            idle_delimiter=False,
            items=tuple(
                replace(item, elements=as_output(item.elements), idle_delimiter=False)
                for item in node.items
            ),
        )
        for node in tree
    )


def levels(tree: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    """The tags of every level as they are written: of the data set and of each item within."""
    yield tuple(node.tag for node in tree)
    for node in tree:
        if isinstance(node, Branch):
            for item in node.items:
                yield from levels(item.elements)


def items_within(tree: tuple[Any, ...], *, un: bool = False) -> Iterator[Item]:
    """Every item of a sequence of unknown VR, however deep."""
    for node in tree:
        if isinstance(node, Branch):
            inside = un or node.vr == "UN"
            for item in node.items:
                if inside:
                    yield item
                yield from items_within(item.elements, un=inside)


def fragments_of(stream: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """Cut a code stream at even places."""
    places = sorted({len(stream) * cut // 1000 // 2 * 2 for cut in cuts} - {0, len(stream)})
    ends = [*places, len(stream)]
    return [stream[a:b] for a, b in zip([0, *places], ends, strict=True)]


def encapsulated(p: Pixels, syntax: str) -> tuple[bytes, list[int], list[int]]:
    """The value of Pixel Data without its delimiter, and the offsets and lengths of frames."""
    offsets: list[int] = []
    lengths: list[int] = []
    body = b""
    for frame, cuts in zip(p.array, p.cuts, strict=True):
        stream = ENCODE[syntax](p.image, frame)
        stream += b"\0" * (len(stream) & 1)
        offsets.append(len(body))
        lengths.append(len(stream))
        for fragment in fragments_of(stream, cuts):
            body += pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment
    table = {
        "right": offsets,
        "empty": [],
        "shifted": [offset + 2 for offset in offsets],
        "equal": [0] * len(offsets),
        "short": offsets[:-1],
        "far": [offset * 3 for offset in offsets],
    }[p.table]
    head = pack(f"<HHI{len(table)}I", 0xFFFE, 0xE000, 4 * len(table), *table)
    return head + body, offsets, lengths


def description(image: Image) -> tuple[Leaf, ...]:
    """Group 0028 of an image."""

    def number(element: int, value: int) -> Leaf:
        return Leaf(0x00280000 | element, "US", pack("<H", value))

    found = [number(0x02, image.samples)]
    found.append(Leaf(0x00280004, "CS", _padded(image.photometric.encode(), "CS")))
    if image.samples > 1:
        found.append(number(0x06, image.planar or 0))
    if image.frames > 1:
        found.append(Leaf(0x00280008, "IS", _padded(str(image.frames).encode(), "IS")))
    found += [
        number(0x10, image.rows),
        number(0x11, image.columns),
        number(0x100, image.allocated),
        number(0x101, image.stored),
        number(0x102, image.stored - 1),
        number(0x103, int(image.signed)),
    ]
    return tuple(found)


def written(made: Made) -> bytes:
    """The file."""
    implicit, big = made.syntax == IMPLICIT, made.syntax == BIG_ENDIAN
    writer = Writer(implicit=implicit, big_endian=big)
    before = tuple(n for n in made.tree if n.tag < 0x7FE00010)
    after = tuple(n for n in made.tree if n.tag > 0x7FE00010)
    dataset = writer.elements(before) + _pixel_element(made, writer) + writer.elements(after)
    dataset += made.tail
    if made.syntax == DEFLATED:
        engine = zlib.compressobj(wbits=-15)
        dataset = engine.compress(dataset) + engine.flush()
        dataset += b"\0" * (len(dataset) & 1)
    return _head(made) + dataset


def _pixel_element(made: Made, writer: Writer) -> bytes:
    p = made.pixels
    if p is None:
        return b""
    vr = "OW" if p.image.allocated > 8 else "OB"
    if made.syntax in NATIVE:
        value = native_bytes(p.image, p.array)
        if made.syntax == BIG_ENDIAN and p.image.allocated == 16:
            value = np.frombuffer(value, "<u2").byteswap().tobytes()
        return writer.header(0x7FE00010, vr, len(value)) + value
    value, offsets, lengths = encapsulated(p, made.syntax)
    extended = b""
    if p.extended != "none":
        shift = 0 if p.extended == "right" else 6
        table = pack(f"<{len(offsets)}Q", *(offset + shift for offset in offsets))
        extended = writer.header(0x7FE00001, "OV", len(table)) + table
        sizes = pack(f"<{len(lengths)}Q", *lengths)
        extended += writer.header(0x7FE00002, "OV", len(sizes)) + sizes
    end = b""
    if p.delimiter or made.tail or any(n.tag > 0x7FE00010 for n in made.tree):
        end = writer.delimiter(0xE0DD) * (1 + p.repeated_delimiters)
    return extended + writer.header(0x7FE00010, "OB", UNDEFINED) + value + end


def _head(made: Made) -> bytes:
    meta = Writer(implicit=False)
    uid = made.syntax.encode()
    body = meta.header(0x00020001, "OB", 2) + b"\0\1"
    body += meta.header(0x00020010, "UI", len(_padded(uid, "OB"))) + _padded(uid, "OB")
    if made.meta_length:
        body = meta.header(0x00020000, "UL", 4) + pack("<I", len(body)) + body
    if made.preamble is None:
        return body
    return made.preamble + b"DICM" + body


def flattened(
    tree: tuple[Any, ...], path: tuple[int, ...] = (), *, padded: bool = True
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield path and value of every element; a path is tags and item numbers in turn.

    Group lengths are left out: they are retired and go stale.
    """
    for node in tree:
        where = (*path, node.tag)
        if not node.tag & 0xFFFF:
            continue
        if isinstance(node, Leaf):
            yield where, _padded(node.value, node.vr) if padded else node.value
            continue
        yield where, b"%d items" % len(node.items) if node.items else b""
        for number, item in enumerate(node.items):
            yield from flattened(item.elements, (*where, number), padded=padded)


# --- strategies ---


@cache
def dictionary() -> dict[str, list[int]]:
    """Public tags by VR, without those that say how to read the rest."""
    found: dict[str, list[int]] = {}
    for tag, entry in DicomDictionary.items():
        group = tag >> 16
        odd = group in (0x0002, 0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE, 0x0028) or group & 1
        if odd or group < 0x0008 or tag in (0x00080005, 0x00080016, 0x00080018, 0x00880200):
            continue
        if entry[0] in LONG + SHORT:
            found.setdefault(entry[0], []).append(tag)
    return found


def values(vr: str, *, odd: bool) -> st.SearchStrategy[bytes]:
    """Bytes of whole words; mostly few, sometimes beyond 64 KiB where the VR can hold them."""
    size = WORDS.get(vr, 1)
    step = size if size > 1 or odd else 2
    few = st.integers(0, 12).map(lambda n: n * step)
    lengths = few
    if vr in LONG:
        lengths = st.one_of(few, few, few, few, st.sampled_from([0xFFF8, 0x10000, 0x10008, 70_000]))
    return st.builds(lambda length, seed: _value(vr, length, seed), lengths, st.integers(0, 99))


def _value(vr: str, length: int, seed: int) -> bytes:
    """Any bytes; text is printable, so that what DCMTK prints of it stays on one line."""
    rng = np.random.default_rng(seed)
    if vr in TEXT or vr == "UI":
        return rng.integers(0x30, 0x5B, length, dtype=np.uint8).tobytes()
    return rng.bytes(length)


@st.composite
def leaves(draw: st.DrawFn, *, odd: bool, private: bool) -> Leaf:
    kind = draw(st.sampled_from(["public", "public", "public", "private", "unknown"]))
    if kind == "public":
        vr = draw(st.sampled_from(sorted(set(dictionary()) - {"SQ"})))
        tag = draw(st.sampled_from(dictionary()[vr]))
    elif kind == "private" and private:
        vr = draw(st.sampled_from([v for v in LONG + SHORT if v != "SQ"]))
        tag = draw(st.sampled_from([0x0009, 0x0029, 0x7FDF, 0x7FE1])) << 16
        tag |= 0x1000 | draw(st.integers(0, 0xFF))
    else:
        vr = draw(st.sampled_from([v for v in LONG + SHORT if v != "SQ"]))
        tag = 0x00080000 | 0xEE00 | draw(st.integers(0, 0xFF))  # in no dictionary
    return Leaf(tag, vr, draw(values(vr, odd=odd)))


def lengthened(tree: tuple[Any, ...], wanted: int, *, implicit: bool) -> tuple[Any, ...]:
    """The tree with one more element that makes it ``wanted`` bytes long, where there is room."""
    have = len(Writer(implicit=implicit).elements(tree))
    room = wanted - have - (8 if implicit else 12)
    return (*tree, Leaf(LAST_OF_ITEM, "OB", bytes(room))) if room >= 0 else tree


@st.composite
def items(draw: st.DrawFn, depth: int, *, odd: bool, implicit: bool, un: bool) -> Item:
    found = draw(trees(depth - 1, odd=odd, implicit=implicit, un=un))
    undefined = draw(st.booleans())
    idle = not undefined and draw(st.booleans())
    wanted = draw(st.sampled_from([0, 0, 0, *SPELLED]))
    if wanted and not undefined and not (wanted & 1):
        found = lengthened(found, wanted - 8 * idle, implicit=implicit)
    return Item(found, undefined, idle)


@st.composite
def branches(draw: st.DrawFn, depth: int, *, odd: bool, implicit: bool, un: bool) -> Branch:
    kinds = ["public", "public", "private"] + (["un"] if un else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "public":
        tag = draw(st.sampled_from(SEQUENCES))
    else:
        tag = draw(st.sampled_from([0x0009, 0x0029, 0x7FDF])) << 16 | 0x1100
        tag |= draw(st.integers(0, 0xFF))
    inside = items(
        depth, odd=odd and kind != "un", implicit=implicit or kind == "un", un=un and kind != "un"
    )
    found = tuple(draw(st.lists(inside, max_size=3)))
    if kind == "un":
        return Branch(tag, found, "UN", undefined=True)
    # In implicit VR only a length that is not given tells an unknown sequence from bytes.
    undefined = kind == "private" or draw(st.booleans())
    idle = not undefined and bool(found) and draw(st.booleans())
    return Branch(tag, found, "SQ", undefined, idle)


@st.composite
def trees(
    draw: st.DrawFn, depth: int, *, odd: bool, implicit: bool, un: bool = True
) -> tuple[Any, ...]:
    """Elements of one level in the order of their tags, each tag once."""
    size = 6 if depth >= 3 else 3
    found: list[Any] = draw(st.lists(leaves(odd=odd, private=True), max_size=size))
    if depth:
        one = branches(depth, odd=odd, implicit=implicit, un=un)
        found += draw(st.lists(one, max_size=2))
    by_tag = {node.tag: node for node in found}
    for node in list(by_tag.values()):
        group = node.tag >> 16
        if group & 1 and draw(st.booleans()):
            creator = draw(st.sampled_from(CREATORS))
            tag = group << 16 | (node.tag >> 8 & 0xFF)
            by_tag.setdefault(tag, Leaf(tag, "LO", _padded(creator, "LO")))
    return tuple(by_tag[tag] for tag in sorted(by_tag))


@st.composite
def pixel_data(draw: st.DrawFn, syntax: str) -> Pixels:
    colour = draw(st.booleans()) and syntax not in (JPEG_SV1,)
    allocated = draw(st.sampled_from([8, 16]))
    if colour and syntax in (J2K, HTJ2K, JPEG_LS, JPEG_SV1):
        allocated = 8
    deep = allocated == 16
    least = 32 if syntax in (J2K, HTJ2K) else 1  # the encoders' wavelets want some room
    image = Image(
        rows=least + draw(st.integers(0, 8)),
        columns=least + draw(st.integers(0, 8)),
        samples=3 if colour else 1,
        allocated=allocated,
        stored=draw(st.sampled_from([10, 12, 16])) if deep else 8,
        frames=draw(st.sampled_from([1, 1, 2, 3, 5])),
        photometric="RGB" if colour else "MONOCHROME2",
    )
    if syntax in NATIVE:
        return Pixels(image, draw(st.integers(0, 9)))
    cut = st.lists(st.integers(0, 1000), max_size=3).map(tuple)
    return Pixels(
        image,
        draw(st.integers(0, 9)),
        cuts=tuple(draw(st.lists(cut, min_size=image.frames, max_size=image.frames))),
        table=draw(st.sampled_from(TABLES)),
        extended=draw(st.sampled_from(["none", "none", "right", "shifted"])),
        repeated_delimiters=draw(st.sampled_from([0, 0, 0, 1, 2])),
        delimiter=draw(st.sampled_from([True, True, True, False])),
    )


SOP = (
    Leaf(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
    Leaf(0x00080018, "UI", b"1.2.3.4.5\0"),
)


@st.composite
def files(draw: st.DrawFn, syntaxes: tuple[str, ...] = (*NATIVE, *COMPRESSED)) -> Made:
    """A file that a careful reader can read in one way only."""
    syntax = draw(st.sampled_from(syntaxes))
    implicit = syntax == IMPLICIT
    # There is no UN in implicit VR, and pydicom reads its items as big endian where the file is.
    un = syntax not in (IMPLICIT, BIG_ENDIAN)
    odd = syntax != BIG_ENDIAN and draw(st.sampled_from([False, False, True]))
    tree = draw(trees(3, odd=odd, implicit=implicit, un=un))
    pixels = draw(st.none() | pixel_data(syntax) | pixel_data(syntax))
    nodes = {n.tag: n for n in tree} | {n.tag: n for n in SOP}
    if pixels is not None:
        nodes |= {leaf.tag: leaf for leaf in description(pixels.image)}
    kept = tuple(nodes[tag] for tag in sorted(nodes))
    padding = Leaf(0xFFFCFFFC, "OB", bytes(10))
    tail = Writer(implicit=implicit, big_endian=syntax == BIG_ENDIAN).element(padding)
    return Made(
        syntax,
        kept,
        pixels,
        preamble=draw(st.sampled_from(PREAMBLES)),
        tail=draw(st.sampled_from([b"", b"", tail, bytes(64)])),
        meta_length=draw(st.booleans()),
    )


def relabelled(made: Made, syntax: str) -> bytes:
    """The same bytes behind a header that names another syntax."""
    start = len(_head(made))
    return _head(replace(made, syntax=syntax)) + made.data[start:]

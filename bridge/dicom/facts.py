"""What a file itself tells that a rule can look at.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from struct import iter_unpack

from bridge.dicom.elements import UNDEFINED, Reader
from bridge.dicom.file_meta import read_file_meta, sniff_dataset
from bridge.dicom.inflate import inflated_head
from bridge.dicom.syntaxes import SYNTAXES
from bridge.dicom.vrs import public_vr
from bridge.errors import InstanceError
from bridge.model import Reason, attribute_name

SOP_CLASS = 0x00080016
MODALITY = 0x00080060
HEAD_BYTES = 256 * 1024
HEAD_GROWS = 16
"""Where what a rule asks for lies behind the head, so many times as much is read."""
INFLATED_MAX = 1 << 30
VALUE_BYTES_MAX = 1024
"""So much of a value is looked at."""
NUMBERS = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
    "AT": "HH",
}  # fmt: skip
"""Value representations that are numbers, each with its format."""
NOT_LOOKED_AT = frozenset({"SQ", "OB", "OW", "OD", "OF", "OL", "OV", "UN"})
"""Sequences and bytes: no rule can look at them."""


def facts_of_file(
    data: memoryview, attributes: Iterable[int] = (), *, whole: bool = True
) -> dict[str, str]:
    """Read the facts that a file itself tells: syntax, SOP class, modality, and attributes.

    ``attributes``: tags of the data set; their facts are named by ``attribute_name``. What the file
    does not have is "", so that a rule about it does not match. Of a file that is not ``whole``,
    what lies behind its end is missing. Raises InstanceError when it cannot be read that far.
    """
    meta = read_file_meta(data)
    wanted = {SOP_CLASS: "sop_class", MODALITY: "modality"}
    tags = {tag: {name} for tag, name in wanted.items()}
    for tag in attributes:
        tags.setdefault(tag, set()).add(attribute_name(tag))
    facts = {"syntax": meta.syntax}
    syntax = SYNTAXES.get(meta.syntax)
    dataset = data[meta.dataset_offset :]
    if syntax is None or not syntax.deflated:
        return facts | _facts_of_dataset(dataset, meta.syntax, tags, whole=whole)
    try:
        return facts | _facts_of_deflated(dataset, meta.syntax, tags, whole=whole)
    except zlib.error:
        return facts | {name: "" for names in tags.values() for name in names}


def _facts_of_deflated(
    dataset: memoryview, syntax_uid: str, tags: dict[int, set[str]], *, whole: bool
) -> dict[str, str]:
    """Inflate as much as is needed. Raises zlib.error, InstanceError."""
    names = {name for found in tags.values() for name in found}
    limit = HEAD_BYTES
    while True:
        head, ended = inflated_head(dataset, limit)
        facts = _facts_of_dataset(head, syntax_uid, tags, whole=ended)
        if names <= facts.keys() or (len(dataset) <= limit and not whole):
            return facts
        if limit >= INFLATED_MAX:
            text = "An attribute that a rule uses is too far from the beginning of the data set."
            raise InstanceError(Reason.TOO_LARGE, text)
        limit *= HEAD_GROWS


def _facts_of_dataset(
    dataset: memoryview, syntax_uid: str, tags: dict[int, set[str]], *, whole: bool
) -> dict[str, str]:
    # The label may be wrong: a rule must still be able to forward such a file.
    shape = SYNTAXES.get(sniff_dataset(dataset[:16])) or SYNTAXES.get(syntax_uid)
    reader = Reader(
        dataset,
        implicit=shape is not None and shape.implicit,
        big_endian=shape is not None and shape.big_endian,
    )
    facts: dict[str, str] = {}
    reached, pos, last = -1, 0, max(tags)
    try:
        while len(dataset) - pos >= 8:
            if dataset[pos] == 0 and reader.blank(pos, len(dataset)):
                break
            tag, vr, value, length = reader.header(pos, len(dataset))
            reached = tag
            if tag > last:
                break
            if length == UNDEFINED:
                _, pos = reader.skip_undefined(tag, vr, value, len(dataset), 1)
                continue
            if tag in tags and (whole or value + length <= len(dataset)):
                raw = bytes(dataset[value : value + min(length, VALUE_BYTES_MAX)])
                text = _text_of(tag, vr, raw, big_endian=reader.big_endian)
                facts |= dict.fromkeys(tags[tag], text)
            pos = value + length
            reached = tag if pos <= len(dataset) else tag - 1
    except InstanceError:
        if whole:
            raise
        reached -= 1  # what runs past the end of a head is behind it
    absent = {t for t in tags if whole or t <= reached}
    return {name: "" for tag in absent for name in tags[tag]} | facts


def _text_of(tag: int, vr: bytes, raw: bytes, *, big_endian: bool) -> str:
    """Return a value as text, several ones with a backslash between them; "" for bytes."""
    name = vr.decode("ascii", "replace") if vr else public_vr(tag)
    if tag >> 16 & 1 and not vr:
        name = "LO"  # a private one in implicit VR: it is looked at as text
    if name in NOT_LOOKED_AT:
        return ""
    if name in NUMBERS:
        one = (">" if big_endian else "<") + NUMBERS[name]
        width = 4 if name == "AT" else {"H": 2, "I": 4, "Q": 8, "F": 4, "D": 8}[one[1].upper()]
        values = iter_unpack(one, raw[: len(raw) - len(raw) % width])
        return "\\".join(_number(value) for value in values)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return "\\".join(value.strip("\0 ") for value in text.split("\\"))


def _number(value: tuple[float, ...]) -> str:
    return f"{value[0]:04X},{value[1]:04X}" if len(value) == 2 else f"{value[0]:g}"

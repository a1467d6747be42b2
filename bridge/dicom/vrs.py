"""Value representations of an implicit VR data set, and byte order by value representation.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section 6.2 and Annex A.1 and A.2; the data dictionaries are pydicom's (PS3.6 and the
private ones it collects).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from pydicom.datadict import dictionary_VR, private_dictionary_VR

WORD_BYTES = {
    b"AT": 2, b"US": 2, b"SS": 2, b"OW": 2,
    b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4,
    b"FD": 8, b"OD": 8, b"SV": 8, b"UV": 8, b"OV": 8,
}  # fmt: skip
"""Unit of byte order in bytes; a VR that is not here is a string of bytes (PS3.5 7.3)."""

TEXT_VRS = frozenset(
    b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split()
)  # padded with a space, everything else with a zero byte (PS3.5 6.2)

SAMPLE_BITS_TAGS = {
    0x7FE00010: 0x00280100,  # Pixel Data: Bits Allocated
    0x54001010: 0x54001004,  # Waveform Data: Waveform Bits Allocated
}
"""Data whose samples may be larger than the words of their VR, and what says how large."""


def sample_word_bytes(vr: bytes, sample_bits: int) -> int | None:
    """Return the unit of byte order of big endian samples in bytes, or None where readers differ.

    OW is a string of 16-bit words (PS3.5 6.2), so DCMTK and Orthanc swap in pairs also samples of
    32 and 64 bits; others (pydicom among them) write and read those as whole words. More than 8
    bits are not allowed in OB (PS3.5 A.3), and read in both ways. A file does not tell which.
    """
    if vr == b"OW" and 1 <= sample_bits <= 16:
        return 2
    return 1 if vr == b"OB" and 1 <= sample_bits <= 8 else None


def shown(vr: bytes) -> str:
    """Return a VR for a message: nothing but the names of the standard."""
    name = vr.decode("ascii", "replace")
    return name if name.isalpha() and len(name) == 2 else "an unknown VR"


_LUT_DATA = 0x00283006
_GRAY_LOOKUP = 0x00281200


@lru_cache(maxsize=16_384)
def public_vr(tag: int) -> str:
    """Return the dictionary's VR of a public tag ("US or SS" and the like where it depends)."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


@lru_cache(maxsize=16_384)
def private_vr(tag: int, creator: str) -> str:
    """Return the VR of a private tag of this creator, "UN" if none was published."""
    try:
        return private_dictionary_VR(tag, creator)
    except KeyError:
        return "UN"


def implicit_vr(tag: int, *, creator: str | None, signed: bool, lut_entries: int | None) -> bytes:
    """Return the VR to write for an element that came without one.

    ``creator`` is the private creator that reserved the block, or None. ``signed`` is Pixel
    Representation of the data set or of the one it is nested in. ``lut_entries`` is the first
    value of LUT Descriptor in the same item.
    """
    group, number = tag >> 16, tag & 0xFFFF
    if group & 1:
        if 0x10 <= number <= 0xFF:
            return b"LO"
        name = "UN" if creator is None else private_vr(tag, creator)
    else:
        name = public_vr(tag)
    if len(name) == 2:
        return name.encode()
    if name == "US or SS":
        return b"SS" if signed else b"US"
    if tag in (_LUT_DATA, _GRAY_LOOKUP) and lut_entries == 1:
        return b"SS" if signed and "SS" in name else b"US"
    if "OW" in name:
        return b"OW"  # PS3.5 A.1: what implicit VR means by "OB or OW" and "US or OW"
    return b"UN"


def swapped(value: memoryview, word_bytes: int) -> bytes:
    """Return ``value`` with the bytes of each word reversed; a rest shorter than a word is kept."""
    whole = len(value) - len(value) % word_bytes
    words = np.frombuffer(value[:whole], dtype=f"u{word_bytes}").byteswap()
    return words.tobytes() + bytes(value[whole:])

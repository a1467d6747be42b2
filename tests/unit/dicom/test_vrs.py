"""Value representations: which are text, which have words, and what private elements are."""

from __future__ import annotations

import pytest

from bridge.dicom.vrs import TEXT_VRS, WORD_BYTES, implicit_vr


def test_every_vr_of_the_standard_is_text_words_or_bytes() -> None:
    """PS3.5 6.2: text is padded with a space; UI, OB, UN and SQ are neither text nor words."""
    text = "AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT"
    assert {vr.decode() for vr in TEXT_VRS} == set(text.split())
    words = {2: "AT US SS OW", 4: "UL SL FL OF OL", 8: "FD OD SV UV OV"}
    found = {
        size: {vr.decode() for vr, width in WORD_BYTES.items() if width == size} for size in words
    }
    assert found == {size: set(names.split()) for size, names in words.items()}
    assert len(WORD_BYTES) == 14


@pytest.mark.parametrize(
    ("number", "vr"),
    [
        (0x000F, b"UN"),
        (0x0010, b"LO"),
        (0x0020, b"LO"),
        (0x0080, b"LO"),
        (0x00FF, b"LO"),
        (0x0100, b"UN"),
        (0x1010, b"UN"),
    ],
)
def test_all_of_a_private_groups_creators_are_names(number: int, vr: bytes) -> None:
    """PS3.5 7.8.1: (gggg,0010) to (gggg,00FF) reserve blocks."""
    tag = 0x0009 << 16 | number
    assert implicit_vr(tag, creator=None, signed=False, lut_entries=None) == vr


@pytest.mark.parametrize(
    ("tag", "entries", "signed", "vr"),
    [
        (0x00283006, 1, False, b"US"),
        (0x00283006, 1, True, b"US"),
        (0x00283006, 2, False, b"OW"),
        (0x00283006, None, False, b"OW"),
        (0x00281200, 1, True, b"SS"),
        (0x00281200, 1, False, b"US"),
        (0x00281200, 3, True, b"OW"),
        # What lies beside a table of one entry is no such table.
        (0x7FE00010, 1, False, b"OW"),
        (0x54001010, 1, True, b"OW"),
        (0x60003000, 1, False, b"OW"),
        (0x00280106, 1, True, b"SS"),
    ],
)
def test_a_table_of_one_entry_is_a_number(
    tag: int, entries: int | None, *, signed: bool, vr: bytes
) -> None:
    """PS3.5 A.1, PS3.6: "US or OW", "US or SS or OW", "OB or OW", "US or SS"."""
    assert implicit_vr(tag, creator=None, signed=signed, lut_entries=entries) == vr

"""Text from outside: bounded, valid, and shown as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.untrusted_text import CUT, cleaned, shortened, uid_or_nothing, visible, visible_lines

anything = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


@given(anything, st.integers(3, 50))
def test_cleaned_text_is_valid_and_bounded(text: str, longest: int) -> None:
    made = cleaned(text, longest)
    made.encode("utf-8")
    assert len(made) <= longest
    assert made.removesuffix(CUT)[:1] == text[:1] or "\ufffd" in made or made == CUT


@pytest.mark.parametrize(("length", "kept"), [(9, 9), (10, 10), (11, 10), (100, 10)])
def test_what_is_cut_says_so(length: int, kept: int) -> None:
    made = shortened("x" * length, 10)
    assert len(made) == kept
    assert made.endswith(CUT) == (length > 10)


def test_every_character_of_unicode_that_acts_or_hides_is_written_out() -> None:
    for code in range(0x110000):
        character = chr(code)
        hidden = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
        if not hidden or 0x600 <= code <= 0x8FF or code in {0x110BD, 0x110CD}:
            continue  # signs of Arabic, Syriac and Kaithi are seen, before a number
        if 0x13430 <= code <= 0x1345F or 0x1BCA0 <= code <= 0x1BCA3 or 0x1D173 <= code <= 0x1D17A:
            continue  # they join hieroglyphs, shorthand and notes, and nothing else
        assert visible(character) != character, hex(code)


@pytest.mark.parametrize("text", ["Orthanc", "1.12.10", "Röntgen Süd", "放射線科", "a [b] c\\d"])
def test_what_is_seen_stays(text: str) -> None:
    assert visible(text) == text


def test_lines_of_ours_stay_lines() -> None:
    assert visible_lines("a\n\tb\x1b[31m\rc") == "a\n\tb\\x1b[31m\\rc"
    assert visible("a\nb") == "a\\nb"


@given(anything)
def test_what_is_shown_is_valid_and_one_line(text: str) -> None:
    made = visible(text)
    made.encode("utf-8")
    assert len(made.splitlines()) <= 1
    assert visible(made) == made


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("1.2.3", True),
        ("2.25.0", True),
        ("1." + "1" * 62, True),
        ("1." + "1" * 63, False),
        ("DOE^JOHN", False),
        ("1.2\n", False),
        ("1", False),
        ("19331231", False),
        ("1.2.019331231", False),
        ("0019331231", False),
        ("4.2", False),
        ("1..2", False),
        ("1.2.", False),
        ("1.\u0663", False),
    ],
)
def test_a_uid_or_nothing(text: str, uid: bool) -> None:
    assert uid_or_nothing(text) == (text if uid else "")

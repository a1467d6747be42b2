"""Sorting on disk, and reading two sorted streams side by side."""

from __future__ import annotations

import resource

import pytest

from bridge.checks.disk_lists import SortedTexts, joined, with_recorded


def test_sorted_texts_are_sorted_unique_and_readable_again() -> None:
    with SortedTexts() as texts:
        texts.add(["c", "a", "b", "a"])
        texts.add(["d", "a", "c"])
        assert list(texts) == ["a", "b", "c", "d"]
        assert list(texts) == ["a", "b", "c", "d"]


@pytest.mark.slow
def test_more_texts_than_memory_is_used_for() -> None:
    count = 200_000
    with SortedTexts() as texts:
        texts.add(f"{number * 7919 % count:044}" for number in range(count))
        texts.add([f"{0:044}", f"{count // 2:044}", f"{count - 1:044}"])
        assert all(text == f"{number:044}" for number, text in enumerate(texts))
        assert sum(1 for _ in texts) == count


def test_without_room_in_tmpdir_the_system_error_is_told() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SortedTexts() as texts:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(OSError, match=r"full|I/O"):
                texts.add(f"{number:044}" for number in range(200_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        ("", "", ""),
        ("abc", "", "a< b< c<"),
        ("", "ab", "a> b>"),
        ("ace", "bcd", "a< b> c= d> e<"),
        ("abc", "abc", "a= b= c="),
    ],
)
def test_joining_two_streams(left: str, right: str, both: str) -> None:
    signs = {(True, True): "=", (True, False): "<", (False, True): ">"}
    assert " ".join(text + signs[a, b] for text, a, b in joined(left, right)) == both


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ("", "b< c> e="),
        ("abcdefg", "a- b< c> d- e= f- g-"),
        ("ce", "b< c> e="),
        ("fg", "b< c> e= f- g-"),
        ("a", "a- b< c> e="),
    ],
)
def test_what_is_only_on_record_stands_in_its_place(recorded: str, told: str) -> None:
    signs = {(True, False): "<", (False, True): ">", (True, True): "=", (False, False): "-"}
    found = with_recorded(joined("be", "ce"), recorded)
    assert " ".join(f"{text}{signs[left, right]}" for text, left, right in found) == told
    assert [text for text, _, _ in with_recorded([], recorded)] == list(recorded)

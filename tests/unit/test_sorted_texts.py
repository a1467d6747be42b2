"""Sorting on disk, and reading two sorted streams side by side."""

from __future__ import annotations

import pytest

from bridge.sorted_texts import SortedTexts, joined


@pytest.mark.parametrize("run_texts_max", [1, 3, 1000])
def test_sorted_texts_are_sorted_unique_and_readable_again(run_texts_max: int) -> None:
    with SortedTexts(run_texts_max=run_texts_max) as texts:
        texts.add(["c", "a", "b", "a"])
        texts.add(["d", "a", "c"])
        assert list(texts) == ["a", "b", "c", "d"]
        assert list(texts) == ["a", "b", "c", "d"]


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

"""What is told in pages, by identifier, of what is asked for in that order."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from bridge.checks.described_in_order import DescribedInOrder
from bridge.model import Described

NAMES = [f"i{number:03d}" for number in range(100)]


def described(name: str) -> Described:
    return Described({"name": name}, len(name))


def pages(
    names: list[str], size: int, read: list[int] | None = None
) -> Iterator[dict[str, Described]]:
    for at in range(0, len(names), size):
        if read is not None:
            read.append(at)
        yield {name: described(name) for name in names[at : at + size]}


@pytest.mark.parametrize("size", [1, 7, 99, 100, 101])
@pytest.mark.parametrize("batch", [1, 10, 100])
def test_each_is_found_whatever_the_pages(size: int, batch: int) -> None:
    told = DescribedInOrder(pages(NAMES, size))
    for at in range(0, len(NAMES), batch):
        asked = NAMES[at : at + batch]
        assert told.of(asked) == {name: described(name) for name in asked}


def test_pages_are_read_as_far_as_is_asked_and_what_is_passed_is_let_go() -> None:
    read: list[int] = []
    told = DescribedInOrder(pages(NAMES, 10, read))
    assert told.of([]) == {}
    assert read == []
    assert told.of(NAMES[3:5]) == {name: described(name) for name in NAMES[3:5]}
    assert read == [0]
    assert told.of(NAMES[41:42]) == {NAMES[41]: described(NAMES[41])}
    assert read == [0, 10, 20, 30, 40]
    assert set(told._known) == set(NAMES[42:50])
    assert told.of(NAMES[-1:]) == {NAMES[-1]: described(NAMES[-1])}
    assert told.of(["j"]) == {}


def test_what_came_or_was_passed_over_is_not_told() -> None:
    left = NAMES[::3]
    told = DescribedInOrder(pages(left, 7))
    assert set(told.of(NAMES[:50])) == {name for name in left if name < NAMES[50]}
    assert set(told.of(NAMES[50:])) == {name for name in left if name >= NAMES[50]}


def test_what_stands_on_two_pages_is_told_once() -> None:
    """Others have arrived before it, so that the next page begins with it again."""
    again = [*NAMES[:10], *NAMES[5:]]
    told = DescribedInOrder(pages(again, 5))
    assert list(told.of(NAMES[:12])) == NAMES[:12]
    assert list(told.of(NAMES[12:])) == NAMES[12:]


def test_pages_in_another_order_are_not_believed_to_be_all() -> None:
    mixed = NAMES.copy()
    random.Random(1).shuffle(mixed)
    read: list[int] = []
    told = DescribedInOrder(pages(mixed, 10, read))
    found = told.of(NAMES[:50])
    assert all(told == described(name) for name, told in found.items())
    assert told.of(NAMES[50:]) == {}
    assert read == [0], "they are not read to their end for nothing"

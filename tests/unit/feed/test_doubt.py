"""A feed that looks like another one for a moment is looked at again before that is believed."""

from __future__ import annotations

import pytest

from bridge.feed.identity import KnownPlace, Place
from bridge.feed.polling import DOUBT_FIRST_S, DOUBT_LONGEST_S, GOOD_LOOKS, Doubt
from bridge.feed.sources import LookAgain
from tests.feed_client import StoreClient, feed_of

CONFIRM_S = 30.0


def looks(doubt: Doubt, now_s: float, answers: list[bool]) -> tuple[float, bool | None]:
    """Look as often as there are answers; tells when it ended, and whether the feed is trusted.

    None: neither, the answers were not enough.
    """
    for ours in answers:
        pause_s = doubt.pause_s(now_s)
        if pause_s <= 0:
            return now_s, False
        now_s += pause_s
        if doubt.look(now_s, ours=ours):
            return now_s, True
    return now_s, False if doubt.pause_s(now_s) <= 0 else None


def test_it_is_believed_after_it_was_so_for_all_the_time_and_no_sooner() -> None:
    doubt = Doubt(CONFIRM_S)
    doubt.begin(1000.0)
    pauses_s, now_s = [], 1000.0
    while (pause_s := doubt.pause_s(now_s)) > 0:
        pauses_s.append(pause_s)
        now_s += pause_s
        assert not doubt.look(now_s, ours=False)
    assert pauses_s == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0, 3.0]
    assert (pauses_s[0], max(pauses_s)) == (DOUBT_FIRST_S, DOUBT_LONGEST_S)
    assert now_s == 1000.0 + CONFIRM_S


def test_no_time_believes_at_once() -> None:
    doubt = Doubt(0.0)
    doubt.begin(5.0)
    assert doubt.pause_s(5.0) == 0.0


@pytest.mark.parametrize(
    ("answers", "trusted"),
    [
        ([True, True], True),
        ([True, False, True], None),
        ([False, True, False, True, True], True),
        ([True, False] * 6, False),
        ([False] * 12, False),
    ],
)
def test_it_is_trusted_after_some_good_looks_in_a_row(
    answers: list[bool], trusted: bool | None
) -> None:
    assert GOOD_LOOKS == 2
    doubt = Doubt(CONFIRM_S)
    doubt.begin(0.0)
    assert looks(doubt, 0.0, answers)[1] is trusted


def test_one_that_is_soon_contradicted_again_goes_on_with_the_first_doubt() -> None:
    """Two servers at one address, met by chance: the third time it is believed."""
    doubt, now_s = Doubt(CONFIRM_S), 0.0
    for _ in range(2):
        doubt.begin(now_s)
        now_s, trusted = looks(doubt, now_s, [False, True, True])
        assert trusted
        now_s += 9.0
    doubt.begin(now_s)
    assert now_s > CONFIRM_S
    assert doubt.pause_s(now_s) == 0.0


def test_one_that_was_followed_for_long_is_doubted_anew() -> None:
    doubt = Doubt(CONFIRM_S)
    doubt.begin(0.0)
    now_s, trusted = looks(doubt, 0.0, [False, True, True])
    assert trusted
    now_s += CONFIRM_S
    doubt.begin(now_s)
    assert doubt.pause_s(now_s) == DOUBT_FIRST_S
    assert looks(doubt, now_s, [False] * 12)[0] == now_s + CONFIRM_S


def test_a_look_is_made_on_new_connections() -> None:
    source = StoreClient(feed_of(1, 2))
    asked: list[int] = []
    known = KnownPlace(source, Place(2, ((1, "i1"), (2, "i2"))), overlap=10)
    again = LookAgain(known, renew=lambda: asked.append(len(source.asked)))
    page = again.next_page()
    assert asked == [0], "they are closed before anything is asked"
    assert source.asked
    assert (page.moves, page.done, page.ended) == ((), True, True)

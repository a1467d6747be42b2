from __future__ import annotations

from bridge.pipeline.came_back import ROUND_S, ROUNDS_MAX, SOON_S, Deliveries


def test_what_was_delivered_is_known_and_the_oldest_is_forgotten() -> None:
    deliveries = Deliveries(remembered_max=3)
    for number in range(4):
        deliveries.note(f"i{number}", 0.0, file="")
    assert [deliveries.known(f"i{number}") for number in range(5)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    deliveries.note("i1", 1.0, file="")
    deliveries.note("i4", 2.0, file="")
    assert deliveries.known("i1"), "delivered again a moment ago"
    assert not deliveries.known("i2")


def test_soon_is_ten_minutes() -> None:
    deliveries = Deliveries()
    deliveries.note("i", 100.0, file="")
    assert deliveries.soon("i", 100.0 + SOON_S, file="")
    assert not deliveries.soon("i", 100.1 + SOON_S, file="")
    assert not deliveries.soon("other", 100.0, file="")


def test_ten_deliveries_within_an_hour_are_a_round_and_nine_are_none() -> None:
    deliveries = Deliveries()
    for number in range(ROUNDS_MAX):
        assert deliveries.rounds("i", 60.0 * number) == 0
        deliveries.note("i", 60.0 * number, file="")
    assert deliveries.rounds("i", 600.0) == ROUNDS_MAX
    assert deliveries.rounds("other", 600.0) == 0
    assert deliveries.rounds("i", ROUND_S + 1.0) == 0
    deliveries.note("i", ROUND_S + 1.0, file="")
    assert deliveries.rounds("i", ROUND_S + 1.0) == 0, "counted anew"


def test_what_is_recalled_is_known_and_neither_new_nor_a_round() -> None:
    deliveries = Deliveries(remembered_max=3)
    deliveries.note("mine", 5.0, file="")
    deliveries.recall(["a", "mine", "b"])
    assert all(map(deliveries.known, ["a", "b", "mine"]))
    assert deliveries.soon("mine", 6.0, file="")
    assert not deliveries.soon("a", 6.0, file="")
    assert deliveries.rounds("a", 6.0) == 0
    for number in range(ROUNDS_MAX):
        deliveries.note("a", 10.0 + number, file="")
    assert deliveries.rounds("a", 30.0) == ROUNDS_MAX
    deliveries.recall(str(number) for number in range(10))
    assert sum(deliveries.known(str(number)) for number in range(10)) == 3


def test_the_file_that_was_delivered_has_not_come_again() -> None:
    deliveries = Deliveries()
    deliveries.note("i", 100.0, file="first")
    deliveries.note("i", 101.0, file="last")
    assert not deliveries.soon("i", 102.0, file="last")
    assert deliveries.soon("i", 102.0, file="first")
    assert deliveries.soon("i", 102.0, file=""), "where it is not told"
    deliveries.note("i", 103.0, file="")
    assert deliveries.soon("i", 104.0, file="last")

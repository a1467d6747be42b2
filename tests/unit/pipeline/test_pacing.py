from __future__ import annotations

import pytest

from bridge.pipeline.pacing import Bucket


def test_no_limit_never_holds() -> None:
    bucket = Bucket(0.0, now_s=0.0)
    bucket.charge(10**12, now_s=0.0)
    assert bucket.ready_in_s(now_s=0.0) == 0.0


def test_the_average_is_the_rate() -> None:
    bucket, now_s, passed = Bucket(10.0, now_s=0.0), 0.0, 0
    while now_s < 100.0:
        wait_s = bucket.ready_in_s(now_s=now_s)
        if wait_s == 0.0:
            bucket.charge(1, now_s=now_s)
            passed += 1
        now_s += max(wait_s, 0.001)
    assert passed == pytest.approx(1000, abs=15)


def test_a_large_one_is_paid_for_afterwards() -> None:
    bucket = Bucket(100.0, now_s=0.0)
    bucket.charge(600.0, now_s=0.0)
    assert bucket.ready_in_s(now_s=0.0) == pytest.approx(5.0)
    assert bucket.ready_in_s(now_s=5.1) == 0.0


def test_nothing_is_saved_up_for_a_burst() -> None:
    bucket = Bucket(10.0, now_s=0.0)
    for _ in range(11):
        bucket.charge(1, now_s=3600.0)
    assert bucket.ready_in_s(now_s=3600.0) > 0


def test_a_rate_below_one_a_second_lets_one_through_at_a_time() -> None:
    bucket = Bucket(0.1, now_s=0.0)
    assert bucket.ready_in_s(now_s=0.0) == 0.0
    bucket.charge(1, now_s=0.0)
    assert bucket.ready_in_s(now_s=0.0) == pytest.approx(9.0, abs=0.1)


def test_what_was_used_up_to_the_last_unit_holds() -> None:
    bucket = Bucket(4.0, now_s=0.0)
    bucket.charge(3.0, now_s=0.0)
    assert bucket.ready_in_s(now_s=0.0) == 0.0
    bucket.charge(1.0, now_s=0.0)
    assert 0.0 < bucket.ready_in_s(now_s=0.0) < 0.001


def test_a_rate_below_one_a_second_saves_up_one() -> None:
    """And no second one, however long nothing came."""
    bucket = Bucket(0.5, now_s=0.0)
    bucket.charge(1.0, now_s=3600.0)
    assert bucket.ready_in_s(now_s=3600.0) > 0.0

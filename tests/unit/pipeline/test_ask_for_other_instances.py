"""How the source serves other instances: what its list and its files tell."""

from __future__ import annotations

import itertools

import pytest

from bridge.errors import SideError, side_error
from bridge.model import SideName, SideProblem
from bridge.pipeline.ask_for_other_instances import ASKED_MAX, FailedFile, ask_for_another
from bridge.pipeline.failure_policy import SOLE_MAX, Others


class Source:
    """Lists some instances, and gives the files of some."""

    def __init__(self, listed: str, served: str) -> None:
        self.listed, self.served = listed, served
        self.asked: list[str] = []

    def list_instances(self, since: int, limit: int) -> list[str]:
        assert (since, limit) == (0, 100), "whatever the source holds"
        return list(self.listed)[since : since + limit]

    def serves_whole_file(self, instance_id: str, *, with_metadata: bool) -> bool:
        assert not with_metadata
        self.asked.append(instance_id)
        return instance_id in self.served


@pytest.mark.parametrize(
    ("listed", "served", "expected"),
    [
        ("bxyz", "xyz", Others.WELL),
        ("xyzb", "xyz", Others.WELL),
        ("bx", "", Others.NONE),
        ("b", "b", Others.SOLE),
        # A list without even the instance that failed: a page of a proxy, say, or another server.
        ("", "", Others.NONE),
    ],
)
def test_what_is_told(listed: str, served: str, expected: Others) -> None:
    for chance in (0.0, 0.5, 1.0):
        source = Source(listed, served)
        found = ask_for_another(source, FailedFile("b"), chance=itertools.repeat(chance).__next__)
        assert found is expected
        assert "b" not in source.asked


def test_few_files_are_asked_for() -> None:
    source = Source("abcdefghij", "")
    assert ask_for_another(source, FailedFile("b"), chance=lambda: 0.9) is Others.NONE
    assert len(source.asked) == len(set(source.asked)) == ASKED_MAX


@pytest.mark.parametrize(
    ("listed", "failing", "lost", "expected"),
    [
        ("bx", "x", "", Others.ABSENT),
        ("x", "x", "", Others.ABSENT),
        ("bp", "", "p", Others.SOLE),
        ("bpq", "", "pq", Others.SOLE),
        ("bpqr", "", "pqr", Others.NONE),
        ("bpx", "x", "p", Others.ABSENT),
        ("p", "", "p", Others.ABSENT),
        # Deleted at the source meanwhile, all or some of them.
        ("b", "", "pqr", Others.ABSENT),
        ("br", "", "pqr", Others.NONE),
        ("b", "", "pq", Others.SOLE),
    ],
)
def test_what_is_lost_is_no_disk_that_is_away_until_it_is_too_much(
    listed: str, failing: str, lost: str, expected: Others
) -> None:
    assert len("pqr") == SOLE_MAX
    failed = FailedFile("b", frozenset(failing), frozenset(lost), len(lost))
    assert ask_for_another(Source(listed, ""), failed, chance=lambda: 0.5) is expected


@pytest.mark.parametrize(
    ("listed", "lost", "in_a_row", "expected"),
    [
        # Many were lost, and files were given in between.
        ("bpqrst", "pqrst", 0, Others.SOLE),
        ("bpqrst", "pqrst", SOLE_MAX - 1, Others.SOLE),
        ("bpqrst", "pqrst", SOLE_MAX, Others.NONE),
        # None of them is there any more.
        ("b", "pqrst", 0, Others.SOLE),
        ("b", "pqrst", SOLE_MAX - 1, Others.SOLE),
        ("b", "pqrst", SOLE_MAX, Others.ABSENT),
        ("b", "", SOLE_MAX, Others.ABSENT),
        ("b", "", SOLE_MAX + 1, Others.ABSENT),
    ],
)
def test_what_counts_is_how_many_were_lost_in_a_row(
    listed: str, lost: str, in_a_row: int, expected: Others
) -> None:
    failed = FailedFile("b", frozenset(), frozenset(lost), in_a_row)
    assert ask_for_another(Source(listed, ""), failed, chance=lambda: 0.5) is expected


def test_another_file_that_comes_tells_however_many_were_lost() -> None:
    failed = FailedFile("b", frozenset(), frozenset("pqr"), SOLE_MAX)
    assert ask_for_another(Source("bx", "x"), failed, chance=lambda: 0.5) is Others.WELL


@pytest.mark.parametrize(
    ("problem", "told"),
    [(SideProblem.FORBIDDEN, True), (SideProblem.NOT_FOUND, True), (SideProblem.TIMED_OUT, False)],
)
def test_a_login_that_may_not_list_is_no_trouble(problem: SideProblem, told: bool) -> None:
    class Unlisted(Source):
        def list_instances(self, since: int, limit: int) -> list[str]:
            assert limit > since == 0
            raise side_error(SideName.SOURCE, problem, "no")

    if told:
        source = Unlisted("", "")
        assert ask_for_another(source, FailedFile("b"), chance=lambda: 0.5) is Others.NONE
        return
    with pytest.raises(SideError):
        ask_for_another(Unlisted("", ""), FailedFile("b"), chance=lambda: 0.5)

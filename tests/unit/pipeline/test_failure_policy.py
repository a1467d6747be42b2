from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bridge.feed.polling import backoff_s
from bridge.model import (
    Action,
    AnswerKind,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
    answer_of,
)
from bridge.pipeline.failure_policy import (
    BLAMES,
    DELAY_FIRST_S,
    Decision,
    Defer,
    Limits,
    Others,
    Park,
    PauseSide,
    RetryLater,
    Settle,
    decide,
    delay_s,
)

LIMITS = Limits(attempts_max=3, retry_first_s=1.0, retry_longest_s=60.0)
DONE = Delivered("Success", Action.UNCHANGED, "1.2", "1.2", "1.2.3", 1, 1, StageTimes())
BROKEN = InstanceFailed(Reason.UNDECODABLE, "broken", final=True)
FLAKY = InstanceFailed(Reason.WORKER_DIED, "died")
DOWN = SideFailed(SideName.TARGET, SideProblem.UNREACHABLE, "refused")
LIMIT_413 = SideFailed(SideName.TARGET, SideProblem.BODY_LIMIT, "413")
ERROR_500 = SideFailed(SideName.TARGET, SideProblem.SERVER_ERROR, "500", specific=True)


@pytest.mark.parametrize(
    ("outcome", "attempts", "served_others", "expected"),
    [
        # Finished is finished, however many attempts it took.
        (DONE, 0, False, Settle()),
        (DONE, 2, False, Settle()),
        (Skipped(Reason.GONE), 0, False, Settle()),
        # The bytes are what they are: a second look cannot help.
        (BROKEN, 0, False, Park(Reason.UNDECODABLE, "broken", 1)),
        # A lost worker may have been bad luck: the attempts of the setting, then parked.
        (FLAKY, 0, False, RetryLater(1.0, 1)),
        (FLAKY, 1, False, RetryLater(2.0, 2)),
        (FLAKY, 2, False, Park(Reason.WORKER_DIED, "died", 3)),
        # An outage spends nothing, ever (G4).
        (DOWN, 0, False, PauseSide(SideName.TARGET, SideProblem.UNREACHABLE)),
        (DOWN, 2, True, PauseSide(SideName.TARGET, SideProblem.UNREACHABLE)),
        # An error 500 is an outage until the server is seen to serve others.
        (ERROR_500, 0, False, PauseSide(SideName.TARGET, SideProblem.SERVER_ERROR)),
        (ERROR_500, 0, True, RetryLater(1.0, 1)),
        (
            ERROR_500,
            2,
            True,
            Park(
                Reason.SERVER_REFUSES_INSTANCE,
                "The target serves other instances, but not this one: 500",
                3,
            ),
        ),
        # A limit on the way is an outage, until others are seen to pass: then this one waits,
        # for ever if need be, and is never parked.
        (LIMIT_413, 0, False, PauseSide(SideName.TARGET, SideProblem.BODY_LIMIT)),
        (LIMIT_413, 2, True, Defer(DELAY_FIRST_S)),
        # The pool's own trouble is not the instance's.
        (ExecutorFailed("pool"), 2, False, RetryLater(1.0, 2)),
        # Nor is a disk that is full; but it is asked for more and more seldom.
        (ExecutorFailed("no room", specific=True), 2, False, Defer(1.0)),
    ],
)
def test_decide(outcome: Outcome, attempts: int, served_others: bool, expected: Decision) -> None:
    others = Others.SERVED if served_others else Others.NONE
    got = decide(outcome, attempts=attempts, limits=LIMITS, others=others)
    assert got == expected


@pytest.mark.parametrize(
    ("count", "chance", "expected_s"),
    [(1, 1.0, 1.0), (1, 0.0, 0.5), (3, 1.0, 4.0), (6, 1.0, 10.0), (5000, 0.0, 5.0)],
)
def test_backoff_doubles_up_to_its_limit(count: int, chance: float, expected_s: float) -> None:
    assert backoff_s(count, first_s=1.0, longest_s=10.0, chance=chance) == expected_s


def failed(problem: SideProblem, *, specific: bool = False, begun: bool = False) -> SideFailed:
    return SideFailed(SideName.SOURCE, problem, "seen", specific=specific, begun=begun)


ANSWERS = {
    AnswerKind.SILENCE: [
        failed(SideProblem.UNREACHABLE),
        failed(SideProblem.TIMED_OUT, begun=True),
        failed(SideProblem.TLS),
    ],
    AnswerKind.SETTING: [
        failed(SideProblem.LOGIN_REFUSED),
        failed(SideProblem.FORBIDDEN),
        failed(SideProblem.NOT_FOUND),
        failed(SideProblem.REDIRECTED),
    ],
    AnswerKind.LIMIT: [
        failed(SideProblem.BODY_LIMIT),
        failed(SideProblem.STORAGE_FULL),
        failed(SideProblem.SERVER_ERROR),
        failed(SideProblem.SERVER_ERROR, begun=True),
        failed(SideProblem.NOT_ORTHANC),
    ],
    AnswerKind.ERROR: [failed(SideProblem.SERVER_ERROR, specific=True)],
    AnswerKind.NOT_OURS: [failed(SideProblem.NOT_ORTHANC, specific=True)],
}
PAUSE, SPEND, WAIT = PauseSide, RetryLater, Defer
EXPECTED: dict[AnswerKind, dict[Others, type[Decision]]] = {
    answer: dict(zip(Others, row, strict=True))
    for answer, row in {
        # others: served, well, sole, absent, none
        AnswerKind.SILENCE: (PAUSE, PAUSE, PAUSE, PAUSE, PAUSE),
        AnswerKind.SETTING: (WAIT, WAIT, PAUSE, PAUSE, PAUSE),
        AnswerKind.LIMIT: (WAIT, WAIT, PAUSE, PAUSE, PAUSE),
        AnswerKind.ERROR: (SPEND, SPEND, SPEND, PAUSE, PAUSE),
        AnswerKind.NOT_OURS: (SPEND, SPEND, SPEND, SPEND, PAUSE),
    }.items()
}
"""Written out here once more: the table in the code is what is tested."""


def test_every_problem_is_some_kind_of_answer() -> None:
    covered = {(f.problem, answer) for answer, failures in ANSWERS.items() for f in failures}
    assert {problem for problem, _ in covered} == set(SideProblem)
    for answer, failures in ANSWERS.items():
        assert {answer_of(failure) for failure in failures} == {answer}


@pytest.mark.parametrize("others", Others, ids=lambda others: others.name.lower())
@pytest.mark.parametrize("answer", AnswerKind, ids=lambda answer: answer.name.lower())
def test_whose_fault_it_is(answer: AnswerKind, others: Others) -> None:
    for failure in ANSWERS[answer]:
        decision = decide(failure, attempts=1, limits=LIMITS, others=others)
        assert type(decision) is EXPECTED[answer][others]
        if isinstance(decision, RetryLater):
            assert decision == RetryLater(2.0, 2)
            last = decide(failure, attempts=2, limits=LIMITS, others=others)
            assert isinstance(last, Park)
            assert (last.reason, last.attempts) == (Reason.SERVER_REFUSES_INSTANCE, 3)
            claimed = "serves other instances" in last.message
            assert claimed is (others is Others.SERVED), "nothing is claimed that was not seen"


@pytest.mark.parametrize("others", Others, ids=lambda others: others.name.lower())
@pytest.mark.parametrize("answer", AnswerKind, ids=lambda answer: answer.name.lower())
def test_what_an_instance_did_that_was_alone_with_a_server(
    answer: AnswerKind, others: Others
) -> None:
    """A server that died of it is its fault; so is silence at it while others are served."""
    for failure in ANSWERS[answer]:
        died = decide(failure, attempts=2, limits=LIMITS, others=others, alone=True, died=True)
        assert isinstance(died, Park)
        assert died.reason is Reason.SOURCE_DIED
        decision = decide(failure, attempts=0, limits=LIMITS, others=others, alone=True)
        silent = answer is AnswerKind.SILENCE and others in (Others.SERVED, Others.WELL)
        assert type(decision) is (RetryLater if silent else EXPECTED[answer][others])


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_what_is_held_is_tried_twelve_times_in_a_minute_and_then_once_a_minute(
    chance: float,
) -> None:
    at_s, tries = 0.0, [0.0]
    while at_s < 3600.0:
        at_s += delay_s(len(tries), chance=chance)
        tries.append(at_s)
    assert 6 <= sum(at_s < 60.0 for at_s in tries) <= 12
    late = [at_s for at_s in tries if at_s >= 60.0]
    assert all(later - earlier > 59.99 for earlier, later in itertools.pairwise(late))
    assert len(late) > 40, "and is not forgotten either"


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_who_had_few_attempts_in_the_first_minute_has_no_more_later(chance: float) -> None:
    """Others were tried meanwhile, say; found by the simulation."""
    limit = failed(SideProblem.BODY_LIMIT)
    for delays in (0, 1, 5, 20):
        early, late = (
            decide(
                limit,
                attempts=0,
                limits=LIMITS,
                delays=delays,
                delayed_s=s,
                others=Others.SERVED,
                chance=chance,
            )
            for s in (59.9, 60.0)
        )
        assert early == Defer(delay_s(delays + 1, chance=chance))
        assert late == Defer(delay_s(max(delays + 1, 10), chance=chance))
        assert isinstance(late, Defer)
        assert late.after_s > 59.99


def test_a_deferred_instance_keeps_its_growing_pauses() -> None:
    limit = failed(SideProblem.BODY_LIMIT)
    for delays in (0, 3, 20):
        decision = decide(limit, attempts=0, limits=LIMITS, delays=delays, others=Others.SERVED)
        assert decision == Defer(delay_s(delays + 1, chance=1.0))


def test_the_page_about_faults_has_the_same_table() -> None:
    page = (Path(__file__).parents[3] / "docs/faults.md").read_text("utf-8")
    section = page.partition("## The table")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()]
    shown = {row[0]: row[2:7] for row in rows if len(row) == 7}
    assert shown["answer"] == [str(others) for others in Others]
    for answer in AnswerKind:
        assert shown[str(answer)] == [str(BLAMES[answer][others]) for others in Others]


@pytest.mark.parametrize("side", SideName)
def test_a_death_is_tried_again_before_it_is_parked(side: SideName) -> None:
    """Its reason, its message, its attempts and its pause."""
    reason = {SideName.SOURCE: Reason.SOURCE_DIED, SideName.TARGET: Reason.TARGET_DIED}[side]
    failure = SideFailed(side, SideProblem.UNREACHABLE, "it hung up")
    limits = Limits(attempts_max=3, retry_first_s=8.0, retry_longest_s=60.0)

    def after(attempts: int) -> Decision:
        return decide(failure, attempts=attempts, limits=limits, alone=True, died=True, chance=0.0)

    assert after(0) == RetryLater(4.0, 1)
    assert after(1) == RetryLater(8.0, 2)
    assert after(2) == Park(reason, "it hung up", 3)

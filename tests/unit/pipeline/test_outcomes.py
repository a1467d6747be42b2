"""What follows from the end of a task, one outcome at a time: three of everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import side_error
from bridge.events import (
    Event,
    InstanceParked,
    InstanceRetried,
    Settled,
    SideDown,
    Summary,
    WorkerLost,
)
from bridge.ledger.records import Attempts, DeliveryRecord, EndedAs, Kept, Parked, StudyNote
from bridge.model import (
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    ServerInfo,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    Study,
)
from bridge.pipeline.ask_for_other_instances import LISTED_MAX, FailedFile
from bridge.pipeline.failure_policy import SOLE_MAX, Limits, Others, delay_s
from bridge.pipeline.outcomes import OFF_S, OTHERS, TOLD_MAX, Outcomes
from bridge.pipeline.runtime import Answered, Found
from bridge.pipeline.server_gates import Servers
from bridge.pipeline.window import Window, WorkItem
from tests.pipeline_bench import DELIVERED, JOB, Time

INFO = ServerInfo("1", 1, has_extended_changes=False)
SOURCE, TARGET = SideName.SOURCE, SideName.TARGET
SILENT = SideFailed(TARGET, SideProblem.UNREACHABLE, "It is silent.", begun=True)
NOT_BEGUN = replace(SILENT, begun=False)
ERROR = SideFailed(
    TARGET, SideProblem.SERVER_ERROR, "It answers 500.", "Look there.", specific=True
)
LIMIT = replace(ERROR, specific=False)
AT_SOURCE = replace(ERROR, side=SOURCE)
BAD = InstanceFailed(Reason.UNDECODABLE, "It is bad.", final=True)
UNLUCKY = InstanceFailed(Reason.OUT_OF_MEMORY, "No memory.", False, "1.2.3", "1.2.3.4")


class Desk:
    """Outcomes among a real window and real servers; what is written, told and asked is kept."""

    def __init__(
        self,
        *,
        asks: bool = False,
        evidence: bool = False,
        keep_studies_s: float = 0.0,
        lost: tuple[str, ...] = ("old",),
        forgotten_before: float | None = None,
    ) -> None:
        self.time = Time(s=100.0)
        self.events: list[Event] = []
        self.settled: list[tuple[str, Parked | None, Kept | None]] = []
        self.records: list[DeliveryRecord | None] = []
        self.studies: list[StudyNote | None] = []
        self.spent: list[tuple[str, Attempts]] = []
        self.calls: list[tuple[str, Callable[[], Found]]] = []
        self.doubts: list[FailedFile] = []
        self.window = Window(10)
        self.servers = Servers(
            probes={
                side: lambda: ServerInfo("1", 1, has_extended_changes=False) for side in SideName
            },
            background=self,
            clock=self.time,
            observer=self,
            chance=lambda: 1.0,
            pause_longest_s=4.0,
        )
        for side in SideName:
            self.servers.take_probe(side, None, info=None, on_trial=False)
        self.outcomes = Outcomes(
            job=replace(JOB, keeps_evidence=evidence, keep_studies_s=keep_studies_s),
            limits=Limits(),
            window=self.window,
            servers=self.servers,
            journal=self,  # type: ignore[arg-type]
            background=self,
            observer=self,
            clock=self.time,
            chance=lambda: 1.0,
            ask_for_another=self._ask if asks else None,
            lost=lost,
            forgotten_before=forgotten_before,
        )
        self.summary = Summary()

    def _ask(self, doubt: FailedFile) -> Others:
        self.doubts.append(doubt)
        return Others.WELL

    def settle(
        self,
        move: Move,
        parked: Parked | None,
        kept: Kept | None = None,
        record: DeliveryRecord | None = None,
        study: StudyNote | None = None,
    ) -> None:
        self.settled.append((move.instance_id, parked, kept))
        self.records.append(record)
        self.studies.append(study)

    def spend(self, move: Move, attempts: Attempts) -> None:
        self.spent.append((move.instance_id, attempts))

    def call(self, name: str, function: Callable[[], Found]) -> None:
        self.calls.append((name, function))

    def close(self) -> None: ...

    def on_event(self, event: Event) -> None:
        self.summary.count(event)
        self.events.append(event)

    def on_progress(self, progress: object) -> None: ...

    def happened(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def item(self, number: int) -> WorkItem:
        item = WorkItem(number, Move(f"i{number}", number, f"at {number}"))
        self.outcomes.expect(item.move)
        return item

    def end(self, item: WorkItem, outcome: Outcome, *, alone: bool = False) -> WorkItem:
        self.outcomes.judge(item, outcome, alone=alone)
        return item

    def end_alone(self, item: WorkItem, outcome: Outcome) -> WorkItem:
        """End a suspect that the window has sent alone."""
        self.window.begin(item)
        ended = self.window.end(item.number)
        assert ended is not None
        return self.end(item, outcome, alone=ended.alone)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.settled]

    def refused(self) -> list[tuple[str, int, bool]]:
        return [(told.instance_id, told.times, told.alone) for told in self.outcomes.told()]


def other_ends(desk: Desk, number: int = 99) -> None:
    """Another instance is delivered: both servers serve."""
    desk.end(desk.item(number), DELIVERED)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Settled


def test_what_arrived_is_settled_counted_and_told(desk: Desk) -> None:
    item = desk.item(1)
    assert [desk.outcomes.changed_at(n) for n in (1, 2, None)] == ["at 1", "", ""]
    item.attempts = 2
    desk.time.s = 250.0
    desk.end(item, DELIVERED)
    assert desk.settled == [("i1", None, None)]
    assert desk.events == [Settled(item.move, DELIVERED, 3)]
    assert (desk.summary.delivered, desk.summary.already_there) == (1, 0)
    assert desk.outcomes.last_progress_at == 1_000_250.0
    assert desk.outcomes.changed_at(1) == ""
    assert [desk.servers.served_count(side) for side in SideName] == [1, 1]
    assert desk.outcomes.delivered_before(item)


def test_what_was_there_before_is_not_ours(desk: Desk) -> None:
    item = desk.end(desk.item(1), replace(DELIVERED, status="AlreadyStored"))
    assert (desk.summary.delivered, desk.summary.already_there) == (0, 1)
    assert not desk.outcomes.delivered_before(item)


def test_the_study_of_an_instance_is_noted_with_how_it_ended() -> None:
    desk = Desk(keep_studies_s=60.0)
    study, told = Study("1.2", "from-the-file"), Study("1.2", "from-the-target")
    failed = InstanceFailed(Reason.UNDECODABLE, "no", final=True, study=study)
    outcomes: list[Outcome] = [
        replace(DELIVERED, study=study),
        replace(DELIVERED, study=study, study_id="from-the-target"),
        Skipped(Reason.RULE, study=study),
        failed,
        DELIVERED,
        Skipped(Reason.RULE),
        replace(failed, study=None),
        Skipped(Reason.CAME_BACK, file_read=True, study=study),
        # Without a valid UID it is on record by its identifier, as far as that is known.
        replace(failed, study=Study("", "from-the-file")),
        replace(DELIVERED, study=Study("", ""), study_id="from-the-target"),
        replace(failed, study=Study("", "")),
    ]
    for number, outcome in enumerate(outcomes):
        desk.end(desk.item(number), outcome)
    seen = [(n.study, n.instance_id, n.ended) if n else None for n in desk.studies]
    assert seen == [
        (study, "i0", EndedAs.DELIVERED),
        (told, "i1", EndedAs.DELIVERED),
        (study, "i2", EndedAs.SKIPPED),
        (study, "i3", EndedAs.PARKED),
        None,
        None,
        None,
        # The source was sent it again, and the target holds the very file: it has arrived.
        (study, "i7", EndedAs.DELIVERED),
        (Study("from-the-file", "from-the-file"), "i8", EndedAs.PARKED),
        (Study("from-the-target", "from-the-target"), "i9", EndedAs.DELIVERED),
        None,
    ]
    assert {n.at - n.forget_before for n in desk.studies if n} == {60.0}
    assert {n.at for n in desk.studies if n} == {1_000_100.0}


def test_evidence_says_which_file_is_whose() -> None:
    desk = Desk(evidence=True)
    proved = replace(
        DELIVERED, source_md5="sm", target_md5="tm", source_file="sf", target_file="tf"
    )
    desk.end(desk.item(1), proved)
    kept = Kept("i1", "sm", "tm", 1_000_100.0, source_file="sf", target_file="tf")
    assert desk.settled == [("i1", None, kept)]
    desk.end(desk.item(2), Skipped(Reason.RULE))
    assert desk.settled[1] == ("i2", None, None), "nothing of it is proved"


@pytest.mark.parametrize(
    ("outcome", "served"),
    [
        (DELIVERED, [1, 1]),
        (Skipped(Reason.RULE, "the file was read", file_read=True), [1, 0]),
        (Skipped(Reason.RULE, "by its metadata"), [0, 0]),
        (Skipped(Reason.GONE, "gone"), [0, 0]),
        (BAD, [1, 0]),
        (ERROR, [1, 0]),
        (SILENT, [1, 0]),
        (AT_SOURCE, [0, 0]),
        (InstanceFailed(Reason.WORKER_DIED, "died"), [0, 0]),
        (InstanceFailed(Reason.TIMED_OUT, "late"), [0, 0]),
        (ExecutorFailed("lost"), [0, 0]),
    ],
    ids=lambda value: getattr(value, "message", None),
)
def test_which_servers_did_their_part(desk: Desk, outcome: Outcome, served: list[int]) -> None:
    desk.end(desk.item(1), outcome)
    assert [desk.servers.served_count(side) for side in SideName] == served
    lost = isinstance(outcome, InstanceFailed) and outcome.reason is not BAD.reason
    assert len(desk.happened(WorkerLost)) == lost


def test_who_serves_releases_what_waited_for_each_side(desk: Desk) -> None:
    held = [desk.end(desk.item(1), ERROR), desk.end(desk.item(2), AT_SOURCE)]
    assert [item.delayed_by for item in held] == [TARGET, SOURCE]
    assert desk.window.delayed == 2
    for side in SideName:
        desk.servers.take_probe(side, None, info=None, on_trial=True)
    other_ends(desk)
    assert desk.window.delayed == 0
    assert [item.delayed_by for item in held] == [None, None]


# Missed at the source


def test_deletions_are_believed_in_order_and_no_more_than_were_looked_at(desk: Desk) -> None:
    gone = Skipped(Reason.GONE)
    items = [desk.end(desk.item(number), gone) for number in (1, 2)]
    desk.outcomes.begin_look_back()
    items.append(desk.end(desk.item(3), gone))
    assert desk.outcomes.open == 3
    desk.outcomes.end_look_back(same_source=True)
    assert desk.names == [], "each is asked for once more"
    assert [item.missed for item in items] == [True, True, False]
    assert desk.outcomes.open == 1
    assert desk.outcomes.wants_look_back, "the third waits for a look of its own"
    assert [desk.window.start_next() for _ in range(2)] == items[:2]
    assert not desk.window.can_start()
    desk.end(items[0], gone)
    desk.outcomes.begin_look_back()
    desk.end(items[1], gone)
    desk.outcomes.end_look_back(same_source=True)
    assert desk.names == ["i1"], "the third was missed once, the second was not looked at yet"
    assert items[2].missed
    desk.outcomes.begin_look_back()
    desk.outcomes.end_look_back(same_source=True)
    assert desk.names == ["i1", "i2"]
    assert desk.summary.skipped == {"gone": 2}
    assert desk.outcomes.open == 0
    assert not desk.outcomes.wants_look_back


def test_a_look_that_fails_tells_nothing_and_is_taken_again_for_all_in_order(desk: Desk) -> None:
    gone = Skipped(Reason.GONE)
    items = [desk.end(desk.item(number), gone) for number in (1, 2)]
    desk.outcomes.begin_look_back()
    items.append(desk.end(desk.item(3), gone))
    desk.outcomes.end_look_back(same_source=False)
    assert [item.missed for item in items] == [False] * 3
    assert (desk.outcomes.open, desk.outcomes.wants_look_back) == (3, True)
    desk.outcomes.begin_look_back()
    assert (desk.outcomes.open, desk.outcomes.wants_look_back) == (3, False)
    desk.outcomes.end_look_back(same_source=True)
    assert [desk.window.start_next() for _ in range(3)] == items


# Tried again, parked


def test_attempts_are_written_counted_and_end(desk: Desk) -> None:
    item = desk.item(1)
    desk.end(item, UNLUCKY)
    assert desk.window.wake_s() == 101.0
    desk.time.s = 200.0
    desk.end(item, UNLUCKY)
    assert desk.spent == [
        ("i1", Attempts(1, 1_000_100.0)),
        ("i1", Attempts(2, 1_000_100.0)),
    ]
    assert [(e.attempts, e.after_s) for e in desk.happened(InstanceRetried)] == [(1, 1.0), (2, 2.0)]
    assert desk.names == []
    desk.time.s = 300.0
    desk.end(item, UNLUCKY)
    parked = Parked(
        item.move,
        UNLUCKY.reason,
        "No memory.",
        3,
        1_000_100.0,
        1_000_300.0,
        "1.2.3",
        "1.2.3.4",
        tried_at=1_000_300.0,
    )
    assert desk.settled == [("i1", parked, None)]
    assert desk.summary.parked == {UNLUCKY.reason: 1}
    assert desk.happened(InstanceParked) == [
        InstanceParked(item.move, UNLUCKY.reason, "No memory.", 3, "1.2.3", "1.2.3.4")
    ]
    assert desk.outcomes.changed_at(1) == ""


def test_what_is_parked_at_once_failed_first_now(desk: Desk) -> None:
    desk.end(desk.item(1), BAD)
    ((_, parked, _),) = desk.settled
    assert parked is not None
    assert (parked.first_failed_at, parked.parked_at) == (1_000_100.0, 1_000_100.0)
    assert (parked.source_syntax, parked.sop_instance_uid) == ("", "")


def test_what_the_machinery_lost_costs_nothing(desk: Desk) -> None:
    item = desk.end(desk.item(1), ExecutorFailed("lost"))
    assert (item.attempts, item.first_failed_at) == (0, 0.0)
    assert desk.spent == []
    assert desk.window.delayed == 1
    assert desk.outcomes.told() == ()


# A server's trouble


def test_an_outage_puts_it_first_in_line_and_costs_nothing(desk: Desk) -> None:
    desk.window.add([desk.item(7)])
    item = desk.end(desk.item(1), SILENT)
    assert desk.window.start_next() is item
    assert (item.attempts, item.outages, item.delays) == (0, 1, 0)
    assert desk.happened(SideDown) == [SideDown(SILENT)]


def test_only_what_was_begun_counts_towards_suspicion(desk: Desk) -> None:
    item = desk.item(1)
    for _ in range(5):
        desk.end(item, NOT_BEGUN)
    assert (item.outages, item.suspect) == (0, False)
    for _ in range(2):
        desk.end(item, SILENT)
    assert (item.outages, item.suspect) == (2, True)


@pytest.mark.parametrize("served", [False, True])
def test_one_that_was_not_tried_for_a_minute_waits_a_minute_from_then_on(
    desk: Desk, served: bool
) -> None:
    """Whether it is delayed, or deferred while others are served."""
    item = desk.end(desk.item(1), LIMIT)
    for seconds, waits_s in ((0.0, 0.2), (59.0, 0.4), (0.9, 0.8), (0.1, 75.0), (75.0, 75.0)):
        desk.time.s += seconds
        if seconds:
            if served:
                other_ends(desk)
            desk.window.wake(desk.time.s + 1000.0)
            desk.end(item, LIMIT)
        wake_s = desk.window.wake_s()
        assert wake_s is not None
        assert wake_s - desk.time.s == pytest.approx(waits_s)
    assert item.refusals == (4 if served else 0)


def test_one_that_is_answered_with_an_error_waits_more_and_more(desk: Desk) -> None:
    item = desk.item(1)
    due = []
    for _ in range(3):
        desk.end(item, ERROR)
        wake_s = desk.window.wake_s()
        assert wake_s is not None
        due.append(wake_s - desk.time.s)
        desk.time.s = wake_s
        desk.window.wake(wake_s)
    assert due == pytest.approx([delay_s(count, chance=1.0) for count in (1, 2, 3)])
    assert (item.delays, item.delayed_by, item.served_before) == (3, TARGET, 0)
    assert desk.refused() == [("i1", 3, False)]
    assert desk.outcomes.refused_count == 0, "it cannot be told from an outage"
    assert desk.servers.view(TARGET).times == 3


def test_an_error_while_others_are_served_is_its_own_fault(desk: Desk) -> None:
    item = desk.end(desk.item(1), ERROR)
    other_ends(desk)
    desk.end(item, ERROR)
    assert item.attempts == 1, "others were served since it failed first"
    assert item.delayed_by is None
    desk.end(item, ERROR)
    assert item.attempts == 1, "none was served since it failed last"
    other_ends(desk, 98)
    desk.end(item, ERROR)
    other_ends(desk, 97)
    desk.end(item, ERROR)
    parked = [known for _, known, _ in desk.settled if known is not None]
    assert [known.reason for known in parked] == [Reason.SERVER_REFUSES_INSTANCE]
    assert desk.outcomes.told() == (), "it waits no more"


def test_what_the_other_server_served_says_nothing(desk: Desk) -> None:
    item = desk.end(desk.item(1), ERROR)
    for number in (97, 98, 99):
        read = Skipped(Reason.RULE, file_read=True)  # the source did its part
        desk.end(desk.item(number), read)
    desk.end(item, ERROR)
    assert item.attempts == 0


def test_a_limit_while_others_are_served_lets_it_wait_and_names_it(desk: Desk) -> None:
    items = [desk.end(desk.item(number), LIMIT) for number in (1, 2, 3)]
    other_ends(desk)
    desk.time.s = 150.0
    for item in items[1:]:
        desk.end(item, LIMIT)
    assert [(item.refusals, item.delays, item.attempts) for item in items] == [
        (0, 1, 0),
        (1, 2, 0),
        (1, 2, 0),
    ]
    assert desk.refused() == [("i1", 1, False), ("i2", 2, True), ("i3", 2, True)]
    assert desk.outcomes.refused_count == 2
    told = desk.outcomes.told()[1]
    assert (told.side, told.sequence) == ("target", 2)
    assert (told.message, told.advice) == (LIMIT.message, LIMIT.advice)
    assert told.since == 1_000_100.0, "since it was refused first"
    desk.end(items[1], DELIVERED)
    assert [name for name, _, _ in desk.refused()] == ["i1", "i3"]


def test_a_disk_without_room_for_it_is_nobody_elses_trouble(desk: Desk) -> None:
    item = desk.end(desk.item(1), ExecutorFailed("The disk is full.", specific=True))
    assert (item.refusals, item.delays, item.attempts) == (1, 0, 0)
    (told,) = desk.outcomes.told()
    assert (told.side, told.alone, told.times) == ("", True, 1)
    desk.end(item, ExecutorFailed("The disk is full.", specific=True))
    assert [e.after_s for e in desk.happened(InstanceRetried)] == [1.0, 2.0]


def test_a_few_of_those_that_wait_are_named(desk: Desk) -> None:
    for number in range(TOLD_MAX + 2):
        desk.end(desk.item(number), ExecutorFailed("The disk is full.", specific=True))
    assert [told.instance_id for told in desk.outcomes.told()] == [f"i{n}" for n in range(TOLD_MAX)]
    assert desk.outcomes.refused_count == TOLD_MAX + 2


# Is it the source?


def test_the_source_is_asked_once_for_another_than_those_that_wait() -> None:
    desk = Desk(asks=True)
    waiting = desk.end(desk.item(50), ExecutorFailed("The disk is full.", specific=True))
    items = [desk.end(desk.item(number), AT_SOURCE) for number in (1, 2, 3)]
    assert desk.outcomes.open == 3
    assert desk.outcomes.asking
    ((name, function),) = desk.calls
    assert name == OTHERS
    assert function() is Others.WELL
    failing = frozenset({waiting.move.instance_id})
    assert desk.doubts == [FailedFile("i1", failing, frozenset({"old"}), 1)]
    assert desk.names == []
    desk.outcomes.take_others(Answered(OTHERS, value=Others.WELL))
    assert [item.attempts for item in items] == [1, 1, 1]
    assert (desk.outcomes.open, desk.outcomes.asking) == (0, False)
    assert desk.window.delayed == 4


def test_an_answer_that_tells_nothing_is_an_outage_and_costs_nothing() -> None:
    desk = Desk(asks=True)
    items = [desk.end(desk.item(number), AT_SOURCE) for number in (1, 2, 3)]
    desk.outcomes.take_others(Answered(OTHERS, value=Others.NONE))
    assert [item.attempts for item in items] == [0, 0, 0]
    assert [item.delayed_by for item in items] == [SOURCE] * 3
    assert not desk.servers.reachable([SOURCE])


def test_a_source_that_fails_at_the_question_too_is_down() -> None:
    desk = Desk(asks=True)
    item = desk.end(desk.item(1), AT_SOURCE)
    error = side_error(SOURCE, SideProblem.TIMED_OUT, "late")
    desk.outcomes.take_others(Answered(OTHERS, error=error))
    assert item.attempts == 0
    assert desk.servers.view(SOURCE).problem == "timed_out", "the last that is known"
    with pytest.raises(ZeroDivisionError):
        desk.outcomes.take_others(Answered(OTHERS, error=ZeroDivisionError()))


def test_what_was_served_while_it_was_asked_tells_more_than_the_answer() -> None:
    desk = Desk(asks=True)
    item = desk.item(1)
    item.served_before = 0
    desk.end(item, AT_SOURCE)
    other_ends(desk)
    desk.outcomes.take_others(Answered(OTHERS, value=Others.NONE))
    assert item.attempts == 1


def test_it_is_not_asked_where_something_else_tells() -> None:
    desk = Desk(asks=True)
    desk.end(desk.item(1), ERROR)
    silent = replace(AT_SOURCE, problem=SideProblem.TIMED_OUT)
    desk.end(desk.item(2), silent)
    assert not desk.outcomes.asking, "the target's trouble; and silence is an outage"
    desk.end(desk.item(3), AT_SOURCE)
    assert not desk.outcomes.asking, "the source is known to be down"


def asked_about(desk: Desk, number: int) -> frozenset[str]:
    """Let the source fail at one more file; what it is asked beside."""
    desk.servers.take_probe(SOURCE, None, info=None, on_trial=False)
    desk.end(desk.item(number), AT_SOURCE)
    desk.calls.pop()[1]()
    desk.outcomes.take_others(Answered(OTHERS, value=Others.WELL))
    return desk.doubts[-1].lost


def lose(desk: Desk, number: int) -> FailedFile:
    """Let the only file that the source lists get lost; what the source was asked with."""
    item = desk.item(number)
    item.attempts = 2
    desk.servers.take_probe(SOURCE, None, info=None, on_trial=False)
    desk.end(item, AT_SOURCE)
    desk.calls.pop()[1]()
    desk.outcomes.take_others(Answered(OTHERS, value=Others.SOLE))
    assert desk.names[-1] == f"i{number}", "it is parked"
    return desk.doubts[-1]


@pytest.mark.parametrize("before", [0, 1, SOLE_MAX, LISTED_MAX, LISTED_MAX + 3])
def test_what_was_parked_with_nothing_to_compare_it_with_is_remembered_up_to_a_bound(
    before: int,
) -> None:
    old = tuple(f"old{number}" for number in range(before))
    desk = Desk(asks=True, lost=old)
    known = frozenset(old[:LISTED_MAX])
    for number in range(SOLE_MAX + 1):
        assert lose(desk, number).lost == known
        if len(known) < LISTED_MAX:
            known |= {f"i{number}"}
    assert asked_about(desk, 60) == known


@pytest.mark.parametrize("before", range(SOLE_MAX + 2))
def test_lost_files_are_counted_in_a_row_and_a_restart_does_not_begin_again(before: int) -> None:
    desk = Desk(asks=True, lost=tuple(f"old{number}" for number in range(before)))
    first = min(before, SOLE_MAX)
    counted = [lose(desk, number).lost_in_a_row for number in range(SOLE_MAX + 1)]
    assert counted == list(range(first, first + SOLE_MAX + 1))


GIVEN_FILES: dict[str, tuple[Outcome, bool]] = {
    "delivered": (DELIVERED, True),
    "undecodable": (BAD, True),
    "refused by the target": (replace(AT_SOURCE, side=TARGET), True),
    "skipped after a look into it": (Skipped(Reason.RULE, "so", file_read=True), True),
    "skipped by its metadata": (Skipped(Reason.RULE, "so"), False),
    "deleted": (Skipped(Reason.GONE), False),
    "the worker died": (InstanceFailed(Reason.WORKER_DIED, "died"), False),
}


@pytest.mark.parametrize(("outcome", "given"), GIVEN_FILES.values(), ids=GIVEN_FILES)
@pytest.mark.parametrize("lost", [1, SOLE_MAX])
def test_a_file_that_the_source_gives_begins_the_count_again_and_nothing_else(
    lost: int, outcome: Outcome, given: bool
) -> None:
    desk = Desk(asks=True, lost=())
    for number in range(lost):
        lose(desk, number)
    desk.end(desk.item(50), outcome)
    assert lose(desk, 60).lost_in_a_row == (0 if given else lost)


def test_another_file_that_comes_when_asked_for_begins_the_count_again() -> None:
    desk = Desk(asks=True, lost=())
    for number in range(SOLE_MAX):
        lose(desk, number)
    asked_about(desk, 50)
    assert lose(desk, 60).lost_in_a_row == 0


# Suspects


def suspect(desk: Desk, number: int) -> WorkItem:
    item = desk.item(number)
    item.outages = 2
    desk.window.add([item])
    taken = desk.window.start_suspect(desk.time.s)
    assert taken is item
    return item


def test_of_a_suspect_that_was_alone_a_probe_of_that_server_decides(desk: Desk) -> None:
    item = desk.end_alone(suspect(desk, 1), SILENT)
    assert desk.outcomes.open == 1
    assert desk.outcomes.asking
    desk.servers.probe()
    assert [name for name, _ in desk.calls] == ["target"], "at once"
    desk.outcomes.take_probe(SOURCE, died=True)
    assert desk.outcomes.open == 1, "the other one has nothing to do with it"
    desk.outcomes.take_probe(TARGET, died=True)
    assert (item.attempts, item.outages) == (1, 2)
    assert desk.outcomes.open == 0
    desk.outcomes.take_probe(TARGET, died=True)
    assert item.attempts == 1, "it is judged once"


def test_a_suspect_that_the_server_outlived_waits(desk: Desk) -> None:
    item = desk.end_alone(suspect(desk, 1), SILENT)
    desk.outcomes.take_probe(TARGET, died=False)
    assert (item.attempts, item.delays, item.delayed_by, item.outages) == (0, 1, TARGET, 2)
    assert desk.window.delayed == 1


def test_a_suspect_of_which_servers_die_is_parked_and_that_is_said(desk: Desk) -> None:
    item = suspect(desk, 1)
    for _ in range(3):
        desk.end(item, SILENT, alone=True)
        desk.outcomes.take_probe(TARGET, died=True)
    ((_, parked, _),) = desk.settled
    assert parked is not None
    assert parked.reason is Reason.TARGET_DIED
    assert parked.message.startswith("The target died while handling it: ")


@pytest.mark.parametrize("failure", [SILENT, replace(LIMIT, begun=True)])
def test_a_server_that_was_back_before_the_probe_has_died_all_the_same(
    desk: Desk, failure: SideFailed
) -> None:
    item = suspect(desk, 1)
    for _ in range(3):
        other_ends(desk)
        desk.end(item, replace(failure, gone=True), alone=True)
        desk.outcomes.take_probe(TARGET, died=False)
    ((_, parked, _),) = [one for one in desk.settled if one[0] == "i1"]
    assert parked is not None
    assert (parked.reason, parked.attempts) == (Reason.TARGET_DIED, 3)


def test_what_a_proxy_lost_counts_towards_suspicion_though_others_are_served(desk: Desk) -> None:
    """Through a proxy, to die of an instance looks as to refuse it."""
    item = desk.item(1)
    for seen in (1, 2):
        desk.end(item, replace(LIMIT, begun=True))
        other_ends(desk)
        assert (item.outages, item.suspect) == (seen, seen == 2)
    assert item.refusals == 1
    refused = desk.item(2)
    for _ in range(3):
        desk.end(refused, LIMIT)
        other_ends(desk)
    assert not refused.suspect, "it was not begun"


def test_only_the_one_that_was_alone_is_accused(desk: Desk) -> None:
    suspect(desk, 1)
    desk.end(desk.item(2), SILENT)
    assert desk.outcomes.open == 0
    desk.end_alone(suspect(desk, 3), NOT_BEGUN)
    assert desk.outcomes.open == 0, "the server had not begun"


def test_a_suspect_that_silenced_a_living_source_is_judged_by_another_file() -> None:
    desk = Desk(asks=True)
    silent = replace(SILENT, side=SOURCE)
    item = desk.end_alone(suspect(desk, 1), silent)
    desk.outcomes.take_probe(SOURCE, died=False)
    assert desk.outcomes.asking
    desk.outcomes.take_others(Answered(OTHERS, value=Others.WELL))
    assert item.attempts == 1, "it was alone, and another file came"
    dead = desk.end_alone(suspect(desk, 2), silent)
    desk.outcomes.take_probe(SOURCE, died=True)
    assert (desk.outcomes.open, dead.attempts) == (0, 1)


# Hopeless


def test_a_command_ends_with_those_that_a_server_refuses_which_serves_others(desk: Desk) -> None:
    other_ends(desk)
    for number, side in ((1, ERROR), (2, AT_SOURCE), (3, replace(ERROR, message="Last."))):
        desk.end(desk.item(number), side)
    error = desk.outcomes.left_refused(TARGET)
    assert error is not None
    assert "The target served other instances" in error.message
    assert "i1, i3. Last." in error.message
    assert error.advice.startswith("Look there. The next run tries them again")
    desk.window.begin(desk.item(7))
    assert desk.outcomes.left_refused(TARGET) is None, "one is under way"


def test_no_server_is_called_well_that_served_nobody(desk: Desk) -> None:
    desk.end(desk.item(1), ERROR)
    assert desk.outcomes.left_refused(TARGET) is None
    other_ends(desk)
    assert desk.outcomes.left_refused(SOURCE) is None


@pytest.mark.parametrize(
    ("outcome", "sums", "outdated"),
    [
        (DELIVERED, ("", ""), False),
        (replace(DELIVERED, source_md5="s", sent_md5="t"), ("s", "t"), False),
        # What the target tells counts more than what was sent.
        (replace(DELIVERED, source_md5="s", target_md5="told", sent_md5="t"), ("s", "told"), False),
        (replace(DELIVERED, status="AlreadyStored", target_md5="told"), ("", "told"), False),
        (replace(DELIVERED, status="AlreadyStored", target_md5="x", differing=True), None, True),
    ],
)
def test_a_delivery_is_on_record(
    outcome: Delivered, sums: tuple[str, str] | None, outdated: bool
) -> None:
    desk = Desk()
    for number in (1, 2, 3):
        desk.end(desk.item(number), outcome)
    assert len(desk.records) == 3
    for number, record in enumerate(desk.records, start=1):
        assert record is not None
        assert (record.instance_id, record.outdated) == (f"i{number}", outdated)
        assert record.delivered_at == desk.time.now_s()
        assert sums is None or (record.source_md5, record.target_md5) == sums


@pytest.mark.parametrize(
    "outcome",
    [
        # The target had it before, and does not tell what it is: somebody else may have sent it.
        replace(DELIVERED, status="AlreadyStored", target_md5=""),
        Skipped(Reason.GONE),
        Skipped(Reason.CAME_BACK, file_read=True),
        BAD,
    ],
)
def test_what_is_not_proved_to_be_ours_is_on_no_record(outcome: Outcome) -> None:
    desk = Desk()
    for number in (1, 2, 3):
        desk.end(desk.item(number), outcome)
    assert set(desk.records) <= {None}


def test_an_instance_of_which_the_target_has_kept_another_version_is_outdated() -> None:
    desk = Desk()
    for number in (1, 2, 3):
        desk.end(desk.item(number), InstanceFailed(Reason.PROOF_MISMATCH, "other", final=True))
    assert [record is not None and record.outdated for record in desk.records] == [True] * 3


def test_a_clock_that_is_set_ahead_makes_no_study_old(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(keep_studies_s=60.0)
    delivered = replace(DELIVERED, study=Study("1.2", "an-id"))
    desk.end(desk.item(1), delivered)
    monkeypatch.setattr(desk.time, "now_s", lambda: 1e9)
    desk.end(desk.item(2), delivered)
    first, second = (note for note in desk.studies if note)
    assert second.at - first.at >= 1e6
    assert second.forget_before == first.forget_before


@pytest.mark.parametrize("ahead_s", [-1e9, -100.0, 0.0, 100.0, 400 * 86_400.0])
def test_a_clock_that_is_wrong_at_a_start_makes_no_study_old(ahead_s: float) -> None:
    """What the last process has forgotten, an hour and the time of this one are certain.

    Planted, seen to fail: the clock at the start is believed; the time off counts whole.
    """
    now = Desk().time.now_s()
    desk = Desk(keep_studies_s=60.0, forgotten_before=now - ahead_s - 60.0)
    desk.end(desk.item(1), replace(DELIVERED, study=Study("1.2", "an-id")))
    (note,) = (note for note in desk.studies if note)
    assert note.at == desk.time.now_s()
    certain = min(now, now - ahead_s + OFF_S)
    assert note.forget_before == pytest.approx(certain - 60.0, abs=1.0)

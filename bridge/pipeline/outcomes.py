"""What follows from the end of a task: settled, tried again, parked, or a server is blamed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypedDict

from bridge.errors import InstancesRefused, SideError, failure_of
from bridge.events import (
    CameBack,
    InstanceParked,
    InstanceRetried,
    Observer,
    ParkedRetried,
    Refused,
    Settled,
    WorkerLost,
)
from bridge.ledger.records import (
    UNKNOWN_VERSIONS,
    Attempts,
    DeliveryRecord,
    EndedAs,
    Kept,
    Parked,
    StudyNote,
    TriedBy,
)
from bridge.model import (
    AnswerKind,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    Job,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    Skipped,
    Study,
    answer_of,
)
from bridge.pipeline.ask_for_other_instances import LISTED_MAX, FailedFile
from bridge.pipeline.came_back import Deliveries
from bridge.pipeline.failure_policy import (
    SOLE_MAX,
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
from bridge.pipeline.journal import Journal
from bridge.pipeline.parked_retries import ParkedRetries
from bridge.pipeline.refusals import Refusals
from bridge.pipeline.runtime import Answered, Background, Clock
from bridge.pipeline.server_gates import Servers
from bridge.pipeline.window import Window, WorkItem

WORKER_LOSSES = (Reason.WORKER_DIED, Reason.TIMED_OUT)


OTHERS = "others"
"""The name by which the answer is known of how the source serves other instances."""
ONE_ATTEMPT = Limits(attempts_max=1)
"""What a parked instance gets when the policy tries it again."""
TOLD_MAX = 10
"""So many instances that wait for an answer of their own are named."""

OFF_S = 3600.0
"""So long at most counts of the time in which no process ran: a clock may be wrong at a start."""


class FailedAt(TypedDict, total=False):
    """What a server failed at: an instance, for the ``times``-th time."""

    instance_id: str
    times: int


@dataclass(frozen=True, slots=True)
class LoneFailure:
    """A suspect failed while it was alone. A probe will tell whether the server died of it."""

    item: WorkItem
    failure: SideFailed


@dataclass(frozen=True, slots=True)
class OpenFailure:
    """The source failed at an instance. How it serves others will tell whose fault that is."""

    item: WorkItem
    failure: SideFailed
    alone: bool


class Missed:
    """Instances that the source lacks and that may have been deleted there.

    A source that has lost its disk for a moment lacks them too, and so does another server at its
    address. Either may have been itself again when the feed was looked at. So the source is asked
    for an instance twice, and its feed is looked at after each time.

    A look concerns those that were missed before it began: it says nothing about later ones.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[WorkItem, Skipped]] = []
        """These wait for a look that has not begun."""
        self._looked_for: list[tuple[WorkItem, Skipped]] = []
        """The look that is under way is for these."""

    @property
    def count(self) -> int:
        """How many are neither believed to be deleted nor asked for again."""
        return len(self._waiting) + len(self._looked_for)

    @property
    def wait(self) -> bool:
        """Whether a look at the feed is to be taken for some."""
        return bool(self._waiting)

    def note(self, item: WorkItem, outcome: Skipped) -> None:
        """Note that the source lacks it."""
        self._waiting.append((item, outcome))

    def begin_look(self) -> None:
        """Note that a look begins, for all that wait."""
        self._looked_for += self._waiting
        self._waiting = []

    def end_look(self, *, same_source: bool) -> list[tuple[WorkItem, Skipped]]:
        """Return those of which the look tells something: none if it has failed."""
        looked_for, self._looked_for = self._looked_for, []
        if same_source:
            return looked_for
        self._waiting = [*looked_for, *self._waiting]
        return []


class Outcomes:
    """Carries out what the policy decides of each outcome.

    ``ask_for_another`` asks the source for the file of another instance than the one that it failed
    at. It may block and raises SideError. Without it nothing is asked. ``lost``: what was parked
    before with nothing to compare it with. ``settled``: what the feed has told of before.
    ``given_back`` tells which instance this bridge itself gave back to the source; "" for none.
    ``forgotten_before``: studies were forgotten that are older than this moment, by the last
    process.
    ``chance`` yields numbers from 0 to 1, to spread retries. ``retries`` is told when what it has
    handed out has come to its end. ``tried_by``: which bridge and codecs these are.
    """

    def __init__(
        self,
        *,
        job: Job,
        limits: Limits,
        window: Window,
        servers: Servers,
        journal: Journal,
        background: Background,
        observer: Observer,
        clock: Clock,
        chance: Callable[[], float],
        ask_for_another: Callable[[FailedFile], Others] | None,
        lost: Iterable[str] = (),
        settled: Iterable[str] = (),
        given_back: Callable[[], str] = lambda: "",
        forgotten_before: float | None = None,
        retries: ParkedRetries | None = None,
        tried_by: TriedBy = UNKNOWN_VERSIONS,
    ) -> None:
        self._job = job
        self._retries = retries
        self._tried_by = tried_by
        self._limits = limits
        self._window = window
        self._servers = servers
        self._journal = journal
        self._observer = observer
        self._clock = clock
        self._chance = chance
        self._background = background
        self._ask_for_another = ask_for_another
        self._open_failures: list[OpenFailure] = []
        self._lost = set(itertools.islice(lost, LISTED_MAX))
        """Parked with nothing to compare them with: they are no files to compare others with."""
        self._lost_in_a_row = min(len(self._lost), SOLE_MAX)
        """Since the source gave a file at last; what it gave before a restart is not known."""
        self._lone_failure: LoneFailure | None = None
        self._missed = Missed()
        self._changed_at: dict[int, str] = {}
        """By sequence: when those changes were made that are not settled."""
        self._refused: dict[int, Refused] = {}
        """By number of the item: what waits for an answer of its own."""
        self._refusals = Refusals()
        self._deliveries = Deliveries()
        self._deliveries.recall(settled)
        self._given_back = given_back
        certain = clock.now_s()
        if forgotten_before is not None:
            certain = min(certain, forgotten_before + job.keep_studies_s + OFF_S)
        self._ahead_s = certain - clock.steady_s()
        """How far what is certain of the time was ahead of the clock that nobody sets."""
        self.last_progress_at = clock.now_s()
        self._progress_s = clock.steady_s()
        """When something was settled or parked last, epoch seconds."""
        self.came_back = CameBack()
        """What was delivered and came to the source again."""

    @property
    def open(self) -> int:
        """How many are neither settled nor in the window."""
        return self._missed.count + len(self._open_failures) + (self._lone_failure is not None)

    @property
    def asking(self) -> bool:
        """Whether a server is being asked what an instance's failure means; nothing starts then."""
        return bool(self._open_failures) or self._lone_failure is not None

    def expect(self, move: Move) -> None:
        """Note that a move was read and is to be brought to an end."""
        if move.sequence is not None:
            self._changed_at[move.sequence] = move.changed_at

    def changed_at(self, sequence: int | None) -> str:
        """Tell when a change was made that is not settled; "" where that is not known."""
        return "" if sequence is None else self._changed_at.get(sequence, "")

    def judge(self, item: WorkItem, outcome: Outcome, *, alone: bool) -> None:
        """Decide what follows, and see to it. ``alone``: it was the only one under way."""
        if isinstance(outcome, InstanceFailed) and outcome.reason in WORKER_LOSSES:
            self._observer.on_event(WorkerLost(item.move, outcome))
        if isinstance(outcome, SideFailed):
            if outcome.begun and alone:
                self._lone_failure = LoneFailure(item, outcome)
                self._servers.fail(outcome, ask_at_once=True, **self._at(item))
                return
            if self._must_ask(item, outcome, alone=False):
                self._ask(item, outcome, alone=False)
                return
        self._conclude(item, outcome, self._others(item, outcome))

    def put_off(self, item: WorkItem) -> bool:
        """Let an untried one wait that was sent again after a server failed at it; False for none.

        It was parked for that, and its pauses go on: at most 12 attempts in the first minute of an
        instance, and one a minute later, however often it is sent.
        """
        wait_s = 0.0 if item.tried else self._wait_s(item)
        if wait_s > 0.0:
            self._window.delay(item, self._clock.steady_s() + wait_s)
        return wait_s > 0.0

    def _wait_s(self, item: WorkItem) -> float:
        """How long its instance waits because it is parked for what a server answered."""
        return self._refusals.wait_s(item.move.instance_id, self._clock.steady_s())

    def delivered_before(self, item: WorkItem) -> bool:
        """Whether this pipeline has delivered the instance, so that it may have come back.

        What this bridge gave back, as the target had lost it, is delivered anew.
        """
        instance_id = item.move.instance_id
        return self._deliveries.known(instance_id) and instance_id != self._given_back()

    def park_if_circling(self, item: WorkItem) -> bool:
        """Park an instance that was delivered again and again within an hour; False if it was not.

        What the target holds differs from what was sent each time, so that only their number tells.
        """
        rounds = self._deliveries.rounds(item.move.instance_id, self._clock.steady_s())
        if not rounds:
            return False
        text = (
            f"It was delivered {rounds} times within an hour and came to the source again each "
            "time: another bridge, or a rule of the target, sends it back."
        )
        failed = InstanceFailed(Reason.CAME_BACK, text, final=True)
        self._note_return(item)
        self._park(item, failed, failed.reason, failed.message, item.attempts)
        return True

    def _note_return(self, item: WorkItem) -> None:
        count = self.came_back.count + 1
        self.came_back = CameBack(count, item.move.instance_id, self._clock.now_s())

    def _conclude(
        self,
        item: WorkItem,
        outcome: Outcome,
        others: Others,
        *,
        alone: bool = False,
        died: bool = False,
    ) -> None:
        decision = decide(
            outcome,
            attempts=item.attempts,
            limits=self._limits if item.parked is None else ONE_ATTEMPT,
            refusals=item.refusals,
            delays=item.delays,
            delayed_s=item.delayed_for_s(self._clock.steady_s()),
            others=others,
            alone=alone,
            died=died,
            chance=self._chance(),
        )
        self._note_service(outcome)
        if isinstance(outcome, SideFailed):
            now_s = self._clock.steady_s()
            self._refusals.note(item.move.instance_id, now_s, chance=self._chance())
        match decision:
            case Settle() if isinstance(outcome, Skipped) and outcome.reason is Reason.GONE:
                self._missed.note(item, outcome)
            case Settle():
                self._settle(item, outcome)
            case Park(reason=reason, message=message, attempts=attempts):
                if others is Others.SOLE:
                    self._lost_in_a_row += 1
                    if len(self._lost) < LISTED_MAX:
                        self._lost.add(item.move.instance_id)
                text = f"The {_side(outcome)} died while handling it: " if died else ""
                again = self._window.take_tried_with(item) if _side(outcome) else []
                self._refusals.park(item.move.instance_id)
                for one in (item, *again):
                    self._park(one, outcome, reason, text + message, attempts)
            case RetryLater(after_s=after_s, attempts=attempts):
                self._retry(item, outcome, max(after_s, self._wait_s(item)), attempts)
            case Defer() | PauseSide() if item.parked is not None:
                self._give_back(item, item.parked, outcome, told=alone)
            case Defer(after_s=after_s):
                if isinstance(outcome, SideFailed) and outcome.begun and not alone:
                    # Through a proxy a server that died of it looks as one that refused it.
                    item.meet_outage()
                now_s = self._clock.steady_s()
                item.defer(by_server=isinstance(outcome, SideFailed), now_s=now_s)
                self._note_refusal(item, outcome, alone=True)
                self._retry(item, outcome, max(after_s, self._wait_s(item)), item.attempts)
            case PauseSide(side=side):
                self._delay_for_server(item, outcome, side, alone=alone)

    def _others(self, item: WorkItem, outcome: Outcome) -> Others:
        if not isinstance(outcome, SideFailed) or item.served_before is None:
            return Others.NONE
        served = self._servers.served_count(outcome.side) > item.served_before
        return Others.SERVED if served else Others.NONE

    # Is it the source, or this instance?

    def _must_ask(self, item: WorkItem, failure: SideFailed, *, alone: bool) -> bool:
        """Whether asking the source for another instance's file tells more than is known."""
        if self._ask_for_another is None or failure.side is not SideName.SOURCE:
            return False
        if item.parked is not None:
            return False  # it waits on in any case
        if self._others(item, failure) is Others.SERVED:
            return False
        if alone:
            return True
        answered = answer_of(failure) is not AnswerKind.SILENCE
        return answered and self._servers.reachable([failure.side])

    def _ask(self, item: WorkItem, failure: SideFailed, *, alone: bool) -> None:
        self._open_failures.append(OpenFailure(item, failure, alone))
        if len(self._open_failures) == 1 and self._ask_for_another is not None:
            known = frozenset(refused.instance_id for refused in self._known_refused())
            failed = FailedFile(
                item.move.instance_id, known, frozenset(self._lost), self._lost_in_a_row
            )
            self._background.call(OTHERS, functools.partial(self._ask_for_another, failed))

    def take_others(self, answer: Answered) -> None:
        """Decide about the open failures. Raises what was a bug in the asking."""
        failures, self._open_failures = self._open_failures, []
        if answer.error is not None and not isinstance(answer.error, SideError):
            raise answer.error
        found = answer.value if isinstance(answer.value, Others) else Others.NONE
        if found is Others.WELL:
            self._lost_in_a_row = 0
        for one in failures:
            served = self._others(one.item, one.failure) is Others.SERVED
            others = Others.SERVED if served else found
            self._conclude(one.item, one.failure, others, alone=one.alone)
        if answer.error is not None:
            self._servers.fail(failure_of(answer.error))

    def _note_service(self, outcome: Outcome) -> None:
        """Note which servers did their part, and open their gates."""
        served: tuple[SideName, ...] = ()
        match outcome:
            case Delivered():
                served = (SideName.SOURCE, SideName.TARGET)
            case InstanceFailed(reason=reason) if reason not in WORKER_LOSSES:
                served = (SideName.SOURCE,)
            case Skipped() | SideFailed(side=SideName.TARGET):
                served = (SideName.SOURCE,)
            case _:
                pass
        # Without its file it tells that the source answers, and nothing of other instances' files.
        evident = not isinstance(outcome, Skipped) or outcome.file_read
        if evident and SideName.SOURCE in served:
            self._lost_in_a_row = 0
        for side in self._servers.serve(served, evident=evident):
            if evident:
                self._window.release(side)

    def _settle(self, item: WorkItem, outcome: Outcome) -> None:
        self._refusals.forget(item.move.instance_id)
        if isinstance(outcome, Delivered):
            if not outcome.already_there:
                now_s = self._clock.steady_s()
                self._deliveries.note(item.move.instance_id, now_s, file=outcome.source_file)
        elif isinstance(outcome, Skipped):
            now_s = self._clock.steady_s()
            if outcome.reason is Reason.CAME_BACK and self._deliveries.soon(
                item.move.instance_id, now_s, file=outcome.file
            ):
                self._note_return(item)
        self._journal.settle(
            item.move,
            None,
            self._kept(item, outcome),
            self._delivery(item, outcome),
            self._study_note(item, outcome),
        )
        self._observer.on_event(
            Settled(item.move, outcome, item.attempts + 1, item.rules, item.times)
        )
        self._progressed(item)
        self._end_retry(item, "delivered" if isinstance(outcome, Delivered) else "skipped")

    # What the source lacks

    @property
    def wants_look_back(self) -> bool:
        """Whether the feed is to be looked at for instances that the source lacks."""
        return self._missed.wait

    def begin_look_back(self) -> None:
        """Note that the feed is being looked at for all that are missed now."""
        self._missed.begin_look()

    def end_look_back(self, *, same_source: bool) -> None:
        """Settle what was missed twice, and let the source be asked again for the rest.

        ``same_source``: the look has shown the feed that is followed. Else it has failed, and
        another look is wanted.
        """
        for item, outcome in self._missed.end_look(same_source=same_source):
            if item.missed:
                self._settle(item, outcome)
            else:
                item.miss()
                self._window.add([item])

    def _kept(self, item: WorkItem, outcome: Outcome) -> Kept | None:
        """What to remember of a proved delivery, so that the source may let go of it later."""
        if not (self._job.keeps_evidence and isinstance(outcome, Delivered)):
            return None
        return Kept(
            instance_id=item.move.instance_id,
            source_md5=outcome.source_md5,
            target_md5=outcome.target_md5,
            source_file=outcome.source_file,
            target_file=outcome.target_file,
            delivered_at=self._clock.now_s(),
        )

    def _study_note(self, item: WorkItem, outcome: Outcome) -> StudyNote | None:
        """What to remember of the instance's study; None where the file was not read."""
        keep_s, told = self._job.keep_studies_s, ""
        match outcome:
            case Delivered(study=Study() as study, study_id=told):
                ended = EndedAs.DELIVERED
            case Skipped(reason=Reason.CAME_BACK, study=Study() as study):
                # The target holds the very file, from this bridge: the source was sent it again.
                ended = EndedAs.DELIVERED
            case Skipped(study=Study() as study):
                ended = EndedAs.SKIPPED
            case InstanceFailed(study=Study() as study):
                ended = EndedAs.PARKED
            case _:
                return None
        orthanc_id = told or study.orthanc_id
        name = study.uid or orthanc_id
        if not name:
            return None
        study = Study(name, orthanc_id)
        now = self._clock.now_s()
        # A clock that is set ahead, while this runs or before, makes no study old.
        certain = min(now, self._clock.steady_s() + self._ahead_s)
        return StudyNote(study, item.move.instance_id, ended, now, certain - keep_s)

    def _delivery(self, item: WorkItem, outcome: Outcome) -> DeliveryRecord | None:
        """What to remember of a delivery, to know the copy at the target as ours later.

        A file that the target had before, and of which it does not tell that it is what would have
        been sent, is not ours. One that differs is an older version, if there is a record of it.
        """
        if not isinstance(outcome, Delivered):
            return None
        if outcome.already_there and not outcome.differing and not outcome.target_md5:
            return None
        return DeliveryRecord(
            instance_id=item.move.instance_id,
            source_md5=outcome.source_md5,
            target_md5=outcome.target_md5 or outcome.sent_md5,
            delivered_at=self._clock.now_s(),
            outdated=outcome.differing,
            to_sign=self._job.signs and not outcome.differing,
        )

    def _park(
        self,
        item: WorkItem,
        outcome: Outcome,
        reason: Reason,
        message: str,
        attempts: int,
        *,
        tried_by: TriedBy | None = None,
    ) -> None:
        """Park an instance, or leave it parked. ``tried_by``: None for the present ones."""
        now, before = self._clock.now_s(), item.parked
        known = outcome if isinstance(outcome, InstanceFailed) else None
        parked = Parked(
            move=item.move,
            reason=reason,
            message=message,
            attempts=attempts,
            first_failed_at=item.first_failed_at or now,
            parked_at=before.parked_at if before else now,
            source_syntax=known.source_syntax if known else "",
            sop_instance_uid=known.sop_instance_uid if known else "",
            retries=before.retries + 1 if before else 0,  # as was noted when it began
            tried_at=now,
            tried_by=tried_by or self._tried_by,
        )
        record = None
        if reason is Reason.PROOF_MISMATCH:
            # The target has another file under this ID: if it came from here, it is an older one.
            record = DeliveryRecord(item.move.instance_id, "", "", now, outdated=True)
        note = self._study_note(item, outcome)
        self._journal.settle(item.move, parked, None, record, note)
        event = InstanceParked(
            item.move,
            reason,
            message,
            attempts + (before.attempts if before else 0),
            parked.source_syntax,
            parked.sop_instance_uid,
            parked.retries,
            item.rules,
            item.times,
        )
        self._observer.on_event(event)
        self._progressed(item)
        self._end_retry(item, "parked")

    def _give_back(self, item: WorkItem, parked: Parked, outcome: Outcome, *, told: bool) -> None:
        """Leave parked what a server has not served: only what is new waits for servers.

        A server that gives no answer at all is down for everybody. ``told``: it is known already.
        """
        message = getattr(outcome, "message", "") or parked.message
        self._park(item, outcome, parked.reason, message, 1, tried_by=parked.tried_by)
        if (
            isinstance(outcome, SideFailed)
            and answer_of(outcome) is AnswerKind.SILENCE
            and not told
        ):
            self._servers.fail(outcome)

    def _end_retry(self, item: WorkItem, result: str) -> None:
        if item.parked is None:
            return
        if self._retries is not None:
            self._retries.end(item.move.instance_id)
        self._observer.on_event(ParkedRetried(item.move, item.parked.reason, result))

    def _progressed(self, item: WorkItem) -> None:
        self.last_progress_at = self._clock.now_s()
        self._progress_s = self._clock.steady_s()
        self._refused.pop(item.number, None)
        self._window.finish(item)
        if item.move.sequence is not None:
            self._changed_at.pop(item.move.sequence, None)

    def _retry(self, item: WorkItem, outcome: Outcome, after_s: float, attempts: int) -> None:
        item.retry(attempts, now_at=self._clock.now_s())
        if attempts:
            self._journal.spend(item.move, Attempts(attempts, item.first_failed_at))
        if isinstance(outcome, SideFailed):
            item.fail_at(self._servers.served_count(outcome.side))
        self._observer.on_event(InstanceRetried(item.move, outcome, attempts, after_s))
        due_s = self._clock.steady_s() + after_s
        self._window.delay(item, due_s)

    def _delay_for_server(
        self, item: WorkItem, outcome: Outcome, side: SideName, *, alone: bool
    ) -> None:
        if not isinstance(outcome, SideFailed):
            raise TypeError("only a failed side pauses a side")
        if outcome.begun and not alone:
            item.meet_outage()
        answered = answer_of(outcome) is not AnswerKind.SILENCE
        if answered or item.suspect or self._servers.on_trial(side):
            # Perhaps this instance is the trouble: let others be tried before it, at once, and it
            # more and more seldom.
            item.fail_at(self._servers.served_count(side))
            now_s = self._clock.steady_s()
            item.delay(side, now_s=now_s)
            self._note_refusal(item, outcome, alone=False)
            since_s = item.delayed_for_s(now_s)
            pause_s = delay_s(item.delays, chance=self._chance(), since_s=since_s)
            wait_s = self._wait_s(item)
            if wait_s > 0.0:
                item.release()  # it was parked when others were served, so that ends no pause
            self._window.delay(item, now_s + max(pause_s, wait_s))
        else:
            self._window.add_first([item])
        if not alone:
            self._servers.fail(outcome, **self._at(item))

    def _at(self, item: WorkItem) -> FailedAt:
        known = self._refused.get(item.number)
        return {"instance_id": known.instance_id, "times": known.times} if known else {}

    def _note_refusal(self, item: WorkItem, outcome: Outcome, *, alone: bool) -> None:
        if not isinstance(outcome, SideFailed | ExecutorFailed):
            return
        known = self._refused.get(item.number)
        self._refused[item.number] = Refused(
            instance_id=item.move.instance_id,
            sequence=item.move.sequence,
            side=_side(outcome),
            message=outcome.message,
            advice=outcome.advice,
            since=known.since if known else self._clock.now_s(),
            times=known.times + 1 if known else 1,
            alone=alone,
        )

    def _known_refused(self) -> Iterable[Refused]:
        return itertools.islice(self._refused.values(), TOLD_MAX)

    def failed_instances(self) -> set[str]:
        """Return the instances that a server failed at and that are unfinished."""
        return {refused.instance_id for refused in self._refused.values()}

    def told(self) -> tuple[Refused, ...]:
        """Return the first few that wait for an answer of their own."""
        return tuple(self._known_refused())

    @property
    def refused_count(self) -> int:
        """How many wait although others are served."""
        return sum(refused.alone for refused in self._refused.values())

    def left_refused(self, side: SideName) -> InstancesRefused | None:
        """Return what to end with when only instances are left that a server answers with errors.

        It answers probes and has served others: that is no reason to call the server unusable.
        """
        if not (self._window.only_failed_left and self._servers.only_fails_at_work(side)):
            return None
        left = [refused for refused in self.told() if refused.side == side]
        return _unfinished(left, f"The {side} served other instances, but not these")

    def left_waiting(self, patience_s: float) -> InstancesRefused | None:
        """Return what to end with when only instances are left that wait for a setting or a disk.

        Both servers are well, so that nobody's outage would end a command.
        """
        # What waits behind another move of its instance waits for the same.
        left = self._window.delayed + self._window.waiting - self._window.behind
        refused = self._refused.values()
        if not left or left != len(refused) or not all(one.alone for one in refused):
            return None
        if self._window.under_way or self._clock.steady_s() - self._progress_s < patience_s:
            return None
        return _unfinished(list(self.told()), "The server served other instances, but not these")

    def take_probe(self, side: SideName, *, died: bool) -> None:
        """Decide about a suspect that failed alone, now that a probe has told how the server is."""
        lone = self._lone_failure
        if lone is None or lone.failure.side is not side:
            return
        self._lone_failure = None
        item, failure = lone.item, lone.failure
        died = died or failure.gone  # it may have been started again since
        if not died and self._must_ask(item, failure, alone=True):
            self._ask(item, failure, alone=True)
            return
        self._conclude(item, failure, self._others(item, failure), alone=True, died=died)


def _unfinished(left: list[Refused], what: str) -> InstancesRefused | None:
    if not left:
        return None
    names = ", ".join(refused.instance_id for refused in left)
    later = "The next run tries them again. It parks them if others are served after them."
    return InstancesRefused(
        f"{what}, which are unfinished: {names}. {left[-1].message}",
        advice=f"{left[-1].advice} {later}".strip(),
    )


def _side(outcome: Outcome) -> str:
    return outcome.side if isinstance(outcome, SideFailed) else ""

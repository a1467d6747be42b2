"""Finds out what there is to tell, and puts it into the outbox.

What is told is derived from the ledger, and not from what happens in the pipeline: a process that
is killed at any moment finds it again. Nothing here is waited for by anybody.

A study is judged when its instances have come to their ends: the source is asked whether it is
stable, after that where its feed ends, and then the checkpoint must have come so far.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import BridgeError, FeedWentBackwards, InstanceError, SideError
from bridge.events import Observer, TellingFailed, TellingWorks
from bridge.ledger.outbox import DROPPED_KEY, EventLedger
from bridge.ledger.records import ChangedStudy, Notice
from bridge.model import Page, StudyState
from bridge.notify.arrivals import Arrivals, ArrivalSource
from bridge.notify.event_kinds import (
    EventKind,
    Fields,
    digest_data,
    event_body,
    health_data,
    parked_data,
    study_data,
)
from bridge.notify.telling_policy import (
    Asked,
    HealthFold,
    ParkedFold,
    StudyVerdict,
    asked_again,
    digest_day,
    judge_gone,
    judge_study,
    told_after,
)
from bridge.pipeline.pacing import Daily
from bridge.pipeline.runtime import Clock

HEALTH_KEY = "events_health"
"""Ledger: the codes of /health that were told last, as JSON."""
DIGEST_KEY = "events_digest"
"""Ledger: the days whose digests were told, the last one first."""
STUDIES_AT_ONCE = 50
QUIET_S = 3.0
"""A study to which something came a moment ago is not asked for: it is not stable."""
ASK_FIRST_S = 2.0
ASK_LONGEST_S = 60.0
TROUBLE_FIRST_S = 10.0
TROUBLE_LONGEST_S = 600.0
STUDIES_KNOWN_MAX = 100_000
PARKED_AT_ONCE = 10_000
DAY_S = 86_400.0


class StudySource(ArrivalSource, Protocol):
    """What is asked of the source."""

    def study_state(self, study_id: str) -> StudyState | None:
        """Tell whether a study is stable; None when the source lacks it."""

    def last_change(self) -> Page:
        """Return the newest row of the feed."""

    def instances_of_study(self, study_id: str) -> list[str] | None:
        """List the instances of a study; None when the source lacks it."""


class Mailer:
    """Writes events for every way out, those kinds that are chosen."""

    def __init__(
        self,
        ways: Sequence[str],
        kinds: Collection[EventKind],
        *,
        bridge: str,
        clock: Clock,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.ways = tuple(ways)
        self._kinds = kinds
        self._bridge = bridge
        self._clock = clock
        self._new_id = new_id

    def chosen(self, kind: EventKind) -> bool:
        """Whether such events have a way out."""
        return bool(self.ways) and kind in self._kinds

    def write(self, kind: EventKind, data: Fields) -> tuple[Notice, ...]:
        """Return an event as it goes into the outbox, once for each way; none of other kinds."""
        if not self.chosen(kind):
            return ()
        event_id, now = self._new_id(), self._clock.now_s()
        body = event_body(kind, data, event_id=event_id, bridge=self._bridge, created_at=now)
        return tuple(Notice(event_id, way, kind, body, now) for way in self.ways)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a study that is not judged yet. ``next_s``: when it is asked for again."""

    changes: int
    asked: Asked | None
    next_s: float
    pause_s: float


class StudyWatch:
    """Judges the studies that have changed.

    ``look_at_feed`` makes sure that the source has the feed that was followed: its checkpoint says
    nothing of another one. Raises SourceError, FeedWentBackwards. ``newest``: as in Arrivals.
    """

    def __init__(
        self,
        source: StudySource,
        mailer: Mailer,
        *,
        look_at_feed: Callable[[EventLedger], None],
        newest: Callable[[], int | None],
        clock: Clock,
    ) -> None:
        self._source = source
        self._arrivals = Arrivals(source, newest, clock=clock)
        self._mailer = mailer
        self._look_at_feed = look_at_feed
        self._clock = clock
        self._known: dict[int, _Known] = {}
        self._after = 0

    def turn(self, ledger: EventLedger) -> None:
        """Look at some of them. Raises SourceError, FeedWentBackwards, StateError."""
        self._look_at_changed(ledger)
        # At the end: a source that fails at it keeps no study from being judged.
        self._arrivals.turn(ledger)

    def _look_at_changed(self, ledger: EventLedger) -> None:
        now, now_s = self._clock.now_s(), self._clock.steady_s()
        page = ledger.changed_studies(
            after=self._after, limit=STUDIES_AT_ONCE, quiet_since=now - QUIET_S, now=now
        )
        self._after = page[-1].number if len(page) == STUDIES_AT_ONCE else 0
        wanted = [study for study in page if self._is_due(study, now_s)]
        if not wanted or ledger.checkpoint() is None:
            return
        if len(self._known) > STUDIES_KNOWN_MAX:
            self._known.clear()
        states = [(study, self._state(study)) for study in wanted]
        # After that: what is in a stable study then is in the feed up to there.
        feed_end = self._source.last_change().last
        self._look_at_feed(ledger)
        checkpoint, gaps = ledger.checkpoint(), ledger.open_gaps().sequences
        # After the checkpoint: what is settled up to there without its study shows here.
        unplaced = ledger.has_unplaced()
        for study, state in states:
            self._judge(
                ledger,
                study,
                state,
                feed_end=feed_end,
                checkpoint=checkpoint,
                gaps=gaps,
                unplaced=unplaced,
            )

    def _is_due(self, study: ChangedStudy, now_s: float) -> bool:
        known = self._known.get(study.number)
        return known is None or known.changes != study.changes or now_s >= known.next_s

    def _state(self, study: ChangedStudy) -> StudyState | None:
        """Ask the source; None where it lacks the study, or its Orthanc ID is not known."""
        try:
            return self._source.study_state(study.record.study.orthanc_id)
        except InstanceError:
            return None

    def _judge(
        self,
        ledger: EventLedger,
        study: ChangedStudy,
        state: StudyState | None,
        *,
        feed_end: int,
        checkpoint: int | None,
        gaps: int,
        unplaced: bool,
    ) -> None:
        before = self._known.get(study.number)
        same = before is not None and before.changes == study.changes
        if state is None:
            verdict = judge_gone(study.record, study.told)
            told = told_after(verdict, study.record, study.told)
            notices = self._notices(study, verdict)
            # What is told as complete is shown as complete.
            ends = verdict is StudyVerdict.COMPLETE
            stable_at = self._clock.now_s() if ends else None
            ledger.judged(study, told, stable_at=stable_at, notices=notices)
            self._known.pop(study.number, None)
            return
        asked = asked_again(before.asked if before and same else None, state, feed_end)
        settled = asked is not None and checkpoint is not None and checkpoint >= asked.feed_end
        held = self._held(study) if asked is not None and (gaps or (unplaced and settled)) else None
        if unplaced and settled and held and ledger.place(study, held):
            return  # one of it is parked, and nobody knew that it is of it
        verdict = judge_study(
            study.record,
            study.told,
            asked,
            checkpoint=checkpoint,
            gaps=gaps,
            held=None if held is None else len(held),
        )
        if verdict is StudyVerdict.WAIT:
            pause_s = min(ASK_LONGEST_S, 1.5 * before.pause_s) if before and same else ASK_FIRST_S
            next_s = self._clock.steady_s() + pause_s
            self._known[study.number] = _Known(study.changes, asked, next_s, pause_s)
            return
        told = told_after(verdict, study.record, study.told)
        ledger.judged(
            study, told, stable_at=self._clock.now_s(), notices=self._notices(study, verdict)
        )
        self._known.pop(study.number, None)

    def _held(self, study: ChangedStudy) -> list[str] | None:
        return self._source.instances_of_study(study.record.study.orthanc_id)

    def _notices(self, study: ChangedStudy, verdict: StudyVerdict) -> tuple[Notice, ...]:
        kinds = {
            StudyVerdict.COMPLETE: EventKind.STUDY_COMPLETE,
            StudyVerdict.INCOMPLETE: EventKind.STUDY_INCOMPLETE,
        }
        kind = kinds.get(verdict)
        if kind is None:
            return ()
        return self._mailer.write(kind, study_data(study.record, again=study.told.seen > 0))


class Teller:
    """Tells of parked instances, of changes of /health, and of the day.

    ``problems`` returns the codes of the reasons that /health gives now.
    """

    def __init__(
        self,
        mailer: Mailer,
        problems: Callable[[], Iterable[str]],
        *,
        fold_s: float,
        digest_at: Daily,
        clock: Clock,
    ) -> None:
        self._mailer = mailer
        self._problems = problems
        self._fold_s = fold_s
        self._parked = ParkedFold(fold_s)
        self._health: HealthFold | None = None
        self._digest_at = digest_at
        self._clock = clock

    def begin(self, ledger: EventLedger) -> None:
        """Note which ways out there are. Raises StateError."""
        ledger.begin(ways=self._mailer.ways, now=self._clock.now_s())

    def turn(self, ledger: EventLedger, *, at_once: bool = False) -> None:
        """Tell what is to be told. ``at_once``: do not gather any longer. Raises StateError."""
        if not self._mailer.ways:
            return
        self._tell_parked(ledger, at_once=at_once)
        self._tell_health(ledger)
        self._tell_the_day(ledger)

    def _tell_parked(self, ledger: EventLedger, *, at_once: bool) -> None:
        untold = bool(ledger.untold_parked(1))
        due = self._parked.is_due(untold, self._clock.steady_s())
        if not due and not (at_once and untold):
            return
        parked = ledger.untold_parked(PARKED_AT_ONCE)
        total = sum(ledger.parked_by_reason().values())
        notices = self._mailer.write(EventKind.PARKED, parked_data(parked, total=total))
        ledger.tell(notices, parked=[instance_id for instance_id, _ in parked])

    def _tell_health(self, ledger: EventLedger) -> None:
        if self._health is None:
            self._health = HealthFold(_codes(ledger.meta(HEALTH_KEY)), self._fold_s)
        now_s, before = self._clock.steady_s(), self._health.told
        codes = self._health.change(self._problems(), now_s)
        if codes is None:
            return
        notices = self._mailer.write(EventKind.HEALTH_CHANGED, health_data(codes, before=before))
        ledger.tell(notices, metas={HEALTH_KEY: json.dumps(codes)})
        self._health.told_now(codes, now_s)

    def _tell_the_day(self, ledger: EventLedger) -> None:
        told, now = ledger.meta(DIGEST_KEY), self._clock.now_s()
        latest = digest_day(told, self._digest_at.local(now), self._digest_at.at)
        if not latest.due:
            if latest.told != told:
                ledger.tell((), metas={DIGEST_KEY: latest.told})
            return
        notices: tuple[Notice, ...] = ()
        if self._mailer.chosen(EventKind.DIGEST):
            dropped = ledger.meta(DROPPED_KEY)
            data = digest_data(
                day=latest.day,
                studies=ledger.studies_since(now - DAY_S),
                parked=ledger.parked_by_reason(),
                dropped_events=int(dropped) if dropped and dropped.isdigit() else 0,
                codes=sorted(self._problems()),
            )
            notices = self._mailer.write(EventKind.DIGEST, data)
        ledger.tell(notices, metas={DIGEST_KEY: latest.told})


class Troubles:
    """Says once for each reason that what events tell cannot be learned, and pauses meanwhile."""

    def __init__(self, observer: Observer, *, steady_s: Callable[[], float]) -> None:
        self._observer = observer
        self._steady_s = steady_s
        self._said = ""
        self._until_s = float("-inf")
        self._pause_s = TROUBLE_FIRST_S

    def try_to(self, look: Callable[[], None]) -> None:
        """Call it, unless it has failed a moment ago. Raises StateError and the like."""
        if self._steady_s() < self._until_s:
            return
        try:
            look()
        except (SideError, FeedWentBackwards) as exc:
            self._until_s = self._steady_s() + self._pause_s
            self._pause_s = min(2 * self._pause_s, TROUBLE_LONGEST_S)
            self._say(exc)
            return
        self._pause_s = TROUBLE_FIRST_S
        if self._said:
            self._said = ""
            self._observer.on_event(TellingWorks())

    def _say(self, error: BridgeError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            self._observer.on_event(TellingFailed(self._said))


def _codes(text: str | None) -> tuple[str, ...]:
    """Read what was told of /health last; nothing when it cannot be understood."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple(code for code in found if isinstance(code, str)) if isinstance(found, list) else ()

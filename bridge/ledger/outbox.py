"""The ledger for events: what is to be told, and what waits to be sent.

What was told is noted in the transaction that puts the event into the outbox: a process that dies
in between tells it again or not at all, and then tells it after the next start. An event leaves the
outbox only after its receiver has taken it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from bridge.ledger.lock import explained
from bridge.ledger.records import ChangedStudy, Notice, OutboxView, StudyTold, WaitingNotice
from bridge.ledger.store import Ledger, count_of, moment_of, raw_id, text_of

EVENTS_ON_KEY = "events_on"
"""Ledger: events have a way out since then, epoch seconds."""
WAYS_KEY = "events_ways"
"""Ledger: the names of the ways out that are set, with spaces between them."""
DROPPED_KEY = "events_dropped"
"""Ledger: so many events were dropped unsent, for their age or for want of room."""
OUTBOX_ROWS_MAX = 10_000
OUTBOX_AGE_S = 7 * 86_400.0
"""So much waits, and so long; then the oldest are dropped, and counted."""
PAUSE_LONGEST_S = 3600.0
"""Between two attempts at one event."""


class EventLedger(Ledger):
    """The state file as those see it who tell of events."""

    def begin(self, *, ways: Sequence[str], now: float) -> None:
        """Note which ways out events have.

        What was parked before that began is not told: the digest counts it.
        """
        on = bool(ways)
        with explained(self.path), self._transaction():
            self._set_meta(WAYS_KEY, " ".join(ways))
            known = self._db.execute(self._sql["get_meta"], {"key": EVENTS_ON_KEY}).fetchone()
            if on and known is None:
                self._set_meta(EVENTS_ON_KEY, str(now))
                self._db.execute(self._sql["told_all_parked"])
            elif not on and known is not None:
                self._db.execute(self._sql["delete_meta"], {"key": EVENTS_ON_KEY})

    def changed_studies(
        self, *, after: int, limit: int, quiet_since: float, now: float
    ) -> list[ChangedStudy]:
        """List studies that are to be judged, by number. Times: epoch seconds."""
        wanted = {"after": after, "limit": limit, "quiet_since": quiet_since, "now": now}
        with explained(self.path):
            rows = self._db.execute(self._sql["changed_studies"], wanted).fetchall()
            return [
                ChangedStudy(
                    count_of(row["number"]),
                    count_of(row["changed"]),
                    self._study(row),
                    StudyTold(
                        count_of(row["told_seen"]),
                        count_of(row["told_parked"]),
                        bool(row["told_complete"]),
                    ),
                )
                for row in rows
            ]

    def judged(
        self,
        study: ChangedStudy,
        told: StudyTold,
        *,
        stable_at: float | None,
        notices: Iterable[Notice],
    ) -> bool:
        """Note that a study is settled for now, and what is told of it.

        ``stable_at``: when the source said that it is stable; None where it lacks it. False, and
        nothing is noted, where something has come to it since it was read.
        """
        wanted = {
            "number": study.number,
            "changed": study.changes,
            "stable_at": stable_at,
            "seen": told.seen,
            "parked": told.parked,
            "complete": told.complete,
        }
        with explained(self.path), self._transaction():
            if not self._db.execute(self._sql["found_stable"], wanted).rowcount:
                return False
            self._put(notices)
            return True

    def expect_more(self, study_ids: Iterable[str]) -> int:
        """Note that instances of these studies, by Orthanc ID, wait: none of them is settled.

        Returns of how many that was not known.
        """
        rows = [{"orthanc_id": one} for one in study_ids]
        with explained(self.path), self._transaction():
            return self._db.executemany(self._sql["expect_more"], rows).rowcount

    def has_unplaced(self) -> bool:
        """Whether an instance is parked or was dropped of which the study is not known.

        Its file was never read, or its study was forgotten since.
        """
        with explained(self.path):
            for row in self._db.execute(self._sql["lacking_everywhere"]):
                raw = raw_id(text_of(row[0]))
                placed = self._db.execute(self._sql["is_placed"], {"instance": raw})
                if raw and placed.fetchone() is None:
                    return True
            return False

    def place(self, study: ChangedStudy, instances: Iterable[str]) -> bool:
        """Note which of a study's instances are parked or were dropped; False when none is new.

        The study has changed then, and is to be judged anew.
        """
        with explained(self.path), self._transaction():
            found = 0
            for one in instances:
                wanted = {"number": study.number, "instance": raw_id(one), "instance_id": one}
                found += self._db.execute(self._sql["place_lacking"], wanted).rowcount
            if found:
                self._db.execute(self._sql["change_study"], {"number": study.number})
            return found > 0

    def untold_parked(self, limit: int) -> list[tuple[str, str]]:
        """List parked instances of which no event has told: their IDs and reasons."""
        with explained(self.path):
            rows = self._db.execute(self._sql["untold_parked"], {"limit": limit})
            return [(text_of(row[0]), text_of(row[1])) for row in rows]

    def tell(
        self,
        notices: Iterable[Notice],
        *,
        parked: Sequence[str] = (),
        metas: Mapping[str, str] | None = None,
    ) -> None:
        """Put events into the outbox, and note what they tell: parked instances, texts by key."""
        with explained(self.path), self._transaction():
            self._put(notices)
            told = [{"instance_id": instance_id} for instance_id in parked]
            self._db.executemany(self._sql["told_parked"], told)
            for key, value in (metas or {}).items():
                self._set_meta(key, value)

    def due(self, way: str, *, now: float) -> WaitingNotice | None:
        """Return the event that is to be sent next on a way, or None. ``now``: epoch seconds."""
        wanted = {"way": way, "now": now, "latest": now + 2 * PAUSE_LONGEST_S}
        with explained(self.path):
            row = self._db.execute(self._sql["due_in_outbox"], wanted).fetchone()
            if row is None:
                return None
            notice = Notice(
                text_of(row["event_id"]),
                text_of(row["way"]),
                text_of(row["kind"]),
                text_of(row["body"]),
                moment_of(row["created_at"]),
            )
            return WaitingNotice(count_of(row["number"]), notice, count_of(row["attempts"]))

    def sent(self, waiting: WaitingNotice) -> None:
        """Take an event out: its receiver has it."""
        wanted = {"number": waiting.number, "event_id": waiting.notice.event_id}
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["sent_from_outbox"], wanted)

    def put_off(self, waiting: WaitingNotice, *, next_at: float, problem: str) -> None:
        """Note that an attempt came to nothing, and when the next is due, epoch seconds."""
        wanted = {
            "number": waiting.number,
            "event_id": waiting.notice.event_id,
            "next_at": next_at,
            "problem": problem,
        }
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["put_off_in_outbox"], wanted)

    def drop_old(self, age: float) -> int:
        """Drop what has waited for too long; returns how many. Counted.

        ``age``: what a clock shows that nobody can set, seconds: an event begins to age when this
        sees it first. By the time at which it was written, a clock that is days ahead for a moment
        would drop everything.
        """
        with explained(self.path), self._transaction():
            self._db.execute(self._sql["see_outbox"], {"age": age})
            wanted = {"before": age - OUTBOX_AGE_S}
            dropped = self._db.execute(self._sql["drop_old_from_outbox"], wanted).rowcount
            self._count_dropped(dropped)
            return dropped

    def drop_excess(self, *, rows_max: int = OUTBOX_ROWS_MAX) -> int:
        """Drop what is too much, the oldest first; returns how many. Counted."""
        with explained(self.path):
            rows = self._db.execute(self._sql["sum_outbox"]).fetchall()
            if sum(count_of(row[1]) for row in rows) <= rows_max:
                return 0
            with self._transaction():
                wanted = {"rows_max": rows_max}
                dropped = self._db.execute(self._sql["drop_most_from_outbox"], wanted).rowcount
                self._count_dropped(dropped)
                return dropped

    def _count_dropped(self, dropped: int) -> None:
        if dropped:
            row = self._db.execute(self._sql["get_meta"], {"key": DROPPED_KEY}).fetchone()
            self._set_meta(DROPPED_KEY, str((int(row[0]) if row else 0) + dropped))

    def outbox(self) -> OutboxView:
        """Tell what waits on the ways that are set.

        What waits on another one is sent when that is set again, or dropped for its age: nobody can
        do anything about it, and so it is no trouble.
        """
        with explained(self.path):
            rows = self._db.execute(self._sql["sum_outbox"]).fetchall()
            told = self.meta(WAYS_KEY)
            set_now = [text_of(row[0]) for row in rows] if told is None else told.split()
            rows = [row for row in rows if text_of(row[0]) in set_now]
            if not rows:
                return OutboxView()
            wanted = {"ways": json.dumps(set_now)}
            problem = self._db.execute(self._sql["outbox_problem"], wanted).fetchone()
            return OutboxView(
                {text_of(row[0]): count_of(row[1]) for row in rows},
                min(moment_of(row[2]) for row in rows),
                text_of(problem[0]) if problem else "",
            )

    def studies_since(self, since: float) -> tuple[int, int, int]:
        """Count studies of which something came since then: all, stable ones, incomplete ones.

        One that lacks instances may be stable too.
        """
        with explained(self.path):
            row = self._db.execute(self._sql["count_studies_since"], {"since": since}).fetchone()
            return count_of(row[0]), count_of(row[1]), count_of(row[2])

    def _put(self, notices: Iterable[Notice]) -> None:
        rows = [
            {
                "event_id": notice.event_id,
                "way": notice.way,
                "kind": notice.kind,
                "body": notice.body,
                "created_at": notice.created_at,
            }
            for notice in notices
        ]
        self._db.executemany(self._sql["add_to_outbox"], rows)

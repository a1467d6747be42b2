from __future__ import annotations

from pathlib import Path

from bridge.feed.pages import MovePage
from bridge.ledger.store import Ledger
from bridge.model import Move
from bridge.pipeline.journal import FollowJournal


def test_the_newest_date_survives_a_restart_and_not_a_new_history(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        ledger.restart_at(0)
        journal = FollowJournal(ledger, overlap=10)
        first = Move("gone", 4, "20260101T120000")
        journal.admit(MovePage((first,), 0, 8, True, newest_date="20260101T120005"))
        journal.settle(first, None)
        journal.flush()
        # Its row is deleted, and one that was not visible then is now: late, not another history.
        again = FollowJournal(ledger, overlap=10)
        late = Move("late", 3, "20260101T120000")
        assert again.admit(MovePage((late,), 0, 8, True)).late == 1
        ledger.restart_at(8)
        assert ledger.meta("newest_change_at") is None
        ledger.restart_at(8, recent=[(7, "x")], newest_date="20260101T130000")
        assert ledger.meta("newest_change_at") == "20260101T130000"
        assert ledger.recent() == {7: "x"}

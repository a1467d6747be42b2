"""From 0.1.0: its settings, and a state file that its program has written, not this one's SQL.

state_0_1_0.sql is the dump of a state file that commit f5d2bde made between two real Orthancs:
four instances delivered, one parked. settings_0_1_0.env has the settings of its .env.example.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bridge.config import known_variables, load_settings
from bridge.ledger.records import Entry
from bridge.ledger.store import SCHEMA_VERSION, Ledger
from bridge.model import Reason

HERE = Path(__file__).parent
SETTINGS = (HERE / "settings_0_1_0.env").read_text("utf-8")
PARKED = "c67463ea-93fb933f-427c253f-c37b106d-7396f438"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a state file of 0.1.0."""
    path = tmp_path / "bridge.sqlite3"
    db = sqlite3.connect(path)
    db.executescript((HERE / "ledger" / "state_0_1_0.sql").read_text("utf-8"))
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    return path


def test_what_a_state_file_of_0_1_0_holds_is_there_after_the_upgrade(old: Path) -> None:
    with Ledger(old, follow=True) as ledger:
        assert ledger.checkpoint() == 11
        assert ledger.parked_by_reason() == {"undecodable": 1}
        parked = ledger.parked_one(PARKED)
        assert parked is not None
        assert (parked.move.sequence, parked.reason, parked.attempts) == (8, Reason.UNDECODABLE, 1)
        assert parked.sop_instance_uid.startswith("1.3.6.1.4.1.5962.")
        assert sorted(ledger.recent()) == [1, 5, 6, 7, 8]
        assert ledger.dropped_count() == 0
        ledger.commit(Entry(checkpoint=12))
    with Ledger(old, create=False) as again:
        assert again.checkpoint() == 12
        assert again.parked_by_reason() == {"undecodable": 1}


def test_it_is_told_apart_from_a_newer_one_by_what_0_1_0_looks_at(old: Path) -> None:
    """0.1.0 refuses a state file whose user_version is not its 3, and changes nothing."""
    with sqlite3.connect(old) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    Ledger(old).close()
    with sqlite3.connect(old) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert SCHEMA_VERSION > 3


def test_every_setting_of_0_1_0_is_one_and_has_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict(line.split("=", 1) for line in SETTINGS.splitlines())
    assert set(given) <= known_variables()
    monkeypatch.chdir(tmp_path)
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(SETTINGS, "utf-8")
    then = load_settings()
    addresses = {name: value for name, value in given.items() if name.endswith("_URL")}
    (tmp_path / ".env").write_text("".join(f"{n}={v}\n" for n, v in addresses.items()), "utf-8")
    assert then == load_settings()


def test_the_page_names_the_schema_that_1_0_0_writes() -> None:
    page = (HERE.parents[1] / "docs" / "upgrading.md").read_text("utf-8")
    assert f"from schema 3 to schema {SCHEMA_VERSION}." in page

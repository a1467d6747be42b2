"""Results of any length in three formats, filters for what is parked, progress in lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.checks.disk_lists import Spool, spooling
from bridge.commands.output import TABLE_ROWS_MAX, Format, chosen_format, print_result
from bridge.commands.parked import syntax_uid
from bridge.commands.plan import basis
from bridge.errors import ConfigurationError
from bridge.ledger.parked_selection import Selection
from bridge.ledger.records import Entry, Parked
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason

COLUMNS = ("instance", "state")
SUMMARY: dict[str, object] = {"differences": 2, "found": {"missing": 1, "extra": 1}}


def rows(count: int) -> Iterator[dict[str, object]]:
    return ({"instance": f"i-{n}", "state": 'say "x", y' if n else None} for n in range(count))


def printed(how: Format, count: int, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    print_result(how, summary=SUMMARY, name="findings", rows=rows(count), columns=COLUMNS)
    said = capsys.readouterr()
    return said.out, said.err


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_document(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(Format.JSON, count, capsys)
    assert json.loads(out) == {"summary": SUMMARY, "findings": list(rows(count))}
    assert err == ""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_csv_has_the_rows_and_stderr_the_summary(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(Format.CSV, count, capsys)
    found = list(csv.DictReader(io.StringIO(out)))
    assert [row["instance"] for row in found] == [f"i-{n}" for n in range(count)]
    assert all(row["state"] == 'say "x", y' for row in found[1:])
    assert "missing: 1, extra: 1" in err


@pytest.mark.parametrize("how", [Format.TABLE, Format.CSV])
@pytest.mark.parametrize(
    ("counts", "told"), [({}, "findings none"), ({"missing": 1, "extra": 2}, "findings missing: 1")]
)
def test_people_read_what_the_counts_are_of(
    how: Format, counts: dict[str, int], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program finds them as "found", and no counts as an empty object."""
    print_result(how, summary={"found": counts}, name="findings", rows=[], columns=COLUMNS)
    said = "".join(capsys.readouterr())
    assert told in " ".join(said.split())
    assert "found" not in said


@pytest.mark.parametrize(
    ("how", "named"), [(Format.TABLE, "RLELossless"), (Format.JSON, "5"), (Format.CSV, "5")]
)
def test_people_read_keywords_and_programs_uids(
    how: Format, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rle, other = "1.2.840.10008.1.2.5", "1.2.3"
    row = {"source_syntax": rle, "target_syntax": other}
    print_result(
        how, summary={}, name="rows", rows=[row], columns=("source_syntax", "target_syntax")
    )
    said = capsys.readouterr().out
    assert (rle in said) is (how is not Format.TABLE)
    assert named in said
    assert other in said


def test_a_table_shows_the_first_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(Format.TABLE, TABLE_ROWS_MAX + 7, capsys)
    assert f"i-{TABLE_ROWS_MAX - 1} " in out
    assert f"i-{TABLE_ROWS_MAX} " not in out
    assert "... and 7 more" in out
    assert "differences" in out
    assert "INSTANCE" not in printed(Format.TABLE, 0, capsys)[0]


def test_a_table_begins_with_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is missing among a thousand that arrived must not be among those left out."""
    bad = {"i-700", "i-900"}
    print_result(
        Format.TABLE,
        summary={},
        name="findings",
        rows=rows(1000),
        columns=("instance",),
        matters=lambda row: row["instance"] in bad,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["i-700", "i-900", "i-0"]
    assert f"... and {1000 - TABLE_ROWS_MAX} more" in lines[TABLE_ROWS_MAX + 1]


def test_json_is_a_short_form() -> None:
    assert chosen_format(Format.TABLE, as_json=True) is Format.JSON
    assert chosen_format(Format.CSV, as_json=False) is Format.CSV


def test_a_spool_is_read_again_and_added_to() -> None:
    spool = Spool()
    spool.add({"n": 1})
    assert list(spool) == list(spool) == [{"n": 1}]
    spool.add({"n": 2})
    assert list(spool) == [{"n": 1}, {"n": 2}]
    spool.close()


def test_a_full_disk_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="TMPDIR: No space left"), spooling():
        raise OSError(28, "No space left on device")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    def parked(number: int, reason: Reason, syntax: str, sequence: int | None) -> Parked:
        move = Move(f"i{number}", sequence)
        return Parked(move, reason, "", 1, 0.0, 1000.0 * 3600 - number * 3600, syntax)

    with Ledger(tmp_path / "state.sqlite3") as opened:
        opened.commit(
            Entry(
                parked=(
                    parked(0, Reason.UNDECODABLE, "1.2", 10),
                    parked(1, Reason.VIDEO, "1.2", 20),
                    parked(2, Reason.UNDECODABLE, "", None),
                    parked(3, Reason.UNDECODABLE, "1.3", 30),
                )
            )
        )
        yield opened


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), "0123"),
        (Selection(reason=Reason.UNDECODABLE), "023"),
        (Selection(older_than_h=2), "23"),
        (Selection(newer_than_h=1), "01"),
        (Selection(older_than_h=1, newer_than_h=2), "12"),
        (Selection(first=20), "13"),
        (Selection(last=20), "01"),
        (Selection(first=20, last=20), "1"),
        (Selection(syntax="1.2"), "01"),
        (Selection(syntax=""), "2"),
        (Selection(reason=Reason.UNDECODABLE, first=1, syntax="1.2"), "0"),
    ],
)
def test_filters(ledger: Ledger, selection: Selection, chosen: str) -> None:
    found = selection.chosen(ledger, now_s=lambda: 1000.0 * 3600)
    assert "".join(parked.move.instance_id[1:] for parked in found) == chosen


def test_a_syntax_is_named_by_keyword_or_uid() -> None:
    assert syntax_uid("JPEG2000Lossless") == "1.2.840.10008.1.2.4.90"
    assert syntax_uid("mpeg2mpml") == "1.2.840.10008.1.2.4.100"
    assert syntax_uid("1.2.3") == "1.2.3"
    assert (syntax_uid(None), syntax_uid("")) == (None, "")
    with pytest.raises(ConfigurationError, match="JPEG9000"):
        syntax_uid("JPEG9000")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "rough estimate: nothing measured yet (orthanc-bridge docs plan); 4 workers"),
        (0.004, "0% of it is measured by this bridge, the rest is assumed"),
        (1.0, "100% of it is measured by this bridge (orthanc-bridge docs plan)"),
    ],
)
def test_how_good_an_estimate_is(share: float, said: str) -> None:
    assert basis(share, 4).startswith(said)

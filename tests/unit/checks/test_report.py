"""report: the answer for an instance as a table, the audit file read back, plans and estimates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bridge.checks.ask_both_servers import BothServers
from bridge.checks.audit_reader import Record, Records, read_lines
from bridge.checks.disk_lists import SortedTexts
from bridge.checks.pixels import ImageComparison, ImageResult
from bridge.checks.plan import MEASURED_INSTANCES_MIN, PlanRow, estimate_s
from bridge.checks.report import (
    AS_NOTED,
    NOT_READ,
    NOT_TOLD,
    READ,
    Fate,
    Report,
    arrivals,
)
from bridge.checks.throughput import (
    SYNTAXES_MAX,
    Measured,
    Throughput,
    load_throughput,
    route_of,
)
from bridge.commands.report import moment_of
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    InstanceError,
    SideError,
    side_error,
)
from bridge.events import Progress, Settled
from bridge.ledger.store import Ledger
from bridge.model import (
    Action,
    Delivered,
    Move,
    Reason,
    SideName,
    SideProblem,
    StageTimes,
)

J2K, NATIVE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"
DELIVERED = {"outcome": "delivered"}


BULK = {"answered": True}


@pytest.fixture(autouse=True, params=[True, False], ids=["together", "one by one"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BULK, "answered", bool(request.param))


@dataclass
class Server:
    holds: bool
    md5: str = ""
    reads: bool | BridgeError = True

    def verify_stored(self, _instance_id: str) -> bool:
        if isinstance(self.reads, BridgeError):
            raise self.reads
        return self.reads

    def has_instance(self, _instance_id: str) -> bool:
        return self.holds

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        if not BULK["answered"]:
            return None
        return frozenset(instance_ids if self.holds else ())

    def stored_md5(self, _instance_id: str) -> str:
        if not self.md5:
            raise InstanceError(Reason.PROOF_MISMATCH, "none")
        return self.md5

    def close(self) -> None:
        pass


@dataclass
class Images:
    result: ImageResult | None

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        for instance_id, _ in asked:
            assert self.result is not None, "nothing should be compared"
            yield ImageComparison(instance_id, self.result, "told")


@pytest.mark.parametrize(
    ("line", "at_source", "at_target", "result", "fate"),
    [
        (DELIVERED, True, True, ImageResult.SAME, Fate.ARRIVED),
        (DELIVERED, True, True, ImageResult.DIFFERENT, Fate.DIFFERENT),
        (DELIVERED, True, True, ImageResult.UNDECIDED, Fate.UNDECIDED),
        (DELIVERED, True, False, None, Fate.MISSING),
        (None, True, True, ImageResult.SAME, Fate.ARRIVED),
        (None, True, False, None, Fate.MISSING),
        ({**DELIVERED, "samples_sha256": "1"}, False, True, ImageResult.SAME, Fate.ARRIVED),
        ({**DELIVERED, "samples_sha256": "1"}, False, True, ImageResult.DIFFERENT, Fate.DIFFERENT),
        ({**DELIVERED, "target_md5": "m"}, False, True, None, Fate.ARRIVED),
        ({**DELIVERED, "target_md5": "other"}, False, True, None, Fate.DIFFERENT),
        (DELIVERED, False, True, None, Fate.UNDECIDED),
        ({"outcome": "parked", "reason": "video"}, True, False, None, Fate.PARKED),
        ({"outcome": "skipped", "reason": "rule"}, True, False, None, Fate.SKIPPED),
        ({"outcome": "skipped", "reason": "gone"}, False, False, None, Fate.GONE),
        ({"outcome": "skipped", "reason": "gone"}, True, False, None, Fate.MISSING),
    ],
)
def test_the_answer_for_an_instance(
    *,
    line: dict[str, object] | None,
    at_source: bool,
    at_target: bool,
    result: ImageResult | None,
    fate: Fate,
) -> None:
    both = {SideName.SOURCE: Server(at_source), SideName.TARGET: Server(at_target, "m")}
    report = Report()
    with BothServers(both.__getitem__) as servers:  # type: ignore[arg-type]
        (answer,) = arrivals([Record("i", line)], servers, Images(result), report, lambda *_: None)
    assert (answer.fate, answer.at_source, answer.at_target) == (fate, at_source, at_target)
    assert answer.how
    assert report.everything_is_well == (fate in (Fate.ARRIVED, Fate.SKIPPED))


@pytest.mark.parametrize(
    ("reads", "fate", "how"),
    [
        (True, Fate.ARRIVED, READ),
        (False, Fate.DIFFERENT, NOT_READ),
        (InstanceError(Reason.PROOF_MISMATCH, "gone"), Fate.UNDECIDED, NOT_TOLD),
        (side_error(SideName.TARGET, SideProblem.FORBIDDEN, "403"), Fate.UNDECIDED, NOT_TOLD),
        (side_error(SideName.TARGET, SideProblem.UNREACHABLE, "down"), None, ""),
    ],
)
def test_only_verify_reads_the_file_of_which_nothing_but_the_md5_is_known(
    reads: bool | BridgeError, fate: Fate | None, how: str
) -> None:
    """A file that was lost on the target's disk was said to be the one that was proved."""
    both = {SideName.SOURCE: Server(False), SideName.TARGET: Server(True, "m", reads)}
    record = Record("i", {**DELIVERED, "target_md5": "m"})

    def told(*, verify: bool) -> tuple[Fate, str]:
        with BothServers(both.__getitem__) as servers:  # type: ignore[arg-type]
            (answer,) = arrivals(
                [record], servers, Images(None), Report(), lambda *_: None, verify=verify
            )
        return answer.fate, answer.how

    assert told(verify=False) == (Fate.ARRIVED, AS_NOTED)
    if fate is None:
        with pytest.raises(SideError):
            told(verify=True)
    else:
        assert told(verify=True) == (fate, how)


@pytest.mark.parametrize(
    ("outcome", "how"), [("parked", "video"), ("dropped", "video; dropped by a person")]
)
def test_what_was_dropped_is_told_from_what_is_parked(outcome: str, how: str) -> None:
    both = {SideName.SOURCE: Server(True), SideName.TARGET: Server(False, "m")}
    line: dict[str, object] = {"outcome": outcome, "reason": "video"}
    with BothServers(both.__getitem__) as servers:  # type: ignore[arg-type]
        (answer,) = arrivals([Record("i", line)], servers, Images(None), Report(), lambda *_: None)
    assert (answer.fate, answer.how) == (Fate.PARKED, how)


@pytest.mark.parametrize(
    ("line", "at_target", "fate"),
    [
        (None, False, Fate.PARKED),
        ({"outcome": "delivered"}, False, Fate.PARKED),
        (None, True, Fate.ARRIVED),
    ],
)
def test_what_is_parked_now_is_not_told_as_missing(
    line: dict[str, object] | None, fate: Fate, *, at_target: bool
) -> None:
    """Without an audit file only the state file knows of it."""
    both = {SideName.SOURCE: Server(True), SideName.TARGET: Server(at_target, "m")}
    with BothServers(both.__getitem__) as servers:  # type: ignore[arg-type]
        (answer,) = arrivals(
            [Record("i", line)],
            servers,
            Images(ImageResult.SAME),
            Report(),
            lambda *_: None,
            parked_as={"i": "undecodable"}.get,
        )
    assert answer.fate is fate
    assert (answer.how == "undecodable") is (fate is Fate.PARKED)


def write(path: Path, *lines: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_last_arrival_counts_and_files_put_aside_are_read_first(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write(tmp_path / "audit.jsonl.000001", {"instance": "a", "outcome": "parked", "n": 1})
    write(
        tmp_path / "audit.jsonl.000002",
        {"instance": "a", "outcome": "delivered", "n": 2},
        {"instance": "b", "outcome": "parked", "n": 3},
    )
    write(path, {"instance": "a", "outcome": "skipped", "n": 4}, {"instance": "b", "n": 5})
    with path.open("a") as file:
        file.write('{"instance": "\\ud800", "n": 6}\n')  # no text: nobody can be asked for it
        file.write('{"torn": "li')
    with SortedTexts() as texts:
        asked = Records(texts)
        asked.ask(["a", "c"])
        asked.add(read_lines(path), lambda _: True)
        found = {record.instance_id: record.line for record in asked}
    assert {i: line and line["n"] for i, line in found.items()} == {"a": 2, "b": 5, "c": None}


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (("delivered",), "t0"),
        (("delivered", "already_there", "already_there"), "t0"),
        (("delivered", "already_there", "delivered"), "t2"),
        (("already_there",), "t0"),
        (("already_there", "already_there"), "t0"),
        (("parked", "delivered"), "t1"),
        (("parked",), ""),
    ],
)
def test_a_replay_does_not_change_when_it_was_delivered(
    outcomes: tuple[str, ...], expected: str
) -> None:
    with SortedTexts() as texts:
        asked = Records(texts)
        lines = [
            {"instance": "a", "outcome": outcome, "time": f"t{number}"}
            for number, outcome in enumerate(outcomes)
        ]
        asked.add(lines, lambda _: True)
        (record,) = asked
    assert record.delivered_at == expected


def test_without_an_audit_file_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no audit file"):
        list(read_lines(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("text", "epoch_s"),
    [
        ("90s", 99_910.0),
        # Older than anything that is on record, and than what a date can tell.
        ("99999999d", 0.0),
        (f"{10**12}m", 0.0),
        ("9" * 5000 + "s", 0.0),
        ("0001-01-01", 0.0),
        ("0001-01-01T00:00+14:00", 0.0),
        ("1970-01-01T00:10", 600.0),
        ("1970-01-01T01:10+01:00", 600.0),
        ("1970-01-02", 86400.0),
    ],
)
def test_moments_and_ages(text: str, epoch_s: float) -> None:
    assert moment_of(text, now_s=100_000.0) == epoch_s


@pytest.mark.parametrize(
    "text", ["", "yesterday", "24", "h", "1970-01-02", "9999-12-31T23:59:59-14:00"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        moment_of(text, now_s=86_399.0)


def delivered(source_bytes: int, seconds: float, status: str = "Success") -> Settled:
    done = Delivered(
        status, Action.TRANSCODED, J2K, NATIVE, "", source_bytes, 0, StageTimes(seconds)
    )
    return Settled(Move("i", 1), done, 1)


def test_throughput_is_measured_kept_and_used_for_the_estimate(tmp_path: Path) -> None:
    clock = iter(range(0, 100_000, 61))
    measuring = Throughput(steady_s=lambda: float(next(clock)))
    with Ledger(tmp_path / "state.sqlite3") as ledger:
        with measuring.kept_in(ledger):
            for _ in range(30):
                measuring.on_event(delivered(1000, 0.5))
            measuring.on_event(delivered(10**9, 500.0, "AlreadyStored"))
            measuring.on_progress(Progress())
            kept = load_throughput(ledger)
        assert kept == {route_of(J2K, NATIVE): Measured(30.0, 30_000.0, 15.0)}
        with Throughput().kept_in(ledger):
            pass
        assert load_throughput(ledger) == kept, "a run without deliveries forgets nothing"
        row = PlanRow(J2K, "transcode", NATIVE, "", instances=10, source_bytes=10_000)
        assert estimate_s(row, kept) == (5.0, True)
        ledger.set_meta("throughput", "nonsense")
        assert load_throughput(ledger) == {}


def test_old_measurements_fade() -> None:
    settled = delivered(1000, 0.5).outcome
    assert isinstance(settled, Delivered)
    assert Measured(19_999, 0, 0).plus(settled).instances == 20_000
    seen = Measured(20_000, 20_000_000, 10_000).plus(settled)
    assert seen == Measured(10_001, 10_001_000, 5_000.5)


def test_assumed_estimates_grow_with_size_and_difficulty() -> None:
    def seconds(source: str, deed: str, to: str, size: int = 10**8) -> float:
        work_s, measured = estimate_s(PlanRow(source, deed, to, "", 100, size), {})
        assert not measured
        return work_s

    rle = "1.2.840.10008.1.2.5"
    assert seconds(J2K, "transcode", NATIVE) > seconds(rle, "transcode", NATIVE)
    assert seconds(rle, "transcode", NATIVE) > seconds(NATIVE, "unchanged", NATIVE) / 2
    assert seconds(NATIVE, "transcode", J2K) > seconds(NATIVE, "unchanged", NATIVE)
    assert seconds(J2K, "transcode", NATIVE, 2 * 10**8) > 1.5 * seconds(J2K, "transcode", NATIVE)
    assert seconds(J2K, "park", "") == seconds(J2K, "skip", "") == 0.0


def test_so_many_routes_are_measured_and_those_that_are_known_go_on() -> None:
    """A server cannot fill the state file with names of transfer syntaxes."""
    measuring = Throughput()
    known = delivered(1000, 0.5).outcome
    assert isinstance(known, Delivered)

    def happen(number: int) -> None:
        done = replace(known, source_syntax=f"1.2.{number}")
        measuring.on_event(Settled(Move("i", 1), done, 1))

    for number in range(SYNTAXES_MAX + 1):
        happen(number)
    happen(SYNTAXES_MAX - 1)
    found = measuring._table
    assert len(found) == SYNTAXES_MAX
    assert route_of(f"1.2.{SYNTAXES_MAX}", NATIVE) not in found
    assert found[route_of(f"1.2.{SYNTAXES_MAX - 1}", NATIVE)].instances == 2


@pytest.mark.parametrize("instances", [MEASURED_INSTANCES_MIN - 1, MEASURED_INSTANCES_MIN])
def test_a_few_deliveries_make_no_measurement(instances: int) -> None:
    table = {route_of(J2K, NATIVE): Measured(instances, 1000.0, 3.0)}
    row = PlanRow(J2K, "transcode", NATIVE, "", instances=10, source_bytes=2000)
    work_s, measured = estimate_s(row, table)
    assert measured is (instances == 20)
    assert (work_s == 6.0) is measured

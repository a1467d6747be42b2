"""report: the answer for an instance as a table, the audit file read back, plans and estimates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.core.errors import ConfigurationError, InstanceError
from bridge.core.events import Progress, Settled
from bridge.core.model import Action, Delivered, Move, Reason, SideName, StageTimes
from bridge.images import Likeness, Verdict
from bridge.ledger import Ledger
from bridge.lookers import Lookers
from bridge.planning import Row, estimate_s
from bridge.records import Record, Records, read_lines, records
from bridge.reporting import Fate, Report, answers
from bridge.studies import moment_of
from bridge.throughput import Measured, Throughput, load_throughput, route_of

J2K, NATIVE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"
DELIVERED = {"outcome": "delivered"}


@dataclass
class Server:
    holds: bool
    md5: str = ""

    def has_instance(self, _instance_id: str) -> bool:
        return self.holds

    def stored_md5(self, _instance_id: str) -> str:
        if not self.md5:
            raise InstanceError(Reason.PROOF_MISMATCH, "none")
        return self.md5

    def close(self) -> None:
        pass


@dataclass
class Images:
    likeness: Likeness | None

    def verdicts(self, asked: Iterable[tuple[str, str]]) -> Iterator[Verdict]:
        for instance_id, _ in asked:
            assert self.likeness is not None, "nothing should be compared"
            yield Verdict(instance_id, self.likeness, "told")


@pytest.mark.parametrize(
    ("line", "at_source", "at_target", "likeness", "fate"),
    [
        (DELIVERED, True, True, Likeness.SAME, Fate.ARRIVED),
        (DELIVERED, True, True, Likeness.DIFFERENT, Fate.DIFFERENT),
        (DELIVERED, True, True, Likeness.UNDECIDED, Fate.UNDECIDED),
        (DELIVERED, True, False, None, Fate.MISSING),
        (None, True, True, Likeness.SAME, Fate.ARRIVED),
        (None, True, False, None, Fate.MISSING),
        ({**DELIVERED, "samples_sha256": "1"}, False, True, Likeness.SAME, Fate.ARRIVED),
        ({**DELIVERED, "samples_sha256": "1"}, False, True, Likeness.DIFFERENT, Fate.DIFFERENT),
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
    likeness: Likeness | None,
    fate: Fate,
) -> None:
    servers = {SideName.SOURCE: Server(at_source), SideName.TARGET: Server(at_target, "m")}
    report = Report()
    with Lookers(servers.__getitem__) as lookers:  # type: ignore[arg-type]
        (answer,) = answers([Record("i", line)], lookers, Images(likeness), report, lambda *_: None)
    assert (answer.fate, answer.at_source, answer.at_target) == (fate, at_source, at_target)
    assert answer.how
    assert report.everything_is_well == (fate in (Fate.ARRIVED, Fate.SKIPPED))


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
        file.write('{"torn": "li')
    with records(run_texts_max=2) as texts:
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
    with records() as texts:
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
        ("90s", 910.0),
        ("1970-01-01T00:10", 600.0),
        ("1970-01-01T01:10+01:00", 600.0),
        ("1970-01-02", 86400.0),
    ],
)
def test_moments_and_ages(text: str, epoch_s: float) -> None:
    assert moment_of(text, now_s=1000.0) == epoch_s


@pytest.mark.parametrize("text", ["", "yesterday", "24", "h"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        moment_of(text, now_s=0.0)


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
        row = Row(J2K, "transcode", NATIVE, "", instances=10, source_bytes=10_000)
        assert estimate_s(row, kept) == (5.0, True)
        ledger.set_meta("throughput", "nonsense")
        assert load_throughput(ledger) == {}


def test_old_measurements_fade() -> None:
    settled = delivered(1000, 0.5).outcome
    assert isinstance(settled, Delivered)
    seen = Measured(20_000, 20_000_000, 10_000).plus(settled)
    assert seen == Measured(10_001, 10_001_000, 5_000.5)


def test_assumed_estimates_grow_with_size_and_difficulty() -> None:
    def seconds(source: str, deed: str, to: str, size: int = 10**8) -> float:
        work_s, measured = estimate_s(Row(source, deed, to, "", 100, size), {})
        assert not measured
        return work_s

    rle = "1.2.840.10008.1.2.5"
    assert seconds(J2K, "transcode", NATIVE) > seconds(rle, "transcode", NATIVE)
    assert seconds(rle, "transcode", NATIVE) > seconds(NATIVE, "unchanged", NATIVE) / 2
    assert seconds(NATIVE, "transcode", J2K) > seconds(NATIVE, "unchanged", NATIVE)
    assert seconds(J2K, "transcode", NATIVE, 2 * 10**8) > 1.5 * seconds(J2K, "transcode", NATIVE)
    assert seconds(J2K, "park", "") == seconds(J2K, "skip", "") == 0.0

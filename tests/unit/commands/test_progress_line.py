"""One line that tells how far a command is: what stays of it where a terminal is narrow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.commands import progress_bar
from bridge.commands.progress_bar import (
    LINE_EVERY_S,
    MovesProgress,
    OnceProgress,
    RangeProgress,
    VerifyingProgress,
    counting,
    draws_bars,
    showing,
)
from bridge.commands.progress_line import (
    BAR_MIN,
    WINDOW_S,
    Line,
    Pace,
    Position,
    as_text,
    clock,
    compact,
    line_of,
)
from bridge.errors import SourceError
from bridge.events import (
    InstanceParked,
    ListCompared,
    Progress,
    Settled,
    VerificationWorks,
    Verified,
)
from bridge.model import Move, Reason, SideProblem, Skipped


def _pace(*points: tuple[float, int, int]) -> Pace:
    """Return a pace that was told so: seconds, done, instances."""
    pace = Pace(0.0, Position("x", 0, None))
    for at_s, done, instances in points:
        pace.note(at_s, Position("x", done, None, instances))
    return pace


def _shown(line: Line) -> str:
    return f"{line.before}{'#' * line.bar}{line.after}"


MIDDLE = Position("replay", 410, 1000, instances=82, parked=3)
PACE = _pace((10.0, 200, 40), (20.0, 400, 80))


def test_sixty_columns_hold_bar_percent_count_parked_rate_and_time_left() -> None:
    line = line_of(MIDDLE, PACE, now_s=20.0, width=59)
    assert line.before == "replay "
    assert line.after == "  41%  82 done  3 parked  4.1/s  ETA 0:29"
    assert line.bar >= BAR_MIN
    assert len(_shown(line)) <= 59


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (56, "replay ########  41%  82 done  3 parked  4.1/s  ETA 0:29"),
        (55, "replay ################  41%  3 parked  4.1/s  ETA 0:29"),
        (47, "replay ########  41%  3 parked  4.1/s  ETA 0:29"),
        (46, "replay   41%  3 parked  4.1/s  ETA 0:29"),
        (38, "replay   41%  3 parked  ETA 0:29"),
        (31, "replay   41%  3 parked"),
        (21, "replay  41%  3 parked"),
        (14, " 41%  3 parked"),
        (4, " 41%"),
        (0, ""),
    ],
)
def test_what_matters_least_goes_first(width: int, shown: str) -> None:
    line = line_of(MIDDLE, PACE, now_s=20.0, width=width)
    assert _shown(line) == shown


@given(
    phase=st.sampled_from(["replay", "comparing pixels", "listing the source"]),
    done=st.integers(0, 10**13),
    total=st.none() | st.integers(0, 10**13),
    instances=st.none() | st.integers(0, 10**13),
    parked=st.none() | st.integers(0, 10**9),
    now_s=st.floats(0, 10**8),
    width=st.integers(0, 250),
)
def test_no_line_is_wider_than_the_terminal(  # noqa: PLR0917 (hypothesis gives them)
    phase: str,
    done: int,
    total: int | None,
    instances: int | None,
    parked: int | None,
    now_s: float,
    width: int,
) -> None:
    position = Position(phase, done, total, instances, parked)
    pace = Pace(0.0, replace(position, done=0))
    pace.note(now_s / 2, position)
    line = line_of(position, pace, now_s=now_s, width=width)
    assert len(_shown(line)) <= width
    assert line.bar == 0 or line.bar >= BAR_MIN
    assert "\n" not in as_text(position, pace, now_s=now_s)


def test_without_a_total_there_is_a_count_and_no_time_left() -> None:
    listed = Position("listing the source", 20_000, None)
    pace = _pace((10.0, 10_000, 10_000))
    line = line_of(listed, pace, now_s=20.0, width=59)
    assert _shown(line) == "listing the source  20k  1000/s  in 0:20"


def test_the_rate_is_that_of_the_last_minute() -> None:
    """Fails with a mean from the beginning: a server that has become slow looks fast for hours."""
    pace = Pace(0.0, Position("x", 0, 10**6))
    for second in range(1000):
        pace.note(float(second), Position("x", second * 100, 10**6))
    for second in range(1000, 1000 + int(WINDOW_S) + 2):
        pace.note(float(second), Position("x", 100_000 + second - 1000, 10**6))
    end = 1000.0 + WINDOW_S + 1
    now = Position("x", 100_061, 10**6)
    rate = pace.rate(end, now)
    assert rate is not None
    assert 0.9 < rate < 1.1
    left_s = pace.left_s(end, now)
    assert left_s is not None
    assert 800_000 < left_s < 1_000_000


def test_nothing_is_guessed_too_early_or_where_nothing_goes_on() -> None:
    begun = Pace(0.0, MIDDLE)
    assert begun.rate(1.0, MIDDLE) is None
    assert begun.left_s(1.0, MIDDLE) is None
    stands = _pace(*((float(s), 410, 82) for s in range(1, 200)))
    assert stands.rate(200.0, MIDDLE) == 0
    assert stands.left_s(200.0, MIDDLE) is None
    assert "ETA -:--" in _shown(line_of(MIDDLE, stands, now_s=200.0, width=59))


def test_what_has_ended_tells_how_long_it_took() -> None:
    done = Position("replay", 1000, 1000, instances=200, parked=0)
    assert line_of(done, PACE, now_s=75.0, width=59).after.endswith("in 1:15")
    assert "left" not in as_text(done, PACE, now_s=75.0)
    assert Position("x", 0, 0).share == 1
    assert Position("x", 0, 0).ended


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0"),
        (0.0, "0.0"),
        (7.53, "7.5"),
        (9.96, "10"),
        (412.4, "412"),
        (9999, "9999"),
        (10_000, "10k"),
        (412_000, "412k"),
        (999_600, "1.0M"),
        (1_234_567, "1.2M"),
        (2_500_000_000, "2.5G"),
        (10**13, "10T"),
    ],
)
def test_numbers_take_little_room(number: float, written: str) -> None:
    assert compact(number) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0:00"),
        (48.4, "0:48"),
        (59.6, "1:00"),
        (3599.6, "1:00:00"),
        (11_220, "3:07:00"),
        (172_799, "47:59:59"),
        (172_800, "2 d 0 h"),
        (370_800, "4 d 7 h"),
    ],
)
def test_spans_are_written_as_clocks_do(seconds: float, written: str) -> None:
    assert clock(seconds) == written


Told = list[tuple[str, int, int | None, int | None, int | None]]


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: Told = []

    def __call__(
        self,
        phase: str,
        done: int,
        total: int | None,
        /,
        instances: int | None = None,
        parked: int | None = None,
    ) -> None:
        self.told.append((phase, done, total, instances, parked))


def _settled() -> Settled:
    return Settled(Move("i"), Skipped(Reason.DRY_RUN), 1)


def _parked() -> InstanceParked:
    return InstanceParked(Move("i"), Reason.UNDECODABLE, "", 1)


def test_a_range_is_done_by_its_changes_and_tells_its_instances() -> None:
    shown = Recorder()
    progress = RangeProgress(shown, "replay", 11)
    progress.begin(20)
    progress.on_event(_settled())
    progress.on_event(_parked())
    progress.on_progress(Progress(checkpoint=15))
    assert progress.next == 16
    progress.on_progress(Progress(checkpoint=99))
    assert shown.told[0] == ("replay", 0, 10, 0, 0)
    assert shown.told[-2:] == [("replay", 5, 10, 2, 1), ("replay", 10, 10, 2, 1)]


def test_a_range_without_changes_is_done_at_once() -> None:
    shown = Recorder()
    RangeProgress(shown, "following", 12).begin(11)
    assert shown.told == [("following", 0, 0, 0, 0)]


def test_a_snapshot_counts_what_the_target_has_already_then_comes_the_feed() -> None:
    """Fails when what is passed over is left out: the bar would never reach its end."""
    shown = Recorder()
    once = OnceProgress(shown, held=100)
    once.on_event(_settled())
    assert shown.told == [], "nothing is known to be moved before a phase has begun"
    once.on_progress(Progress(phase="snapshot"))
    once.on_event(ListCompared(60, 10))
    once.on_event(_settled())
    once.on_event(_parked())
    assert shown.told[-1] == ("snapshot", 52, 100, 2, 1)
    once.on_progress(Progress(phase="following", checkpoint=500, last=None))
    once.on_progress(Progress(phase="following", checkpoint=500, last=510))
    once.on_event(_settled())
    once.on_progress(Progress(phase="draining", checkpoint=505, last=510))
    once.on_progress(Progress(phase="following", checkpoint=505, last=510))
    assert shown.told[-1] == ("following", 5, 10, 1, 0)


def test_more_than_the_source_has_counted_is_no_more_than_all() -> None:
    shown = Recorder()
    moves = MovesProgress(shown, "snapshot", 1)
    moves.on_event(_settled())
    moves.on_event(_settled())
    assert shown.told == [("snapshot", 1, 1, 1, 0), ("snapshot", 2, 2, 2, 0)]


def test_a_verification_counts_what_is_verified() -> None:
    shown = Recorder()
    verifying = VerifyingProgress(shown, held=1000)
    verifying.on_event(VerificationWorks(400))
    verifying.on_event(VerificationWorks())
    verifying.on_event(VerificationWorks(1200))
    verifying.on_event(Verified(1200, {}, 0, 0, 0, 0))
    done = [(done, total) for _, done, total, _, _ in shown.told]
    assert done == [(400, 1000), (1200, 1200), (1200, 1200)]


@pytest.fixture
def clock_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No terminal, and the time that a test says."""
    now = [0.0]
    monkeypatch.setattr("bridge.commands.progress_bar.time.monotonic", lambda: now[0])
    monkeypatch.setattr("bridge.commands.progress_bar.on_terminal", lambda: False)
    return now


def test_without_a_terminal_a_line_is_said_now_and_then(
    clock_s: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with counting("check") as show:
        for number in range(1, 14):
            clock_s[0] = float(number)
            show("comparing", number, 13)
    assert capsys.readouterr().err.splitlines() == [
        "check: comparing: 5 of 13, 4 s, 1.0/s, about 8 s left",
        "check: comparing: 10 of 13, 9 s, 1.0/s, about 3 s left",
    ]
    assert LINE_EVERY_S == 5.0


def test_without_a_terminal_the_end_of_moves_is_said(
    clock_s: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with showing("replay") as show:
        moves = RangeProgress(show, "replay", 1)
        moves.begin(2)
        moves.on_event(_settled())
        clock_s[0] = 1.0
        moves.on_progress(Progress(checkpoint=2))
        moves.on_progress(Progress(checkpoint=2))
    assert capsys.readouterr().err.splitlines() == ["replay 100%: 1 instance, 0 parked, 1 s"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SourceError(SideProblem.UNREACHABLE, "x")])
def test_a_look_that_is_cut_short_says_how_far_it_was(
    clock_s: list[float],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException] | BaseException,
) -> None:
    assert clock_s == [0.0]
    monkeypatch.setattr("sys.argv", ["x", "check", "--sample", "3"])
    caught = error if isinstance(error, type) else type(error)

    def look() -> None:
        with counting("check") as show:
            show("comparing", 412, 1000)
            raise error

    with pytest.raises(caught):
        look()
    assert capsys.readouterr().err.splitlines() == [
        "check: cut short at: comparing, 412 of 1000",
        "check: it has changed nothing, and begins anew: orthanc-bridge check --sample 3",
    ]


@pytest.mark.parametrize(
    ("watched", "term", "draws"),
    [(True, "xterm", True), (True, "dumb", False), (True, None, False), (False, "xterm", False)],
)
def test_a_bar_is_drawn_where_a_line_can_be_drawn_anew(
    monkeypatch: pytest.MonkeyPatch, *, watched: bool, term: str | None, draws: bool
) -> None:
    monkeypatch.setattr(progress_bar, "on_terminal", lambda: watched)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert draws_bars() == draws

"""Long commands at a terminal of 60 columns, a narrow one, and one whose size changes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.integration.conftest import undecodable_ct
from tests.terminal import AtTerminal

SLOW = {"BRIDGE_MAX_INSTANCES_S": "8"}
"""Instances a second: 40 take five seconds, in which there is something to see."""
INSTANCES = 40


@pytest.fixture
def servers(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path
) -> Iterator[tuple[FakePair, FakeOrthanc, FakeOrthanc]]:
    source, target = fake_orthanc(), fake_orthanc()
    for data in small_series(INSTANCES - 1):
        source.put(data)
    source.put(undecodable_ct())
    pair = FakePair(source.url, target.url, tmp_path / "home")
    yield pair, source, target
    pair.close()


Servers = tuple[FakePair, FakeOrthanc, FakeOrthanc]


def at(pair: FakePair, *arguments: str, columns: int = 60, **settings: str) -> AtTerminal:
    both = pair.environment | SLOW | settings
    return AtTerminal(*arguments, columns=columns, settings=both, cwd=pair.home)


def test_a_replay_at_sixty_columns_shows_bar_rate_parked_and_time_left(servers: Servers) -> None:
    with at(servers[0], "replay", "--from", "1") as terminal:
        code, _ = terminal.wait()
    screen = terminal.screen
    assert code == 3
    assert not screen.hides_cursor, "a command that is killed would leave it hidden"
    assert screen.colours
    bars = [line for seen in terminal.seen for line in seen.splitlines() if "━" in line]
    assert max(map(len, bars)) <= 60
    middle = [line for line in bars if "/s" in line and "ETA" in line and "parked" in line]
    assert middle, screen.text
    assert "ETA 0:0" in middle[-1]
    end = [line for line in screen.lines if "100%" in line]
    assert len(end) == 1, f"one bar stays, not a trail of them: {screen.text}"
    assert "1 parked" in end[0]
    logged = [line for line in screen.lines if "instance_parked" in line]
    assert len(logged) == 1
    assert logged[0].startswith("20"), "what is logged begins a line of its own, above the bar"
    assert sum("━" in line for line in screen.lines) == 1, screen.text
    assert "delivered      39" in screen.text


def test_without_colours_the_bar_is_readable(servers: Servers) -> None:
    with at(servers[0], "replay", "--from", "1", NO_COLOR="1") as terminal:
        terminal.wait()
    assert terminal.screen.colours == 0
    assert any("━ " in seen for seen in terminal.seen), "what is left of the bar is blank"


def test_a_narrow_terminal_is_not_overrun(servers: Servers) -> None:
    with at(servers[0], "replay", "--from", "1", columns=24) as terminal:
        terminal.wait()
    bars = [line for line in terminal.screen.lines if "100%" in line]
    assert len(bars) == 1, terminal.screen.text
    assert "1 parked" in bars[0]


def test_a_terminal_that_becomes_narrower_and_wider(servers: Servers) -> None:
    with at(servers[0], "replay", "--from", "1", columns=100) as terminal:
        terminal.wait_for("ETA 0:")
        terminal.resize(40)
        before = len(terminal.seen)

        def narrow() -> bool:
            """What is too long goes on in the next line here, without its beginning."""
            later = "\n".join(terminal.seen[before:]).splitlines()
            bars = [line for line in later if line.startswith("replay") and "ETA" in line]
            return any(len(bar) <= 40 for bar in bars)

        wait_until(narrow, "a narrow bar in one line", 60.0)
        terminal.resize(60)
        code, _ = terminal.wait()
    assert code == 3
    assert any("100%" in line and "━" in line for line in terminal.screen.lines)


def test_stdout_that_is_no_terminal_gets_the_result_alone(servers: Servers) -> None:
    pair = servers[0]
    with AtTerminal(
        "replay",
        "--from",
        "1",
        "--json",
        columns=60,
        settings=pair.environment | SLOW,
        cwd=pair.home,
        stdout=False,
    ) as terminal:
        _, out = terminal.wait()
    assert json.loads(out)["delivered"] == INSTANCES - 1
    assert "100%" in terminal.screen.text


def test_a_terminal_that_cannot_draw_gets_lines(servers: Servers) -> None:
    with at(servers[0], "replay", "--from", "1", TERM="dumb") as terminal:
        terminal.wait()
    assert "replay 100%: 40 instances, 1 parked" in terminal.screen.text
    assert "━" not in terminal.screen.text


def test_a_snapshot_shows_how_much_is_left_and_says_how_to_go_on(servers: Servers) -> None:
    """Half of it is at the target before: that is done from the first moment on."""
    pair, _, target = servers
    with at(pair, "run", "--once", BRIDGE_START="snapshot") as terminal:
        terminal.wait_for("ETA 0:0")
        terminal.send_signal(signal.SIGINT)
        code, _ = terminal.wait()
    assert code == 130
    assert "snapshot" in terminal.screen.text
    assert "to continue, run: orthanc-bridge run --once" in terminal.screen.text
    assert len(target.store.listing()) < INSTANCES - 1
    with at(pair, "run", "--once", BRIDGE_START="snapshot") as terminal:
        code, _ = terminal.wait()
    assert code == 3
    assert len(target.store.listing()) == INSTANCES - 1
    (end,) = [line for line in terminal.screen.lines if line.startswith("snapshot ")]
    assert "100%" in end, "what the target had before counts as done"


def test_check_and_check_fix_show_how_far_they_are(servers: Servers) -> None:
    with at(servers[0], "check", "--fix") as terminal:
        code, _ = terminal.wait()
    assert code == 3
    lines = terminal.screen.lines
    for phase in ("listing the source  ", "comparing ", "delivering "):
        assert sum(line.startswith(phase) for line in lines) == 1, terminal.screen.text
    (delivering,) = [line for line in lines if line.startswith("delivering ")]
    assert "100%" in delivering
    assert "1 parked" in delivering


def test_a_retry_shows_how_far_it_is(servers: Servers) -> None:
    pair = servers[0]
    pair.run("replay", "--from", "1")
    with at(pair, "parked", "retry", "--all") as terminal:
        code, _ = terminal.wait()
    assert code == 3
    assert any(line.startswith("retry ") and "1 parked" in line for line in terminal.screen.lines)


def test_a_check_that_repairs_shows_how_far_it_is(servers: Servers) -> None:
    pair, source, target = servers
    pair.run("run", "--once")
    for instance in list(target.store.instances)[:3]:
        target.store.delete(instance)
    with at(pair, "check", "--repair") as terminal:
        code, _ = terminal.wait()
    screen = terminal.screen
    assert code == 3, "one is parked"
    assert len(target.store.listing()) == INSTANCES - 1
    (verifying,) = [line for line in screen.lines if line.startswith("verifying ")]
    assert "100%" in verifying
    assert screen.wrapped == 0 or max(map(len, screen.lines)) <= 60
    assert not [line for line in screen.lines if line.startswith("listing ")]
    assert len(source.store.listing()) == INSTANCES


def test_a_folder_that_is_tried_shows_how_far_it_is(servers: Servers, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, data in enumerate([*small_series(30), undecodable_ct()]):
        (folder / f"{number:02}.dcm").write_bytes(data)
    with at(servers[0], "try", str(folder)) as terminal:
        code, _ = terminal.wait()
    assert code == 3
    bars = [line for seen in terminal.seen for line in seen.splitlines() if "━" in line]
    assert max(map(len, bars)) <= 60
    assert sum("━" in line for line in terminal.screen.lines) == 1, "one bar stays"
    (end,) = [line for line in terminal.screen.lines if line.startswith("try ")]
    assert "100%" in end
    assert "1 parked" in end


@pytest.mark.orthanc
def test_the_demo_shows_how_far_it_is(servers: Servers) -> None:
    with at(servers[0], "demo", BRIDGE_MAX_INSTANCES_S="0") as terminal:
        code, _ = terminal.wait()
    assert code == 0, terminal.screen.text
    bars = [line for seen in terminal.seen for line in seen.splitlines() if "━" in line]
    phases = {line.split(" ")[0] for line in bars}
    assert "moving" in phases, terminal.screen.text
    assert max(map(len, bars)) <= 60
    assert "0 wrong" in terminal.screen.text.replace("\n", " ")

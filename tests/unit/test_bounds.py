"""Bounds of what people and servers say, each at its edge: so much is taken, one more is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge import own_files
from bridge.commands.report import AGE_DIGITS_MAX, moment_of
from bridge.config import (
    DIGITS_MAX,
    MAX_SEQUENCE,
    WORKERS_BEYOND_CPUS,
    WORKERS_MAX,
    default_workers,
    load_settings,
)
from bridge.credentials import POKE_TOKEN_LENGTH_MIN, poke_token
from bridge.errors import ConfigurationError
from bridge.marks import NUMBERS_TRIED_MAX, _free_number
from bridge.model import Page
from bridge.monitoring.names import NAME_CHARACTERS_MAX
from bridge.own_files import LINKS_MAX, real_path
from bridge.pipeline.pacing import RATE_ENTRIES_MAX, parse_timetable
from bridge.two_servers import LOOKS_MAX, Compared, compare_feeds
from bridge.untrusted_text import (
    CUT,
    TEXT_CHARACTERS_MAX,
    UID_CHARACTERS_MAX,
    cleaned,
    shortened,
    uid_or_nothing,
)


@pytest.mark.parametrize(
    ("name", "longest", "beyond"),
    [
        ("START", str(MAX_SEQUENCE), str(MAX_SEQUENCE + 1)),
        ("START", "7".zfill(DIGITS_MAX), "7".zfill(DIGITS_MAX + 1)),
        ("WORKERS", str(WORKERS_MAX), str(WORKERS_MAX + 1)),
        ("NAME", "n" * NAME_CHARACTERS_MAX, "n" * (NAME_CHARACTERS_MAX + 1)),
        ("COMMAND_PREFIX", "p" * NAME_CHARACTERS_MAX, "p" * (NAME_CHARACTERS_MAX + 1)),
        ("VERIFY", f"sample:{'7'.zfill(DIGITS_MAX)}", f"sample:{'7'.zfill(DIGITS_MAX + 1)}"),
    ],
)
def test_a_setting(monkeypatch: pytest.MonkeyPatch, name: str, longest: str, beyond: str) -> None:
    for side in ("SOURCE", "TARGET"):
        monkeypatch.setenv(f"BRIDGE_{side}_URL", f"http://{side.lower()}:8042")
    monkeypatch.setenv(f"BRIDGE_{name}", longest)
    taken = getattr(load_settings(), name.lower())
    assert str(taken) == (longest.lstrip("0") if longest.isdigit() else longest)
    monkeypatch.setenv(f"BRIDGE_{name}", beyond)
    with pytest.raises(ConfigurationError, match=f"BRIDGE_{name}"):
        load_settings()


@pytest.mark.parametrize("cpus", [1, 3, 253, 254, 255, 1000])
def test_no_more_workers_than_may_be_set_whatever_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cpus)))
    expected = cpus + WORKERS_BEYOND_CPUS if cpus + WORKERS_BEYOND_CPUS <= WORKERS_MAX else 256
    assert default_workers() == expected


def test_a_poke_token_is_long_enough_not_to_be_guessed(tmp_path: Path) -> None:
    shortest = "k" * POKE_TOKEN_LENGTH_MIN
    nowhere = tmp_path / ".env"
    assert poke_token({"BRIDGE_POKE_TOKEN": shortest}, nowhere) == shortest
    with pytest.raises(ConfigurationError, match="fewer than 16"):
        poke_token({"BRIDGE_POKE_TOKEN": shortest[1:]}, nowhere)


def test_an_age_of_more_digits_is_older_than_anything() -> None:
    now_s = 1_700_000_000.0
    assert moment_of("9".zfill(AGE_DIGITS_MAX) + "s", now_s=now_s) == now_s - 9
    assert moment_of("9".zfill(AGE_DIGITS_MAX + 1) + "s", now_s=now_s) == 0.0
    assert moment_of("9" * 5000 + "d", now_s=now_s) == 0.0


def test_a_timetable_has_so_many_entries() -> None:
    entries = [
        f"{day}-{hour:02}:{minute:02},{1 + minute}"
        for day in ("mon", "tue")
        for hour in range(24)
        for minute in (0, 20, 40)
    ]
    assert len(entries) > RATE_ENTRIES_MAX
    made = parse_timetable(" ".join(entries[:RATE_ENTRIES_MAX]))
    assert made is not None
    assert len(made.entries) == RATE_ENTRIES_MAX
    with pytest.raises(ValueError, match="more than 100"):
        parse_timetable(" ".join(entries[: RATE_ENTRIES_MAX + 1]))


def test_text_of_a_server_and_uids() -> None:
    longest = "n" * TEXT_CHARACTERS_MAX
    assert cleaned(longest) == shortened(longest) == longest
    assert cleaned(longest + "n") == longest[: -len(CUT)] + CUT
    uid = "1." + "2" * (UID_CHARACTERS_MAX - 2)
    assert uid_or_nothing(uid) == uid
    assert uid_or_nothing(uid + "2") == ""


class Busy:
    """A server of which every number is taken, or each look shows another newest row."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def metadata_value(self, _instance_id: str, name: str) -> tuple[str, str]:
        self.asked.append(name)
        return "somebody's", ""

    def last_change(self) -> Page:
        self.asked.append("last")
        return Page((), True, len(self.asked))


def test_a_free_number_is_sought_so_often() -> None:
    here, there = Busy(), Busy()
    assert _free_number(here, there, "an instance") is None  # type: ignore[arg-type]
    assert (len(here.asked), there.asked) == (NUMBERS_TRIED_MAX, [])


def test_two_feeds_that_both_move_on_are_compared_so_often() -> None:
    """Both are busy: between two looks at the one, the other one's is neither of them."""
    one = Busy()
    assert compare_feeds(one, one) is Compared.NOTHING  # type: ignore[arg-type]
    assert len(one.asked) == 3 * LOOKS_MAX


def test_links_are_followed_as_far_as_the_kernel_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is looked at: none may be one that another user has set. A circle ends."""
    looked: list[Path] = []

    def owners(directory: Path) -> frozenset[int]:
        looked.append(directory)
        return frozenset([os.getuid()])

    monkeypatch.setattr(own_files, "_owners", owners)
    for number in range(LINKS_MAX):
        (tmp_path / f"link{number:02}").symlink_to(tmp_path / f"link{number + 1:02}")
    end = tmp_path / f"link{LINKS_MAX:02}"
    end.write_text("here")
    assert real_path(tmp_path / "link00") == end
    assert len(looked) == LINKS_MAX
    end.unlink()
    end.symlink_to(tmp_path / "link00")
    looked.clear()
    assert real_path(tmp_path / "link00").parent == tmp_path
    assert len(looked) == LINKS_MAX

"""State, lock, audit and settings: made private, never through somebody else's link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import own_files
from bridge.audit import AuditTrail, lock_path
from bridge.config import load_settings
from bridge.credentials import ENV_FILE_BYTES_MAX, credentials_of
from bridge.errors import ConfigurationError, StateError
from bridge.events import Settled
from bridge.ledger import lock as state_file
from bridge.ledger.records import Entry
from bridge.ledger.store import Ledger
from bridge.model import Move, Reason, SideName, Skipped
from bridge.own_files import (
    NotOurs,
    check_settings_file,
    make_directory,
    open_own,
    real_path,
    why_not_trusted,
)
from tests.ledger_rows import parked

OTHER_USER = 54_321
"""A user who is not this one."""
COMPANIONS = ("-wal", "-shm", "-journal", ".lock")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077, 0o177, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def shared(directory: Path, *, sticky: bool, owner: int | None = None) -> Path:
    directory.mkdir(exist_ok=True)
    if owner is not None:
        os.chown(directory, owner, owner)
    directory.chmod(0o1777 if sticky else 0o777)
    return directory


def audit(path: Path) -> None:
    trail = AuditTrail(path, bytes_max=300)
    for number in range(5):
        trail.on_event(Settled(Move("i", number), Skipped(Reason.GONE), 1))
    trail.close()


def test_everything_that_is_made_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "a" / "b" / "bridge.sqlite3"
    with Ledger(path, follow=True) as ledger:
        ledger.commit(Entry(parked=(parked("p"),)))
        made = [*path.parent.iterdir()]
        assert {file.name.removeprefix(path.name) for file in made} == {"", "-wal", "-shm", ".lock"}
        assert {mode(file) for file in made} == {0o600}
    record = tmp_path / "c" / "audit.jsonl"
    audit(record)
    assert len([*record.parent.iterdir()]) > 2, "one was put aside"
    assert {mode(file) for file in record.parent.iterdir()} == {0o600}
    for directory in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "c"):
        assert mode(directory) == 0o700, umask


def test_files_of_an_older_version_become_private(tmp_path: Path) -> None:
    path = tmp_path / "bridge.sqlite3"
    Ledger(path, follow=True).close()
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    with Ledger(path, follow=True):
        assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


def test_who_may_read_the_audit_file_stays_the_operators_decision(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    path.chmod(0o664)
    audit(path)
    asides = [file for file in tmp_path.iterdir() if file != lock_path(path)]
    assert len(asides) > 1
    assert {mode(file) for file in asides} == {0o644}, "they read; nobody else writes"


@pytest.mark.parametrize("companion", COMPANIONS)
@pytest.mark.parametrize("there", [True, False])
def test_a_link_beside_the_state_is_not_followed(
    tmp_path: Path, companion: str, there: bool
) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.write_text("precious")
    home = tmp_path / "home"
    home.mkdir()
    (home / f"bridge.sqlite3{companion}").symlink_to(victim)
    with pytest.raises(StateError, match="is a link") as refused:
        Ledger(home / "bridge.sqlite3", follow=True)
    assert refused.value.exit_code == 12
    assert "BRIDGE_STATE_PATH" in refused.value.advice
    assert victim.exists() == there
    assert not there or victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.jsonl.lock"])
def test_a_link_in_the_place_of_the_audit_file_is_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(ConfigurationError, match="is a link"):
        audit(tmp_path / "audit.jsonl")
    assert victim.read_text() == "precious"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("bridge.sqlite3.lock", "audit.jsonl", "other.sqlite3"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(StateError, match="is not a file"):
        Ledger(tmp_path / "bridge.sqlite3", follow=True)
    with pytest.raises(StateError, match="is not a file"):
        Ledger(tmp_path / "other.sqlite3")
    with pytest.raises(ConfigurationError, match="is not a file"):
        audit(tmp_path / "audit.jsonl")


def test_the_operators_own_link_to_the_state_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "disk" / "bridge.sqlite3"
    Ledger(real).close()
    (tmp_path / "second").symlink_to(real)
    (tmp_path / "first").symlink_to("second")
    assert real_path(tmp_path / "first") == real
    with Ledger(tmp_path / "first", follow=True) as ledger:
        ledger.commit(Entry(checkpoint=7))
    with Ledger(real) as ledger:
        assert ledger.checkpoint() == 7


@as_root
def test_another_users_link_to_the_state_is_not(tmp_path: Path) -> None:
    real = tmp_path / "disk" / "bridge.sqlite3"
    Ledger(real).close()
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o775)
    link = home / "bridge.sqlite3"
    link.symlink_to(real)
    os.lchown(link, OTHER_USER, OTHER_USER)
    for follow in (True, False):
        with pytest.raises(StateError, match="a link that another user has put there"):
            Ledger(link, follow=follow)
    home.chmod(0o1777)
    os.chown(home, OTHER_USER, OTHER_USER)
    with pytest.raises(NotOurs, match="another user"):
        real_path(link)  # not even of the directory's owner, where every user may write
    (home / "mine").symlink_to(link)
    with pytest.raises(StateError, match="a link that another user has put there"):
        Ledger(home / "mine")


@as_root
@pytest.mark.parametrize("name", ["bridge.sqlite3", *(f"bridge.sqlite3{c}" for c in COMPANIONS)])
def test_another_users_file_in_a_sticky_directory_is_refused(tmp_path: Path, name: str) -> None:
    home = shared(tmp_path / "tmp", sticky=True)
    file = home / name
    file.touch()
    os.chown(file, OTHER_USER, OTHER_USER)
    with pytest.raises(StateError, match="belongs to another user"):
        Ledger(home / "bridge.sqlite3", follow=True)
    file.unlink()
    with Ledger(home / "bridge.sqlite3", follow=True) as ledger:
        ledger.commit(Entry(checkpoint=1))


def test_a_second_name_in_a_sticky_directory_is_refused(tmp_path: Path) -> None:
    home = shared(tmp_path / "tmp", sticky=True)
    victim = tmp_path / "victim"
    victim.touch()
    (home / "bridge.sqlite3.lock").hardlink_to(victim)
    with pytest.raises(StateError, match="has a second name"):
        Ledger(home / "bridge.sqlite3", follow=True)
    private = tmp_path / "private"
    private.mkdir()
    Ledger(private / "s").close()
    (private / "backup").hardlink_to(private / "s")
    Ledger(private / "s").close()  # a backup by links is the operator's


@as_root
def test_root_may_look_at_the_state_of_another_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    Ledger(home / "s", follow=True).close()
    for place in (home, *home.iterdir()):
        os.chown(place, OTHER_USER, OTHER_USER)
    with Ledger(home / "s") as ledger:
        ledger.commit(Entry(checkpoint=1))
        assert {file.stat().st_uid for file in home.iterdir()} == {OTHER_USER}


@pytest.mark.parametrize(
    ("directory_mode", "owner", "trusted"),
    [
        (0o700, None, True),
        (0o755, None, True),
        (0o775, None, True),
        (0o2775, None, True),
        (0o777, None, False),
        (0o702, None, False),
        (0o1777, None, True),
        (0o1777, OTHER_USER, False),
        (0o755, OTHER_USER, True),
        (0o777, OTHER_USER, False),
    ],
)
def test_which_directories_are_trusted(
    tmp_path: Path, directory_mode: int, owner: int | None, trusted: bool
) -> None:
    if owner is not None and os.geteuid() != 0:
        pytest.skip("only root can make another user's directory")
    home = tmp_path / "home"
    home.mkdir()
    if owner is not None:
        os.chown(home, owner, owner)
    home.chmod(directory_mode)
    assert (why_not_trusted(home) == "") == trusted
    assert (why_not_trusted(home / "not" / "there") == "") == trusted


@pytest.mark.parametrize("setting", ["STATE_PATH", "AUDIT_PATH"])
def test_a_directory_that_every_user_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIDGE_SOURCE_URL", "http://a")
    monkeypatch.setenv("BRIDGE_TARGET_URL", "http://b")
    home = shared(tmp_path / "home", sticky=False)
    monkeypatch.setenv(f"BRIDGE_{setting}", str(home / "file"))
    with pytest.raises(ConfigurationError, match=f"BRIDGE_{setting}") as refused:
        load_settings()
    assert "chmod" in refused.value.advice
    assert "BRIDGE_SHARED_DIRECTORY=accept" in refused.value.advice
    monkeypatch.setenv("BRIDGE_SHARED_DIRECTORY", "accept")
    load_settings()
    Ledger(home / "file", follow=True).close()
    monkeypatch.delenv("BRIDGE_SHARED_DIRECTORY")
    make_directory(home / "own")
    monkeypatch.setenv(f"BRIDGE_{setting}", str(home / "own" / "file"))
    load_settings()


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.env` of our own in the working directory, with all that is needed."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    file = home / ".env"
    file.write_text(
        "BRIDGE_SOURCE_URL=http://a\nBRIDGE_TARGET_URL=http://b\nBRIDGE_WORKERS=7\n"
        "BRIDGE_SOURCE_USERNAME=u\nBRIDGE_SOURCE_PASSWORD=p\n"
    )
    file.chmod(0o600)
    return file


def refused_settings(match: str) -> None:
    for reading in (load_settings, lambda: credentials_of(SideName.SOURCE)):
        with pytest.raises(ConfigurationError, match=match) as refused:
            reading()
        assert "BRIDGE_ENV_FILE" in refused.value.advice


def test_settings_in_a_directory_that_every_user_may_write_to(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().workers == 7
    settings_file.parent.chmod(0o777)
    refused_settings("every user may write to")
    named = settings_file.parent.parent / "bridge.env"
    named.write_text(settings_file.read_text().replace("7", "5"))
    monkeypatch.setenv("BRIDGE_ENV_FILE", str(named))
    monkeypatch.setenv("BRIDGE_STATE_PATH", str(named.parent / "state"))
    assert load_settings().workers == 5
    assert credentials_of(SideName.SOURCE).username == "u"
    monkeypatch.setenv("BRIDGE_ENV_FILE", str(settings_file))
    refused_settings("every user may write to")
    monkeypatch.setenv("BRIDGE_SHARED_DIRECTORY", "accept")
    assert load_settings().workers == 7


def test_settings_that_every_user_may_write_to(settings_file: Path) -> None:
    settings_file.chmod(0o606)
    refused_settings("every user may write to")
    settings_file.chmod(0o644)
    assert load_settings().workers == 7


def test_settings_that_are_named_and_are_no_file(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(settings_file.parent / "pipe")
    for named in (settings_file.parent, settings_file.parent / "pipe", settings_file / "below"):
        monkeypatch.setenv("BRIDGE_ENV_FILE", str(named))
        refused_settings("does not exist, or is not a file")

    def locked(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", locked)
    with pytest.raises(ConfigurationError, match="cannot be read: PermissionError"):
        load_settings()


@as_root
def test_settings_of_another_user(settings_file: Path) -> None:
    os.chown(settings_file, OTHER_USER, OTHER_USER)
    refused_settings("belongs to another user")
    os.chown(settings_file.parent, OTHER_USER, OTHER_USER)
    assert load_settings().workers == 7, "it is that user's directory: root was told to be there"
    settings_file.parent.chmod(0o1777)
    refused_settings("directory of another user")


@as_root
def test_settings_behind_another_users_link(settings_file: Path) -> None:
    real = settings_file.rename(settings_file.parent.parent / "real")
    settings_file.symlink_to(real)
    assert load_settings().workers == 7
    os.lchown(settings_file, OTHER_USER, OTHER_USER)
    refused_settings("a link that another user")


def test_no_settings_in_a_shared_directory_are_none(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.unlink()
    settings_file.parent.chmod(0o777)
    check_settings_file(settings_file)
    monkeypatch.setenv("BRIDGE_SOURCE_URL", "http://a")
    monkeypatch.setenv("BRIDGE_TARGET_URL", "http://b")
    monkeypatch.setenv("BRIDGE_STATE_PATH", str(settings_file.parent / "own" / "s"))
    with pytest.raises(ConfigurationError, match="BRIDGE_STATE_PATH"):
        load_settings()


def test_a_named_file_of_settings_must_be_there(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_ENV_FILE", str(settings_file.with_name("none")))
    with pytest.raises(ConfigurationError, match="BRIDGE_ENV_FILE names does not exist"):
        load_settings()


def test_what_is_opened_is_closed_when_it_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(20):
        with pytest.raises(NotOurs):
            open_own(tmp_path / "pipe", os.O_RDWR)
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_settings_without_end_are_refused(settings_file: Path) -> None:
    settings_file.write_text("#" * (ENV_FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match="is larger than"):
        load_settings()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o660, 0o606, 0o620, 0o602, 0o610, 0o777])
@pytest.mark.parametrize("how", ["opened", "by its name"])
def test_a_file_of_ours_becomes_private_whoever_could_read_it(
    tmp_path: Path, mode: int, how: str
) -> None:
    path = tmp_path / "state.db"
    path.touch()
    path.chmod(mode)
    if how == "opened":
        os.close(own_files.open_own(path, os.O_RDWR))
    else:
        own_files.check_file(path)
    assert path.stat().st_mode & 0o7777 == (mode if not mode & 0o077 else 0o600)


@pytest.mark.parametrize("holder", ["", "7\n", "123456789012345\nand more\n"])
def test_the_lock_names_its_holder_and_nobody_else(tmp_path: Path, holder: str) -> None:
    path = tmp_path / "state.db"
    lock = tmp_path / "state.db.lock"
    lock.write_text(holder)
    held = state_file.locked(path)
    assert lock.read_text() == f"{os.getpid()}\n"
    with pytest.raises(StateError, match=f"process {os.getpid()}\\)"):
        state_file.locked(path)
    held.close()
    state_file.locked(path).close()


@pytest.mark.parametrize("companion", ["", "-wal", "-shm", "-journal"])
def test_no_file_of_the_state_may_be_a_link(tmp_path: Path, companion: str) -> None:
    """SQLite opens each of them by its name."""
    path, other = tmp_path / "state.db", tmp_path / "elsewhere"
    other.touch()
    if companion:
        (tmp_path / f"state.db{companion}").symlink_to(other)
        with pytest.raises(StateError, match="is a link"):
            state_file.prepared(path)
        return
    path.symlink_to(other)  # the operator's own: followed
    assert state_file.prepared(path) == other


@pytest.mark.parametrize("count", [1, 3, 39, 40])
def test_a_chain_of_our_links_is_followed_to_its_end(tmp_path: Path, count: int) -> None:
    end = tmp_path / "end"
    end.touch()
    link = end
    for number in range(count):
        link = tmp_path / f"link{number}"
        link.symlink_to(tmp_path / f"link{number - 1}" if number else end)
    assert own_files.real_path(link) == end

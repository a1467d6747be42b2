"""``orthanc-bridge init`` at a terminal: what it asks, what it writes, what it leaves alone."""

from __future__ import annotations

import os
import pty
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.cli import exit_code_of
from bridge.commands.docs import env_template
from bridge.commands.init import filled
from bridge.config import load_settings
from bridge.credentials import credentials_of
from bridge.errors import ConfigurationError
from bridge.model import SideName
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc, Respond

Capture = pytest.CaptureFixture[str]
Asked = Callable[..., int]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asked]:
    """Run init at a terminal whose person gives these answers, one for each question."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)
    terminal, ours = pty.openpty()
    monkeypatch.setattr("sys.stdin", os.fdopen(ours, "r"))

    def run(*answers: str, options: tuple[str, ...] = ()) -> int:
        left = list(answers)

        def answer(_text: str, **known: object) -> str:
            said = left.pop(0)
            return said or str(known.get("default", ""))

        def confirm(_text: str, **_: object) -> bool:
            return left.pop(0) == "y"

        monkeypatch.setattr("typer.prompt", answer)
        monkeypatch.setattr("typer.confirm", confirm)
        code = exit_code_of(["init", *options])
        assert left == [], "questions that were not asked"
        return code

    yield run
    os.close(terminal)


def test_two_servers_with_logins_give_settings_that_load(
    asked: Asked, fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, capsys: Capture
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    source.put(small_ct())
    secret = "a b'c\"$HOME#\\"  # noqa: S105
    code = asked(source.url, "bridge", secret, target.url, "writer # 1", "other", "y")
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "OK: Orthanc" in said.out
    assert ", 1 instance\n" in said.out
    assert "orthanc-bridge doctor" in said.out
    assert secret not in said.out + said.err
    settings = load_settings()
    assert (settings.source_url, settings.target_url) == (source.url, target.url)
    assert settings.start == "snapshot"
    of_source, of_target = (credentials_of(side) for side in SideName)
    assert (of_source.username, of_source.password) == ("bridge", secret)
    assert (of_target.username, of_target.password) == ("writer # 1", "other")
    files = [tmp_path / ".env", *sorted((tmp_path / "secrets").iterdir())]
    assert [file.name for file in files] == [".env", "source-password", "target-password"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    text = files[0].read_text("utf-8")
    assert secret not in text
    assert "#BRIDGE_PROOF=answer" in text, "the other settings stand there with their defaults"


def test_servers_without_logins_get_no_password_files(
    asked: Asked, fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    assert asked(source.url, "", target.url, "") == 0
    assert [file.name for file in tmp_path.iterdir()] == [".env"]
    assert load_settings().start == "beginning", "an empty source is not asked about"


def test_what_fails_is_told_and_asked_again(
    asked: Asked, fake_orthanc: Callable[..., FakeOrthanc], capsys: Capture
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    source.script("GET /system", Respond(401), times=1)
    answers = ("no-address", source.url, "bridge", "wrong", "y", source.url, "bridge", "right")
    assert asked(*answers, source.url, "", target.url, "") == 0
    said = capsys.readouterr().out
    assert "The address must begin with http://" in said
    assert "refused the login" in said
    assert "Check the user name and the password." in said
    assert "BRIDGE_SOURCE" not in said, "no setting is written yet"
    assert "This is the address of the source." in said
    assert load_settings().target_url == target.url


def test_what_fails_is_told_in_the_words_of_the_questions(
    asked: Asked, fake_orthanc: Callable[..., FakeOrthanc], capsys: Capture
) -> None:
    source, target = fake_orthanc(), fake_orthanc()
    first = (source.url, "http://name", "x", "y", "http://127.0.0.1:1", "", "y")
    assert asked(*first, source.url, "", target.url, "") == 0
    said = capsys.readouterr().out
    assert "Failed: The user name contains a colon" in said
    assert "Check that it is running and that the address is right." in said
    assert "BRIDGE_" not in said, "no setting is written yet"


def test_the_address_of_the_source_is_not_suggested_for_the_target(
    asked: Asked, fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    source = fake_orthanc()
    assert asked(source.url, "", source.url, "", "", "", "n") == 0, "Enter takes the suggestion"
    assert load_settings().target_url == "http://127.0.0.1:8043"


def test_a_server_that_is_not_there_yet_may_be_written_all_the_same(
    asked: Asked, fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    source = fake_orthanc()
    assert asked(source.url, "", "http://127.0.0.1:1", "", "n") == 0
    assert load_settings().target_url == "http://127.0.0.1:1"


@pytest.mark.parametrize("there", [".env", "secrets/source-password"])
def test_nothing_is_overwritten(
    there: str, asked: Asked, fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path
) -> None:
    kept = tmp_path / there
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine\n")
    source, target = fake_orthanc(), fake_orthanc()
    answers = () if there == ".env" else (source.url, "bridge", "x", target.url, "")
    assert asked(*answers) == 2
    assert kept.read_text() == "mine\n"
    assert not (tmp_path / ".env").exists() or there == ".env"


def test_a_folder_that_every_user_may_write_to_is_refused(asked: Asked, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert asked() == 2
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert exit_code_of(["init"]) == 2
    assert "needs a terminal" in capsys.readouterr().err


def test_every_setting_that_init_writes_has_its_line_in_the_template() -> None:
    names = [
        f"BRIDGE_{side.upper()}_{name}"
        for side in SideName
        for name in ("URL", "CA_FILE", "USERNAME", "PASSWORD_FILE")
    ]
    text = filled(env_template(), dict.fromkeys([*names, "BRIDGE_START"], "x"))
    assert all(f"\n{name}='x'\n" in text for name in names)
    with pytest.raises(ConfigurationError, match="BRIDGE_SOURCE_USERNAME"):
        filled(env_template(), {"BRIDGE_SOURCE_USERNAME": "a'b"})

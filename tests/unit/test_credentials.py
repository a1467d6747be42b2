"""Where secrets come from, and where they never go."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.core.errors import ConfigurationError
from bridge.core.model import SideName
from bridge.credentials import SECRET_BYTES_MAX, Credentials, credentials_of, resolve_secret

NAME = "BRIDGE_TARGET_PASSWORD"
FILE = f"{NAME}_FILE"


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def secret_file(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "secret"
    path.write_bytes(content)
    return str(path)


def test_nobody_set_it(dotenv: Path) -> None:
    assert resolve_secret(NAME, {}, dotenv) is None
    assert resolve_secret(NAME, {NAME: "", FILE: ""}, dotenv) is None


def test_the_environment_of_the_process_is_the_default(
    monkeypatch: pytest.MonkeyPatch, dotenv: Path
) -> None:
    monkeypatch.setenv(NAME, "from the process")
    assert resolve_secret(NAME, dotenv_path=dotenv) == "from the process"


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b" s3cret ", " s3cret "),
        ("pässwörd\n".encode(), "pässwörd"),
    ],
)
def test_a_file_less_one_newline(tmp_path: Path, dotenv: Path, content: bytes, secret: str) -> None:
    assert resolve_secret(NAME, {FILE: secret_file(tmp_path, content)}, dotenv) == secret


def test_the_environment_wins_over_dotenv(tmp_path: Path, dotenv: Path) -> None:
    dotenv.write_text(f"{NAME}=from dotenv\n")
    assert resolve_secret(NAME, {}, dotenv) == "from dotenv"
    assert resolve_secret(NAME, {NAME: "from environment"}, dotenv) == "from environment"
    path = secret_file(tmp_path, b"from file")
    assert resolve_secret(NAME, {FILE: path}, dotenv) == "from file"
    dotenv.write_text(f"{FILE}={path}\n")
    assert resolve_secret(NAME, {}, dotenv) == "from file"


def test_values_are_taken_literally(dotenv: Path) -> None:
    dotenv.write_text(f"OTHER=x\n{NAME}=pa${{OTHER}}ss\n")
    assert resolve_secret(NAME, {}, dotenv) == "pa${OTHER}ss"


@pytest.mark.parametrize("place", ["the environment", ".env"])
def test_both_in_one_place(dotenv: Path, place: str) -> None:
    environ = {NAME: "s3cret", FILE: "/x"} if place == "the environment" else {}
    if not environ:
        dotenv.write_text(f"{NAME}=s3cret\n{FILE}=/x\n")
    with pytest.raises(ConfigurationError) as caught:
        resolve_secret(NAME, environ, dotenv)
    assert f"{NAME} and {FILE} are both set in {place}" in caught.value.message
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff\xfes3cret", "UnicodeDecodeError"),
        (b"s" * (SECRET_BYTES_MAX + 1), "larger"),
    ],
    ids=["missing", "empty", "newline", "not UTF-8", "huge"],
)
def test_a_file_that_is_no_secret(
    tmp_path: Path, dotenv: Path, content: bytes | None, said: str
) -> None:
    path = str(tmp_path / "none") if content is None else secret_file(tmp_path, content)
    with pytest.raises(ConfigurationError, match=f"(?s){FILE}.*{said}") as caught:
        resolve_secret(NAME, {FILE: path}, dotenv)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_directory_instead_of_a_file(tmp_path: Path, dotenv: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        resolve_secret(NAME, {FILE: str(tmp_path)}, dotenv)


def test_a_dotenv_that_cannot_be_read(dotenv: Path) -> None:
    dotenv.write_bytes(b"\xff\xff=1\n")
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
        resolve_secret(NAME, {}, dotenv)


def of_target(dotenv: Path, **values: str) -> Credentials:
    environ = {f"BRIDGE_TARGET_{name}": value for name, value in values.items()}
    return credentials_of(SideName.TARGET, environ, dotenv)


def test_what_each_side_gets(dotenv: Path) -> None:
    assert of_target(dotenv) == Credentials()
    assert of_target(dotenv, **{"USERNAME": "u", "PASSWORD": "p"}) == Credentials("u", "p")
    assert of_target(dotenv, **{"TOKEN": "t"}) == Credentials(None, None, "t")
    other_side = {"BRIDGE_SOURCE_TOKEN": "t"}
    assert credentials_of(SideName.TARGET, other_side, dotenv) == Credentials()
    assert credentials_of(SideName.SOURCE, other_side, dotenv) == Credentials(None, None, "t")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"TOKEN": "s3cret", "USERNAME": "u", "PASSWORD": "p"}, "BRIDGE_TARGET_TOKEN"),
        ({"TOKEN": "s3cret", "USERNAME": "u"}, "BRIDGE_TARGET_TOKEN"),
        ({"TOKEN": "s3cret", "PASSWORD": "p"}, "BRIDGE_TARGET_TOKEN"),
        ({"PASSWORD": "s3cret"}, "without BRIDGE_TARGET_USERNAME"),
        ({"USERNAME": "u"}, "without BRIDGE_TARGET_PASSWORD"),
        ({"USERNAME": "a:s3cret", "PASSWORD": "s3cret"}, "colon"),
        ({"USERNAME": "u", "PASSWORD": "s3cret\nX: y"}, "BRIDGE_TARGET_PASSWORD contains"),
        ({"USERNAME": "u\r\nX: y", "PASSWORD": "s3cret"}, "BRIDGE_TARGET_USERNAME contains"),
        ({"TOKEN": "s3cret\nX: y"}, "BRIDGE_TARGET_TOKEN contains"),
        ({"TOKEN": "s3cret é"}, "BRIDGE_TARGET_TOKEN contains"),
    ],
)
def test_combinations_that_cannot_work(dotenv: Path, values: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        of_target(dotenv, **values)
    assert "s3cret" not in str(caught.value)
    assert caught.value.advice


def test_a_repr_shows_no_secret() -> None:
    shown = repr(Credentials("user", "s3cret", "t0ken"))
    assert "user" in shown
    assert "s3cret" not in shown
    assert "t0ken" not in shown


def test_credentials_do_not_travel() -> None:
    with pytest.raises(TypeError, match="do not travel"):
        pickle.dumps(Credentials("user", "s3cret"))


def test_importing_it_is_light() -> None:
    heavy = ("pydantic", "httpx", "numpy", "pydicom", "bridge.config", "sqlite3")
    code = f"import sys, bridge.credentials; print([m for m in {heavy!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

"""Where secrets come from, and where they never go."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.credentials import (
    ENV_FILE_BYTES_MAX,
    SECRET_BYTES_MAX,
    Credentials,
    credentials_of,
    login_settings,
    place_in_dotenv,
    poke_token,
    read_dotenv,
    resolve_secret,
)
from bridge.errors import ConfigurationError
from bridge.model import SideName

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


USER, TOKEN = "BRIDGE_TARGET_USERNAME", "BRIDGE_TARGET_TOKEN"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, f"{USER} and {NAME}, or {TOKEN}"),
        ({USER: "u", NAME: "p"}, f"{USER} and {NAME}"),
        ({USER: "u", FILE: "/p"}, f"{USER} and {FILE}"),
        ({f"{USER}_FILE": "/u", FILE: "/p"}, f"{USER}_FILE and {FILE}"),
        ({TOKEN: "t"}, TOKEN),
        ({f"{TOKEN}_FILE": "/t"}, f"{TOKEN}_FILE"),
        ({USER: "u", NAME: "p", FILE: "/p"}, f"{USER} and {NAME}, or {TOKEN}"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_the_settings_that_were_given_are_named(
    dotenv: Path, given: dict[str, str], named: str, place: str
) -> None:
    if place == ".env":
        dotenv.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        given = {}
    assert login_settings(SideName.TARGET, given, dotenv) == named


@pytest.mark.parametrize(
    ("given", "content", "named"),
    [
        ({FILE: "PATH"}, b"p\n", f"{FILE} is set without {USER}."),
        ({f"{USER}_FILE": "PATH"}, b"u\n", f"{USER}_FILE is set without {NAME}."),
        ({f"{USER}_FILE": "PATH", NAME: "p"}, b"u:v", f"{USER}_FILE contains a colon"),
        ({USER: "u", FILE: "PATH"}, b"p\np", f"{FILE} contains a line break"),
        ({f"{TOKEN}_FILE": "PATH"}, b"a b", f"{TOKEN}_FILE contains a character"),
        (
            {f"{TOKEN}_FILE": "PATH", FILE: "PATH"},
            b"t",
            f"{TOKEN}_FILE is set together with {FILE}",
        ),
    ],
)
def test_what_is_wrong_names_the_setting_that_was_given(
    tmp_path: Path, dotenv: Path, given: dict[str, str], content: bytes, named: str
) -> None:
    path = secret_file(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        credentials_of(
            SideName.TARGET, {n: path if v == "PATH" else v for n, v in given.items()}, dotenv
        )
    assert named in caught.value.message


def test_a_poke_token_from_a_file_is_named_by_it(tmp_path: Path, dotenv: Path) -> None:
    environ = {"BRIDGE_POKE_TOKEN_FILE": secret_file(tmp_path, b"short")}
    with pytest.raises(ConfigurationError, match="BRIDGE_POKE_TOKEN_FILE has fewer"):
        poke_token(environ, dotenv)


def refusal(environ: dict[str, str], dotenv: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        credentials_of(SideName.TARGET, environ, dotenv)
    return caught.value


@pytest.mark.parametrize(
    ("content", "said", "advised"),
    [
        (f"{TOKEN}=t\n{USER}=u\n{NAME}=p", f"{TOKEN} is set together with {USER}.", "unset one"),
        (f"{TOKEN}=t\n{NAME}=p", f"{TOKEN} is set together with {NAME}.", "unset one"),
        (f"{NAME}=p", f"{NAME} is set without {USER}.", f"Set {USER} too."),
        (f"{USER}=u", f"{USER} is set without {NAME}.", f"{NAME} or {FILE}"),
        (f"{USER}=u:v\n{NAME}=p", f"{USER} contains a colon", "another user"),
        (f'{USER}="u\\nv"\n{NAME}=p', f"{USER} contains a line break", "the quotes"),
        (f'{USER}=u\n{NAME}="p\\nq"', f"{NAME} contains a line break", "the quotes"),
        (f"{TOKEN}='a b'", f"{TOKEN} contains a character", "no blanks"),
    ],
)
def test_each_mistake_names_the_setting_and_says_what_to_do(
    tmp_path: Path, content: str, said: str, advised: str
) -> None:
    """From a file that is not in the working directory, which is looked at no more then."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".env").write_text(f"{content}\n")
    error = refusal({}, tmp_path / "elsewhere" / ".env")
    assert error.message.startswith(said)
    assert advised in error.advice


@pytest.mark.parametrize("name", [USER, NAME])
def test_a_login_that_is_not_utf_8_names_its_setting(dotenv: Path, name: str) -> None:
    error = refusal({USER: "u", NAME: "p", name: "\udcff"}, dotenv)
    assert error.message == f"{name} is not UTF-8."
    assert "UTF-8" in error.advice


def test_a_secret_may_be_as_long_as_the_bound_and_no_longer(tmp_path: Path, dotenv: Path) -> None:
    path = secret_file(tmp_path, b"s" * SECRET_BYTES_MAX)
    assert resolve_secret(NAME, {FILE: path}, dotenv) == "s" * SECRET_BYTES_MAX
    path = secret_file(tmp_path, b"s" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match="is larger than") as caught:
        resolve_secret(NAME, {FILE: path}, dotenv)
    assert "nothing else" in caught.value.advice


@pytest.mark.parametrize(
    ("content", "advised"), [(None, "Check the path"), (b"", "Write the secret"), (b"\n", "unset")]
)
def test_a_secret_file_that_is_of_no_use_says_what_to_do(
    tmp_path: Path, dotenv: Path, content: bytes | None, advised: str
) -> None:
    path = str(tmp_path / "none") if content is None else secret_file(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        resolve_secret(NAME, {FILE: path}, dotenv)
    assert FILE in caught.value.message
    assert advised in caught.value.advice


def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path, dotenv: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a regular file"):
        resolve_secret(NAME, {FILE: "/dev/zero"}, dotenv)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match="is larger than"):
        resolve_secret(NAME, {FILE: str(tmp_path / "large")}, dotenv)


def test_a_poke_token_of_the_shortest_length_is_taken(tmp_path: Path) -> None:
    (tmp_path / "other.env").write_text(f"BRIDGE_POKE_TOKEN={'t' * 16}\n")
    assert poke_token({}, tmp_path / "other.env") == "t" * 16
    (tmp_path / "other.env").write_text(f"BRIDGE_POKE_TOKEN={'t' * 15}\n")
    with pytest.raises(ConfigurationError, match="BRIDGE_POKE_TOKEN has fewer") as caught:
        poke_token({}, tmp_path / "other.env")
    assert "openssl" in caught.value.advice


def test_a_user_alone_is_no_login_to_name(dotenv: Path) -> None:
    assert login_settings(SideName.TARGET, {USER: "u"}, dotenv).endswith(f"or {TOKEN}")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("A=1\n", ""),
        ("A=1\nX=2\n", "in .env, line 2,"),
        ("\n\n# why\nX=2\nB=3\n", "in .env, line 4,"),
        ("X=1\nA=1\nX=2\nB=4\n", "in .env, line 3,"),
        ("X=1\nX=2\nX=3\n", "in .env, line 3,"),
    ],
)
def test_the_line_that_counts_is_the_last_one(dotenv: Path, content: str, place: str) -> None:
    dotenv.write_text(content)
    assert place_in_dotenv("X", dotenv) == place


def test_a_dotenv_that_is_no_text_says_so(dotenv: Path) -> None:
    dotenv.write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read: UnicodeDecodeError") as e:
        resolve_secret(NAME, {}, dotenv)
    assert "UTF-8" in e.value.advice


def test_a_dotenv_may_be_as_long_as_the_bound_and_no_longer(dotenv: Path) -> None:
    line = f"{NAME}=s3cret\n#"
    dotenv.write_text(line + "x" * (ENV_FILE_BYTES_MAX - len(line)))
    assert resolve_secret(NAME, {}, dotenv) == "s3cret"
    dotenv.write_text(line + "x" * (ENV_FILE_BYTES_MAX - len(line) + 1))
    with pytest.raises(ConfigurationError, match=r"\.env is larger than") as caught:
        resolve_secret(NAME, {}, dotenv)
    assert "nothing else" in caught.value.advice


def test_a_line_of_ours_that_cannot_be_understood_is_named_and_others_are_passed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "other.env"
    path.write_text(f"OTHER='x\n{NAME}=s3cret\n")
    assert dict(read_dotenv(path)) == {NAME: "s3cret"}
    path.write_text(f"A=1\n\n{NAME}='x\nB=1\n")
    with pytest.raises(ConfigurationError) as caught:
        read_dotenv(path)
    assert caught.value.message == "Line 3 of the file other.env cannot be understood."
    assert "quote" in caught.value.advice


def test_lines_may_end_as_elsewhere(dotenv: Path) -> None:
    dotenv.write_bytes(f'A=1\r\n{NAME}="s3\r\ncret"\r\n'.encode())
    assert resolve_secret(NAME, {}, dotenv) == "s3\ncret"

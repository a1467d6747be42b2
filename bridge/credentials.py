"""Secrets, read where they are used: from the environment, from a file, or from `.env`.

Workers import this in their own process, so it imports nothing heavy, and credentials refuse to
be pickled: they never travel in a task.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from dotenv.parser import Binding, parse_stream

from bridge.errors import ConfigurationError
from bridge.model import SideName
from bridge.own_files import (
    NOT_REGULAR,
    NotOurs,
    check_named_file,
    check_settings_file,
    open_named,
)

DOTENV_PATH = Path(".env")
ENV_FILE = "BRIDGE_ENV_FILE"
"""Names another file than ``.env`` of the working directory; only the environment can."""
SHARED_DIRECTORY = "BRIDGE_SHARED_DIRECTORY"
SECRET_BYTES_MAX = 64 * 1024
ENV_FILE_BYTES_MAX = 1024 * 1024
POKE_TOKEN = "BRIDGE_POKE_TOKEN"  # noqa: S105  (its name)
POKE_TOKEN_LENGTH_MIN = 16
ADMIN_TOKEN = "BRIDGE_ADMIN_TOKEN"  # noqa: S105  (its name)
ADMIN_TOKEN_LENGTH_MIN = 24
ADMIN_TOKENS_MAX = 100
UNNAMED = "admin"
"""Who brings the token that has no name."""
WEBHOOK_SECRET = "BRIDGE_WEBHOOK_SECRET"  # noqa: S105  (its name)
WEBHOOK_SECRET_LENGTH_MIN = 16
NOTIFY_URLS = "BRIDGE_NOTIFY_URLS"

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes in the environment that are not UTF-8."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
BEARER_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What a header carries as a token, whole."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How we prove to a server who we are: a user with a password, or a token, or nothing."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Credentials are looked up where they are used; they do not travel.")


def resolve_secret(
    variable: str,
    environ: Mapping[str, str] | None = None,
    dotenv_path: Path = DOTENV_PATH,
) -> str | None:
    """Return the secret named ``variable``, or None when nobody set it.

    The environment's ``variable`` or ``<variable>_FILE`` (a path; one trailing newline of its
    content is dropped) wins over the same two in ``.env``. Values are taken literally: no
    ``${...}`` is expanded. An empty value counts as not set, as `compose` passes them.
    Raises ConfigurationError when both are set in one place, or when a file cannot be read.
    """
    name, value = _given(variable, environ, dotenv_path)
    return _read_secret(name, Path(value)) if value and name != variable else value


def name_given(
    variable: str,
    environ: Mapping[str, str] | None = None,
    dotenv_path: Path = DOTENV_PATH,
) -> str | None:
    """Name the variable that gives a secret: itself, or ``<variable>_FILE``; None when none does.

    Raises ConfigurationError as ``resolve_secret`` does, but for files, which are not read.
    """
    name, value = _given(variable, environ, dotenv_path)
    return name if value else None


def login_settings(
    side: SideName,
    environ: Mapping[str, str] | None = None,
    dotenv_path: Path = DOTENV_PATH,
) -> str:
    """Name the settings to look at when a server refuses us: those that are set, if any is."""
    prefix = f"BRIDGE_{side.name}_"
    try:
        token, username, password = (
            name_given(prefix + name, environ, dotenv_path)
            for name in ("TOKEN", "USERNAME", "PASSWORD")
        )
    except ConfigurationError:
        token = username = password = None  # told where they are needed
    if token is not None:
        return token
    if username is not None and password is not None:
        return f"{username} and {password}"
    return f"{prefix}USERNAME and {prefix}PASSWORD, or {prefix}TOKEN"


def _given(
    variable: str, environ: Mapping[str, str] | None, dotenv_path: Path
) -> tuple[str, str | None]:
    """Return the variable that gives a secret, and its value: the secret, or a path."""
    process = os.environ if environ is None else environ
    for place, values in (("the environment", process), (".env", read_dotenv(dotenv_path))):
        file_variable = f"{variable}_FILE"
        value, file_name = values.get(variable), values.get(file_variable)
        if value and file_name:
            raise ConfigurationError(
                f"{variable} and {file_variable} are both set in {place}.",
                advice="Keep one of them.",
            )
        if value:
            return variable, value
        if file_name:
            return file_variable, file_name
    return variable, None


def credentials_of(
    side: SideName,
    environ: Mapping[str, str] | None = None,
    dotenv_path: Path = DOTENV_PATH,
) -> Credentials:
    """Return what ``BRIDGE_<SIDE>_USERNAME``, ``_PASSWORD`` and ``_TOKEN`` say (see above).

    Raises ConfigurationError for a combination that cannot work or a value that HTTP cannot carry.
    """
    prefix = f"BRIDGE_{side.name}_"
    username, password, token = (
        resolve_secret(prefix + name, environ, dotenv_path)
        for name in ("USERNAME", "PASSWORD", "TOKEN")
    )
    named = {
        name: name_given(prefix + name, environ, dotenv_path) or prefix + name
        for name in ("USERNAME", "PASSWORD", "TOKEN")
    }
    if token is not None and (username is not None or password is not None):
        other = named["USERNAME" if username is not None else "PASSWORD"]
        raise ConfigurationError(
            f"{named['TOKEN']} is set together with {other}.",
            advice="Use a token or a login, not both: unset one of them.",
        )
    if password is not None and username is None:
        raise ConfigurationError(
            f"{named['PASSWORD']} is set without {prefix}USERNAME.",
            advice=f"Set {prefix}USERNAME too.",
        )
    if username is not None and password is None:
        raise ConfigurationError(
            f"{named['USERNAME']} is set without {prefix}PASSWORD.",
            advice=f"Set {prefix}PASSWORD or {prefix}PASSWORD_FILE too.",
        )
    if username is not None and ":" in username:
        raise ConfigurationError(
            f"{named['USERNAME']} contains a colon, which basic authentication cannot carry.",
            advice="Use another user, or a token.",
        )
    for name, value in (("USERNAME", username), ("PASSWORD", password)):
        if value is not None and _CONTROL_CHARACTER.search(value):
            raise ConfigurationError(
                f"{named[name]} contains a line break or another control character.",
                advice="Check the file or the quotes that it comes from.",
            )
        if value is not None and _SURROGATE.search(value):
            raise ConfigurationError(
                f"{named[name]} is not UTF-8.", advice="Set it in UTF-8, or from a file in UTF-8."
            )
    if token is not None and not BEARER_TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"{named['TOKEN']} contains a character that an HTTP header cannot carry.",
            advice="Give the token alone: no blanks, no line breaks, ASCII only.",
        )
    return Credentials(username=username, password=password, token=token)


def poke_token(
    environ: Mapping[str, str] | None = None, dotenv_path: Path = DOTENV_PATH
) -> str | None:
    """Return the token that pokes must bring, None when there are to be none (see above).

    Raises ConfigurationError for one that HTTP cannot carry or that is easily guessed.
    """
    token = resolve_secret(POKE_TOKEN, environ, dotenv_path)
    if token is None:
        return None
    if len(token) < POKE_TOKEN_LENGTH_MIN or not BEARER_TOKEN.fullmatch(token):
        name = name_given(POKE_TOKEN, environ, dotenv_path)
        raise ConfigurationError(
            f"{name} has fewer than {POKE_TOKEN_LENGTH_MIN} characters, or one that an HTTP "
            "header cannot carry.",
            advice="Make one with: openssl rand -hex 24",
        )
    return token


def admin_tokens(
    environ: Mapping[str, str] | None = None, dotenv_path: Path = DOTENV_PATH
) -> Mapping[str, str]:
    """Return the tokens with which people may act over HTTP, by name; empty for nobody may.

    Written as TOKEN or NAME:TOKEN, several with blanks, commas or line breaks between them. Raises
    ConfigurationError for one that HTTP cannot carry, that is easily guessed, or that is that of
    the pokes: whoever may poke would then be able to act.
    """
    given = resolve_secret(ADMIN_TOKEN, environ, dotenv_path)
    if given is None:
        return {}
    variable = name_given(ADMIN_TOKEN, environ, dotenv_path)
    found: dict[str, str] = {}
    for number, word in enumerate(re.split(r"[\s,]+", given.strip(" \t\r\n,")), 1):
        name, colon, token = word.partition(":")
        name, token = (name, token) if colon else (UNNAMED, word)
        if not _NAME.fullmatch(name) or ":" in token or not BEARER_TOKEN.fullmatch(token):
            raise ConfigurationError(
                f"Token {number} of {variable} is neither TOKEN nor NAME:TOKEN, or has a character "
                "that an HTTP header cannot carry.",
                advice="A name has up to 32 letters, digits, dots, dashes and underscores; a token "
                "has no blank, comma or colon. Make one with: openssl rand -hex 24",
            )
        if len(token) < ADMIN_TOKEN_LENGTH_MIN:
            raise ConfigurationError(
                f"Token {number} of {variable} has fewer than {ADMIN_TOKEN_LENGTH_MIN} characters.",
                advice="Make one with: openssl rand -hex 24",
            )
        if name in found or token in found.values():
            raise ConfigurationError(
                f"Token {number} of {variable} has the name or the characters of another one.",
                advice="Give each person a name and a token of their own.",
            )
        found[name] = token
    if len(found) > ADMIN_TOKENS_MAX:
        raise ConfigurationError(f"{variable} has more than {ADMIN_TOKENS_MAX} tokens.")
    if poke_token(environ, dotenv_path) in found.values():
        raise ConfigurationError(
            f"{variable} and {POKE_TOKEN} have the same token: whoever may poke could also act.",
            advice="Make another one with: openssl rand -hex 24",
        )
    return found


def webhook_secret(
    environ: Mapping[str, str] | None = None, dotenv_path: Path = DOTENV_PATH
) -> str | None:
    """Return the secret that events are signed with, None when none is set (see above).

    Raises ConfigurationError for one that is easily guessed.
    """
    secret = resolve_secret(WEBHOOK_SECRET, environ, dotenv_path)
    if secret is None:
        return None
    if len(secret) < WEBHOOK_SECRET_LENGTH_MIN or _SURROGATE.search(secret):
        name = name_given(WEBHOOK_SECRET, environ, dotenv_path)
        raise ConfigurationError(
            f"{name} has fewer than {WEBHOOK_SECRET_LENGTH_MIN} characters, or is not UTF-8.",
            advice="Make one with: openssl rand -hex 24",
        )
    return secret


def notify_urls(
    environ: Mapping[str, str] | None = None, dotenv_path: Path = DOTENV_PATH
) -> tuple[str, ...]:
    """Return the addresses of people's services (see above): blanks or lines between them."""
    given = resolve_secret(NOTIFY_URLS, environ, dotenv_path) or ""
    lines = (line for line in given.splitlines() if not line.lstrip().startswith("#"))
    return tuple(dict.fromkeys(" ".join(lines).split()))


def read_dotenv(path: Path = DOTENV_PATH) -> Mapping[str, str | None]:
    """Read a ``.env``, values taken literally; nothing when there is none.

    Raises ConfigurationError that names the file, and the line where one of ours cannot be
    understood: it would else be a setting that silently does not count.
    """
    lines = _lines_of_dotenv(path)
    for line in lines:
        if line.error and "BRIDGE_" in line.original.string:
            raise ConfigurationError(
                f"Line {_number(line)} of the file {env_file(path).name} cannot be understood.",
                advice="Write NAME=value, and close every quote that is opened.",
            )
    return {line.key: line.value for line in lines if line.key is not None}


def place_in_dotenv(variable: str, path: Path = DOTENV_PATH) -> str:
    """Tell where a ``.env`` gives a variable, for messages; "" when it does not."""
    at = [line for line in _lines_of_dotenv(path) if line.key == variable]
    return f"in {env_file(path).name}, line {_number(at[-1])}," if at else ""


def _number(line: Binding) -> int:
    """Return the line of a file in which something is: what comes before it may be blank lines."""
    text = line.original.string
    return line.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _lines_of_dotenv(path: Path) -> list[Binding]:
    place = env_file(path)
    try:
        if not place.is_file():
            return []
        with os.fdopen(open_named(place), "rb") as file:
            raw = file.read(ENV_FILE_BYTES_MAX + 1)
        if len(raw) > ENV_FILE_BYTES_MAX:
            raise ConfigurationError(
                f"The file {place} is larger than {ENV_FILE_BYTES_MAX} bytes.",
                advice="It should contain settings and nothing else.",
            )
        return list(parse_stream(io.StringIO(raw.decode("utf-8"), newline=None)))
    except (OSError, UnicodeDecodeError) as exc:
        raise _unreadable(place, exc) from None  # the cause would carry the file's bytes


PIPE_ADVICE = (
    "Name a file, or a link to one. A pipe (also that of a shell's <(...)) will not do: the file "
    "is read more than once, by worker processes too."
)


def env_file(path: Path = DOTENV_PATH) -> Path:
    """Return the file of settings: ``.env``, or what ``BRIDGE_ENV_FILE`` names.

    Raises ConfigurationError for one that somebody else may have written: it says to which server
    images go, and as which user we log in.
    """
    named = os.environ.get(ENV_FILE)
    place = Path(named) if named else path
    try:
        if named and not place.is_file():
            raise ConfigurationError(
                f"The file that {ENV_FILE} names does not exist, or is not a file.",
                advice=f"Correct {ENV_FILE}, or unset it. It cannot be a pipe, because workers "
                "read it too.",
            )
        check_settings_file(place, shared=os.environ.get(SHARED_DIRECTORY) == "accept")
    except NotOurs as exc:
        if exc.strerror == NOT_REGULAR:
            raise ConfigurationError(
                f"The file {place} {NOT_REGULAR}.", advice=PIPE_ADVICE
            ) from exc
        raise ConfigurationError(
            f"The file {place} {exc.strerror}.",
            advice="Make root, or the user that runs the bridge, its owner (chown; in a "
            "container, use that user's number). Make sure that no other user may write to "
            "it or to its directory (chmod o-w). Or put it elsewhere and name it in "
            f"{ENV_FILE}. In a volume of a container that every user may write to: "
            f"{SHARED_DIRECTORY}=accept.",
        ) from exc
    except OSError as exc:
        raise _unreadable(place, exc) from exc
    return place


def _unreadable(path: Path, exc: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The file {path} cannot be read: {type(exc).__name__}.",
        advice="Make it readable for the user that runs the bridge, in UTF-8.",
    )


def must_be_meant(variable: str, path: Path) -> None:
    """Refuse a file that a setting names where any user may have put it there.

    Raises ConfigurationError. Other errors of the system are left to whoever reads it.
    """
    try:
        check_named_file(path, shared=os.environ.get(SHARED_DIRECTORY) == "accept")
    except NotOurs as exc:
        if exc.strerror == NOT_REGULAR:
            raise ConfigurationError(
                f"The file that {variable} names {NOT_REGULAR}.", advice=PIPE_ADVICE
            ) from exc
        raise ConfigurationError(
            f"The file that {variable} names {exc.strerror}.",
            advice="Put it where no other user may write (chmod o-w its directory and the file). "
            f"In a volume of a container that every user may write to: {SHARED_DIRECTORY}=accept.",
        ) from exc
    except (OSError, ValueError):
        return


def _read_secret(variable: str, path: Path) -> str:
    must_be_meant(variable, path)
    try:
        with os.fdopen(open_named(path), "rb") as file:
            raw = file.read(SECRET_BYTES_MAX + 1)
        text = raw.decode("utf-8")
    except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
        raise ConfigurationError(
            f"The file that {variable} names cannot be read: {reason}.",
            advice=f"Check the path and its permissions, or unset {variable}.",
        ) from None  # the cause would carry the file's bytes
    if len(raw) > SECRET_BYTES_MAX:
        raise ConfigurationError(
            f"The file that {variable} names is larger than {SECRET_BYTES_MAX} bytes.",
            advice="It should contain the secret and nothing else.",
        )
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigurationError(
            f"The file that {variable} names is empty.",
            advice=f"Write the secret into it, or unset {variable}.",
        )
    return secret

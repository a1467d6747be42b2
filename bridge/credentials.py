"""Secrets, read where they are used: from the environment, from a file, or from `.env`.

Workers import this in their own process, so it imports nothing heavy, and credentials refuse to
be pickled: they never travel in a task.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from dotenv import dotenv_values

from bridge.core.errors import ConfigurationError
from bridge.core.model import SideName

DOTENV_PATH = Path(".env")
SECRET_BYTES_MAX = 64 * 1024
POKE_TOKEN = "BRIDGE_POKE_TOKEN"  # noqa: S105  (its name)
POKE_TOKEN_LENGTH_MIN = 16

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
"""What Python makes of bytes in the environment that are not UTF-8."""
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
    process = os.environ if environ is None else environ
    for place, values in (("the environment", process), (".env", _dotenv(dotenv_path))):
        file_variable = f"{variable}_FILE"
        value, file_name = values.get(variable), values.get(file_variable)
        if value and file_name:
            raise ConfigurationError(
                f"{variable} and {file_variable} are both set in {place}.",
                advice="Keep one of them.",
            )
        if value:
            return value
        if file_name:
            return _read_secret(file_variable, Path(file_name))
    return None


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
    if token is not None and (username is not None or password is not None):
        raise ConfigurationError(
            f"{prefix}TOKEN is set together with {prefix}USERNAME or {prefix}PASSWORD.",
            advice="A server takes a token or a login, not both: unset one of them.",
        )
    if password is not None and username is None:
        raise ConfigurationError(
            f"{prefix}PASSWORD is set without {prefix}USERNAME.",
            advice=f"Set {prefix}USERNAME too.",
        )
    if username is not None and password is None:
        raise ConfigurationError(
            f"{prefix}USERNAME is set without {prefix}PASSWORD.",
            advice=f"Set {prefix}PASSWORD or {prefix}PASSWORD_FILE too.",
        )
    if username is not None and ":" in username:
        raise ConfigurationError(
            f"{prefix}USERNAME contains a colon, which basic authentication cannot carry.",
            advice="Use another user, or a token.",
        )
    for name, value in (("USERNAME", username), ("PASSWORD", password)):
        if value is not None and _CONTROL_CHARACTER.search(value):
            raise ConfigurationError(
                f"{prefix}{name} contains a line break or another control character.",
                advice="Check the file or the quotes that it comes from.",
            )
        if value is not None and _SURROGATE.search(value):
            raise ConfigurationError(
                f"{prefix}{name} is not UTF-8.", advice="Set it in UTF-8, or from a file in UTF-8."
            )
    if token is not None and not BEARER_TOKEN.fullmatch(token):
        raise ConfigurationError(
            f"{prefix}TOKEN contains a character that an HTTP header cannot carry.",
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
        raise ConfigurationError(
            f"{POKE_TOKEN} has fewer than {POKE_TOKEN_LENGTH_MIN} characters, or one that an HTTP "
            "header cannot carry.",
            advice="Make one with: openssl rand -hex 24",
        )
    return token


def _dotenv(path: Path) -> Mapping[str, str | None]:
    try:
        return dotenv_values(path, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"The file {path.name} cannot be read: {type(exc).__name__}.",
            advice="Make it readable for the user that runs the bridge, in UTF-8.",
        ) from exc


def _read_secret(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
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

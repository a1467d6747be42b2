"""Values of settings: what each may be, and what to say of one that may not."""

from __future__ import annotations

import os
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from bridge.core.schedule import parse_schedule

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOST = re.compile(r"[\w.-]{1,253}|[0-9a-f:.]+(?:%[\w.-]+)?")
"""A name (international ones too) or an address, as ``urlsplit`` gives them."""
MAX_SEQUENCE = 2**31 - 1
"""Orthanc writes sequences as 32-bit integers."""


def _base_url(value: str) -> str:
    """Check an address and bring it into one form, so that the same server looks the same."""
    value = value.strip()
    if not value.isprintable() or " " in value:
        raise ValueError("contains a blank or a control character")
    if "@" in value:
        # Anywhere: a password with a slash ends the host for a parser, and would be logged.
        raise ValueError(
            "must not contain a user name or password (nor any @); set the ..._USERNAME and "
            "..._PASSWORD (or ..._PASSWORD_FILE) variables instead"
        )
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise ValueError("is not a URL; write for example http://orthanc:8042") from exc
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.query or parts.fragment:
        raise ValueError("must not contain ? or #")
    if port == 0:
        raise ValueError("has port 0")
    usual = {"http": 80, "https": 443}[parts.scheme]
    place = parts.netloc.lower() if port != usual else parts.netloc.lower().rpartition(":")[0]
    return f"{parts.scheme}://{place}{parts.path}".rstrip("/")


def _readable_file(value: str | None) -> str | None:
    if value is not None and not os.access(value, os.R_OK):
        raise ValueError("names a file that does not exist or cannot be read")
    return value


WORKERS_MAX = 256
WORKERS_BEYOND_CPUS = 2
"""While these wait for a server, the others keep the processors busy (docs/decisions/0003)."""


def default_workers() -> int:
    """Return how many workers keep the CPUs of this machine busy."""
    return min(WORKERS_MAX, len(os.sched_getaffinity(0)) + WORKERS_BEYOND_CPUS)


def _start(value: object) -> str | int:
    text = str(value).strip()
    if text in ("beginning", "now", "snapshot"):
        return text
    if text.isascii() and text.isdigit() and 0 <= int(text) <= MAX_SEQUENCE:
        return int(text)
    raise ValueError("must be beginning, now, snapshot or a sequence number (0 or more)")


def _verify(value: str) -> str:
    kind, _, count = value.partition(":")
    if value in ("off", "all") or (
        kind == "sample" and count.isascii() and count.isdigit() and int(count) >= 1
    ):
        return value
    raise ValueError("must be off, all or sample:N (one instance in N)")


def _schedule(value: str) -> str:
    parse_schedule(value)
    return value


def _executor(value: str) -> str:
    if value == "local":
        return value
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise ValueError("has no valid port; write for example tcp://scheduler:8786") from exc
    named = _HOST.fullmatch(parts.hostname or "") and port and not parts.path and "@" not in value
    if parts.scheme not in ("tcp", "tls") or not named:
        raise ValueError("must be local, tcp://HOST:PORT or tls://HOST:PORT (a Dask scheduler)")
    return value


def _retention(value: str) -> str:
    number, unit = value[:-1], value[-1:]
    if value == "keep" or (number.isascii() and number.isdigit() and unit in UNITS_S):
        return value
    raise ValueError("must be keep or a duration such as 24h (units: s, m, h, d)")


Url = Annotated[str, AfterValidator(_base_url)]
File = Annotated[str | None, AfterValidator(_readable_file)]
Start = Annotated[str | int, BeforeValidator(_start)]
Verify = Annotated[str, AfterValidator(_verify)]
Schedule = Annotated[str, AfterValidator(_schedule)]
Executor = Annotated[str, AfterValidator(_executor)]
Retention = Annotated[str, AfterValidator(_retention)]

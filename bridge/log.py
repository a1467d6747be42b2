"""Log lines: one event, one line, on stderr, as text for people or JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from bridge.standard_streams import tell_of_lost_lines
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, shortened, visible

LOGGER = logging.getLogger("orthanc_bridge")
FOREIGN_EVENT = "library"
COMMAND_SAID = "command_said"
EVENT_WIDTH = 18
FIELD_ITEMS_MAX = 100


def set_up_logging(*, log_format: str, level: str, bridge: str = "") -> None:
    """Send the bridge's log lines to stderr as ``text`` or ``json`` from ``level`` on.

    ``bridge``: the name of this bridge, which each line has then.

    What libraries log from warnings on, and Python's own warnings, become one line each. It names
    the library and the place and leaves the text out, because a text may quote values. The same
    holds for a thread that ends with an exception.
    """
    formatter = _JsonFormatter(bridge) if log_format == "json" else _TextFormatter(bridge)
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter)
    LOGGER.handlers = [handler]
    tell_of_lost_lines(lambda lines: formatter.format(_lost(lines)) + "\n")
    LOGGER.propagate = False
    LOGGER.setLevel(level.upper())
    for old in [h for h in logging.root.handlers if isinstance(h, _ForeignHandler)]:
        logging.root.removeHandler(old)
    foreign = _ForeignHandler(sys.stderr)
    foreign.setFormatter(_ForeignFormatter(formatter))
    logging.root.addHandler(foreign)
    logging.root.setLevel(logging.WARNING)
    # Whoever sends what is not HTTP must not fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_ended


def log_through(stream: TextIO) -> TextIO:
    """Write the lines to another stream from now on; returns the one before.

    Where a bar is drawn, a line that goes straight to the terminal would stand in the middle of it.
    """
    before = stream
    for handler in (*LOGGER.handlers, *logging.root.handlers):
        if isinstance(handler, _Handler):
            before = handler.setStream(stream) or before
    return before


def log(level: int, event: str, message: str, **fields: object) -> None:
    """Write one line: ``event`` names it for machines, ``message`` tells people."""
    if LOGGER.isEnabledFor(level):
        # LOGGER.log would walk the stack for the caller's place, which no format shows.
        message = shortened(message, MESSAGE_CHARACTERS_MAX)
        extra = {"event": event, "fields": {name: _bounded(f) for name, f in fields.items()}}
        LOGGER.handle(
            LOGGER.makeRecord(LOGGER.name, level, "", 0, "%s", (message,), None, extra=extra)
        )


def relay(line: str, level: int) -> None:
    """Write a line of another process of ours, that of a command which was started over HTTP.

    In a log of JSON only JSON is written: what is none becomes a message. ``level``: of that.
    """
    in_json = any(isinstance(one.formatter, _JsonFormatter) for one in LOGGER.handlers)
    if in_json and not _is_json_line(line):
        if line.strip():
            log(level, COMMAND_SAID, visible(line))
        return
    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()


def _is_json_line(line: str) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"time", "level", "event", "message"} <= found.keys()


def _lost(lines: int) -> logging.LogRecord:
    text = f"lines of the log that were lost here, since it could not be written: {lines}"
    extra = {"event": "log_lost", "fields": {"lines": lines}}
    return LOGGER.makeRecord(LOGGER.name, logging.ERROR, "", 0, "%s", (text,), None, extra=extra)


class _ForeignFormatter(logging.Formatter):
    """Tells the origin of a foreign record instead of its text."""

    def __init__(self, told_by: logging.Formatter) -> None:
        super().__init__()
        self._told_by = told_by

    def format(self, record: logging.LogRecord) -> str:
        kind, _, trace = record.exc_info or (None, None, None)
        what = "" if kind is None else f": {kind.__name__}{_place(trace)}"
        told = logging.makeLogRecord(record.__dict__)
        told.msg, told.args = f"{record.name} ({record.filename}:{record.lineno}){what}", None
        told.exc_info, told.exc_text, told.stack_info = None, None, None
        return self._told_by.format(told)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes the lines."""


class _ForeignHandler(_Handler):
    """The handler of what libraries log."""


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    name = ended.thread.name if ended.thread else "a thread"
    text = f"{name} ended: {ended.exc_type.__name__}{_place(ended.exc_traceback)}"
    log(logging.ERROR, "thread_ended", f"{text}. This is a bug in the bridge: please report it.")


def _place(trace: TracebackType | None) -> str:
    """Tell where an exception was raised, not what it said."""
    frames = traceback.extract_tb(trace)
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


class _TextFormatter(logging.Formatter):
    """Short lines for people, in columns: time, level, event, message.

    ``bridge``: a name that stands before each message, in brackets; "" for none.
    """

    def __init__(self, bridge: str) -> None:
        super().__init__()
        self._named = f"[{bridge}] " if bridge else ""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))
        event = getattr(record, "event", FOREIGN_EVENT)
        # One event is one line, whatever a server has put into its answer.
        message = visible(self._named + record.getMessage())
        return f"{stamp} {record.levelname:7} {event:{EVENT_WIDTH}} {message}"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line for machines; times in UTC.

    ``bridge``: a name that each line has as a field; "" for none.
    """

    def __init__(self, bridge: str) -> None:
        super().__init__()
        self._named = {"bridge": bridge} if bridge else {}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": getattr(record, "event", FOREIGN_EVENT),
            "message": record.getMessage(),
        }
        fields.update(self._named)
        fields.update(getattr(record, "fields", {}))
        return json.dumps(fields, default=_plain)


def _bounded(value: object) -> object:
    """Shorten a field: a text from a file may be as long as the file."""
    if isinstance(value, str) and len(value) > MESSAGE_CHARACTERS_MAX:
        return shortened(value, MESSAGE_CHARACTERS_MAX)
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value[:FIELD_ITEMS_MAX]]
    return value


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

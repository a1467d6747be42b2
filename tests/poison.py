"""Codecs that a test gives to the workers: each fails in its own way, for marked instances only.

Which instance gets which is read from POISON_FILE in the working directory, for each task anew:
``{"<instance ID>": "raise" | "refuse" | "segfault" | "hang" | "eat"}``. Only RLE is poisoned, so
mark RLE instances. Nothing here is known to the bridge: see poison_main.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from bridge.dicom.codecs import DECODERS, Decoder, DecoderRole, DecoderUse, StreamKind
from bridge.dicom.codestream import StreamInfo
from bridge.dicom.description import Description
from bridge.dicom.syntaxes import Family
from bridge.model import Outcome, Task
from bridge.worker.transfer import move

POISON_FILE = Path("poison.json")
EATEN_BYTES = 64 * 1024 * 1024

_HONEST = DECODERS[Family.RLE]


class Fault(Exception):
    """Nothing that the bridge expects of a decoder."""


def mark(home: Path, kinds: Mapping[str, str]) -> None:
    """Choose the poison of instances, for a bridge whose working directory is ``home``."""
    (home / POISON_FILE).write_text(json.dumps(dict(kinds)))


def poisoned_move(task: Task) -> Outcome:
    """Run in a worker instead of ``move``: the same, but for the codec of a marked instance."""
    kinds = json.loads(POISON_FILE.read_text())
    kind = kinds.get(task.move.instance_id)
    DECODERS[Family.RLE] = _HONEST if kind is None else (_decoder(KINDS[kind]),)
    return move(task)


def _raise(_frame: bytes, _info: StreamInfo, _description: Description) -> NoReturn:
    raise Fault


def _refuse(_frame: bytes, _info: StreamInfo, _description: Description) -> NoReturn:
    raise ValueError("not mine")


def _segfault(_frame: bytes, _info: StreamInfo, _description: Description) -> NoReturn:
    ctypes.string_at(0)
    raise AssertionError("address 0 can be read")


def _hang(_frame: bytes, _info: StreamInfo, _description: Description) -> NoReturn:
    threading.Event().wait()
    raise AssertionError("waited for ever")


def _eat(_frame: bytes, _info: StreamInfo, _description: Description) -> NoReturn:
    # Of zeros, which nobody writes: to write a gigabyte takes seconds on a busy machine, and then
    # BRIDGE_TASK_TIMEOUT_S comes first.
    eaten: list[bytes] = []
    while True:
        eaten.append(bytes(EATEN_BYTES))


KINDS: Mapping[str, Callable[[bytes, StreamInfo, Description], NoReturn]] = {
    "raise": _raise,
    "refuse": _refuse,
    "segfault": _segfault,
    "hang": _hang,
    "eat": _eat,
}


def _decoder(decode: Callable[[bytes, StreamInfo, Description], NoReturn]) -> Decoder:
    uses = dict.fromkeys(StreamKind, DecoderUse(DecoderRole.DECODES, "a test gave it"))
    return Decoder("poison", "tests", "tests", decode, uses)

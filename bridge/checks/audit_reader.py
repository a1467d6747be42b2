"""Reads the audit file back: the lines of a time or of some instances, sorted by instance."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from bridge.audit import set_aside
from bridge.checks.disk_lists import SortedTexts
from bridge.errors import ConfigurationError
from bridge.own_files import open_to_read

DELIVERED = "delivered"
ARRIVED = (DELIVERED, "already_there")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """What is on record of one instance: its last arrival if it has one, else its last line.

    ``line`` is None for an instance that is asked about and of which there is no line.
    ``delivered_at``: when the target last stored it, or first said that it has it, where only that
    is on record; "" if it never did.
    """

    instance_id: str
    line: Line | None = None
    delivered_at: str = ""

    def text(self, name: str) -> str:
        """Return a field as text, or ""."""
        value = (self.line or {}).get(name)
        return "" if value is None else str(value)

    @property
    def arrived(self) -> bool:
        """Whether the target once said that it has the instance."""
        return self.text("outcome") in ARRIVED


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of the audit file, oldest first, those that were put aside included.

    What is no such line is passed over. Raises ConfigurationError when nothing can be read.
    """
    files = [other for _, other in set_aside(path)] + ([path] if path.exists() else [])
    if not files:
        raise ConfigurationError(
            f"There is no audit file at BRIDGE_AUDIT_PATH ({path}).",
            advice="The bridge writes it while it runs with BRIDGE_AUDIT_PATH set.",
        )
    for file in files:
        try:
            with os.fdopen(open_to_read(file), "rb") as stream:
                yield from filter(None, map(_parsed, stream))
        except OSError as exc:
            raise ConfigurationError(f"{file} cannot be read: {exc.strerror}.") from exc


def _parsed(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    name = line.get("instance") if isinstance(line, dict) else None
    return line if isinstance(name, str) and name.isascii() else None


class Records:
    """Lines sorted by instance, in bounded memory."""

    def __init__(self, texts: SortedTexts) -> None:
        self._texts = texts
        self._number = 0

    def ask(self, instance_ids: Iterable[str]) -> None:
        """Have instances in the result, whether there are lines of them or not."""
        self._texts.add(f"{instance_id}\t" for instance_id in instance_ids)

    def add(self, lines: Iterable[Line], wanted: Callable[[Line], bool]) -> int:
        """Add the lines that are wanted; returns how many there are now."""
        for line in lines:
            if wanted(line):
                self._number += 1
                text = json.dumps(line, separators=(",", ":"))
                self._texts.add([f"{line['instance']}\t{self._number:012d}{text}"])
        return self._number

    def __iter__(self) -> Iterator[Record]:
        """Yield one record for each instance, by instance ID."""
        for instance_id, group in groupby(self._texts, key=lambda text: text.partition("\t")[0]):
            last = arrival = first = delivery = None
            for text in group:
                rest = text.partition("\t")[2]
                if not rest:
                    continue
                last = json.loads(rest[12:])
                if last.get("outcome") in ARRIVED:
                    arrival = last
                    first = first or last
                if last.get("outcome") == DELIVERED:
                    delivery = last
            at = str((delivery or first or {}).get("time", ""))
            yield Record(instance_id, arrival or last, at)

"""How the source serves other instances: asked when it fails at one and no other is to be moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import SideError
from bridge.model import SideProblem
from bridge.pipeline.failure_policy import SOLE_MAX, Others

LISTED_MAX = 100
"""Identifiers from which those to ask for are drawn."""
ASKED_MAX = 4
"""Files that are asked for at most, each until its first bytes have come."""
UNLISTED = frozenset({SideProblem.FORBIDDEN, SideProblem.NOT_FOUND})
"""What a login answers that may not list: no trouble of the source."""


@dataclass(frozen=True, slots=True)
class FailedFile:
    """What is known when the source fails at the file of ``instance_id``.

    ``failing``: others that failed before and are unfinished. ``lost``: some that were parked since
    the source gave nothing to compare them with, at most LISTED_MAX. ``lost_in_a_row``: how many
    were, since the source gave a file at last.
    """

    instance_id: str
    failing: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    lost_in_a_row: int = 0


class FileServer(Protocol):
    """What is needed of the source here."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        """Return instance IDs by position. Raises SideError."""

    def serves_whole_file(self, instance_id: str, *, with_metadata: bool) -> bool:
        """Tell whether the server gives an instance's file, as long as it notes it.

        Raises SideError.
        """


def ask_for_another(
    source: FileServer,
    failed: FailedFile,
    *,
    chance: Callable[[], float],
    with_metadata: bool = False,
) -> Others:
    """Ask the source for the file of another instance. Raises SideError.

    ``with_metadata``: and for its metadata, where a move asks for them (rules): either may fail for
    all.

    It is drawn by chance: a server may keep in memory what it was asked for before, and answer from
    there while its disk is away. ``chance`` yields numbers from 0 to 1.
    """
    try:
        listed = source.list_instances(0, LISTED_MAX)
    except SideError as exc:
        if exc.problem not in UNLISTED:
            raise
        return Others.NONE
    too_many = failed.lost_in_a_row >= SOLE_MAX
    lost = frozenset() if too_many else failed.lost
    others = [name for name in listed if name != failed.instance_id and name not in lost]
    left = [name for name in others if name not in failed.failing]
    if not left:
        # A list that lacks even the failed one proves nothing: another server may have answered.
        # Those that were lost before may have been deleted there meanwhile: their number stays.
        if failed.instance_id in listed and not others and not too_many:
            return Others.SOLE
        return Others.ABSENT if listed else Others.NONE
    for _ in range(min(ASKED_MAX, len(left))):
        name = left.pop(min(int(chance() * len(left)), len(left) - 1))
        if source.serves_whole_file(name, with_metadata=with_metadata):
            return Others.WELL
    return Others.NONE

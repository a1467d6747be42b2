"""Which of many instances a server holds: by its list, by bulk requests, or one by one.

This file must not know: sockets, files, clocks, logging, settings.
The server is asked by a protocol.

A list tells much at once: a server that is far away, or whose routes of single instances are slow,
names all that it holds in a few pages. What it names is there, as surely as where it is asked for
by itself. What it does not name was not there, or was passed over because others were deleted
while it was read. So these answers are for whoever delivers what is not named: that does no harm
where it is there all the same. An address may lead to the source for a moment, whose list names all
there is: of each answer that names any, one is looked at, on the same connection.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from bridge.errors import SideError
from bridge.model import SideProblem

LIST_PAGE = 10_000
"""Instances in a page of the list."""
LIST_SHARE = 20
"""A list is read while it has at most so many instances for each that is to be asked for: naming
one takes a server 0.004 to 0.04 ms, and telling of one that is asked for 0.1 to 4."""
ASKED_TOGETHER = 100
"""Instances in one bulk request: 0.4 s on a server where one takes 4 ms."""
TROUBLES_MAX = 3
"""A way that failed so often while the server could be reached is given up for the next one."""
NO_SUCH_WAY = frozenset({SideProblem.FORBIDDEN, SideProblem.NOT_FOUND, SideProblem.NOT_ORTHANC})
"""What a proxy or a plugin answers that does not allow it: it is given up at once."""

_Answer = TypeVar("_Answer")


class HeldClient(Protocol):
    """What is needed of a server to know what it holds."""

    def list_instances(self, since: int, limit: int) -> list[str]:
        """Return instance IDs by position."""

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        """Return which of these the server names; None where it answers no such request."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""


class Names(Protocol):
    """A set of names, of any size. Raises OSError where there is no room for them."""

    def add(self, texts: Iterable[str]) -> None:
        """Add some."""

    def among(self, texts: Sequence[str]) -> set[str]:
        """Return which of these were added."""


class HeldInstances:
    """Tells which of many instances a server holds, by the fastest way that it allows.

    ``asked_for`` returns how many instances are to be asked for, about; it may ask a server. The
    list is read at the first question, unless it turns out to be much longer than that: then, and
    where there is no list or no room for it, instances are asked for in bulk, and where no bulk
    requests are answered one by one. All ways have the same result.

    ``look`` is given an instance that an answer names, and raises SideError where it was the source
    that answered.
    """

    def __init__(
        self,
        client: HeldClient,
        names: Names,
        *,
        asked_for: Callable[[], int],
        look: Callable[[str], None],
    ) -> None:
        self._client = client
        self._names = names
        self._asked_for = asked_for
        self._look = look
        self._listed_max: int | None = None
        self._position = 0
        self._lists = True
        self._complete = False
        self._bulk = True
        self._troubles = 0
        self._told: dict[str, bool] = {}
        """What was asked for, of a question that is not answered yet."""

    def among(self, instance_ids: Sequence[str]) -> Collection[str]:
        """Return which of these the server holds.

        Raises SideError, after which the same question is gone on with: a server that fails now
        and then would never answer all of it.
        """
        while self._lists and not self._complete:
            self._read_list()
        held = self._named(instance_ids)
        if self._complete and self._lists:
            return held
        left = [i for i in instance_ids if i not in held and i not in self._told]
        for at in range(0, len(left), ASKED_TOGETHER):
            self._ask(left[at : at + ASKED_TOGETHER])
        told, self._told = self._told, {}
        return held | {instance_id for instance_id, there in told.items() if there}

    def _named(self, instance_ids: Sequence[str]) -> set[str]:
        try:
            return self._names.among(instance_ids)
        except OSError:
            self._lists = False
            return set()

    def _read_list(self) -> None:
        """Read a page of the list, or give the list up."""
        if self._listed_max is None:
            asked_for = self._tried(self._asked_for)
            self._listed_max = LIST_SHARE * (asked_for or 0)
        page = self._tried(lambda: self._client.list_instances(self._position, LIST_PAGE))
        if page is None or self._position + len(page) > self._listed_max:
            self._lists = False
            return
        if page:
            self._look(page[-1])
        try:
            self._names.add(page)
        except OSError:
            self._lists = False
            return
        self._position += len(page)
        self._complete = not page

    def _ask(self, instance_ids: Sequence[str]) -> None:
        if self._bulk:
            named = self._tried(lambda: self._client.bulk_held(instance_ids))
            if named is not None:
                if there := [instance_id for instance_id in instance_ids if instance_id in named]:
                    self._look(there[-1])
                self._told |= {instance_id: instance_id in named for instance_id in instance_ids}
                return
            self._bulk = False
        for instance_id in instance_ids:
            held = self._client.has_instance(instance_id)
            if held:
                self._look(instance_id)
            self._told[instance_id] = held

    def _tried(self, ask: Callable[[], _Answer]) -> _Answer | None:
        """Ask; None when this way is to be given up. Raises SideError while it is not."""
        try:
            answer = ask()
        except SideError as exc:
            if exc.problem in NO_SUCH_WAY:
                return None
            if exc.problem is SideProblem.UNREACHABLE:
                raise
            self._troubles += 1
            if self._troubles < TROUBLES_MAX:
                raise
            self._troubles = 0
            return None
        self._troubles = 0
        return answer

"""What a server tells of instances that are asked for in the order of their identifiers.

This file must not know: sockets, files, clocks, logging, settings.
The server is asked by a protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from bridge.model import Described


class DescribedInOrder:
    """Descriptions from the pages of a server that lists all that it holds by identifier.

    ``pages``: those, each read when it is needed; none where the server has no such list. One
    that is in another order ends them. What is not found there is to be asked for by itself: it
    came after its page was read, or was passed over because others were deleted.
    """

    def __init__(self, pages: Iterable[Mapping[str, Described]]) -> None:
        self._pages = iter(pages)
        self._known: dict[str, Described] = {}
        self._read_to = ""
        self._ended = False

    def of(self, instance_ids: Sequence[str]) -> dict[str, Described]:
        """Return what is told of these, ascending, and all above those of the call before.

        Raises SideError.
        """
        if not instance_ids:
            return {}
        last = instance_ids[-1]
        while not self._ended and self._read_to < last:
            self._read()
        found = {i: self._known[i] for i in instance_ids if i in self._known}
        self._known = {i: told for i, told in self._known.items() if i > last}
        return found

    def _read(self) -> None:
        page = next(self._pages, None)
        if not page or not all(before < after for before, after in pairwise(page)):
            self._ended = True
            return
        self._known |= page
        self._read_to = max(self._read_to, *page)

"""The output of a transcoding as chunks, and the deflated form of it.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

from bridge.core.plans import Plan
from bridge.core.rewrite import Chunk


class Body:
    """File meta information, data set up to the pixels, pixels, the rest.

    Iterate as often as needed: what was not held is decoded again. ``body_bytes``: exact length
    in bytes, or None where it is known only at the end.
    """

    def __init__(
        self,
        meta: Chunk,
        before: Sequence[Chunk],
        plan: Plan | None,
        after: Sequence[Chunk],
        *,
        deflated: bool = False,
    ) -> None:
        self._meta = meta
        self._before = before
        self._plan = plan
        self._after = after
        self._deflated = deflated
        self.body_bytes: int | None = None
        if not deflated and (plan is None or plan.body_bytes is not None):
            fixed = sum(len(chunk) for chunk in (meta, *before, *after))
            self.body_bytes = fixed + ((plan.body_bytes or 0) if plan else 0)

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks, none empty. Raises InstanceError where a frame is at fault."""
        yield self._meta
        chunks = self._dataset()
        for chunk in _deflate(chunks) if self._deflated else chunks:
            if len(chunk):
                yield chunk

    def _dataset(self) -> Iterator[Chunk]:
        yield from self._before
        if self._plan is not None:
            yield from self._plan.chunks()
        yield from self._after

    def held(self) -> Body:
        """Return the same body with everything made now, so that its length is known."""
        meta, *rest = list(self)
        return Body(meta, rest, None, [])


def _deflate(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """Compress as one raw deflate stream of even length (PS3.5 A.5)."""
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    written = 0
    for chunk in chunks:
        packed = engine.compress(chunk)
        written += len(packed)
        yield packed
    rest = engine.flush()
    yield rest + b"\0" * ((written + len(rest)) & 1)

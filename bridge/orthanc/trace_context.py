"""Which trace a request belongs to: the header traceparent of W3C Trace Context.

The bridge and its workers make the same identifiers of what both know: of this run of the bridge,
the instance, and the number of its task. So nothing has to come back from a worker.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

THIS_RUN = secrets.token_hex(8)
"""Of this process: the numbers of tasks begin anew with each run."""
_SAMPLED = "01"

_current: ContextVar[str] = ContextVar("traceparent", default="")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A trace, and in it the span that is the parent of what is done now; hexadecimal."""

    trace_id: str
    span_id: str

    @property
    def header(self) -> str:
        """As the header traceparent tells it."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED}"


def context_of(run: str, instance_id: str, number: int) -> TraceContext:
    """Make the context of a task: the same in the bridge and in a worker."""
    digest = hashlib.blake2b(f"{run} {instance_id} {number}".encode(), digest_size=24).hexdigest()
    return TraceContext(digest[:32], digest[32:])


@contextmanager
def traced(context: TraceContext | None) -> Iterator[None]:
    """Let each request of this thread tell the context, until the block ends; None: none does."""
    token = _current.set("" if context is None else context.header)
    try:
        yield
    finally:
        _current.reset(token)


def trace_headers() -> tuple[tuple[str, str], ...]:
    """Return what a request of this thread tells."""
    header = _current.get()
    return (("traceparent", header),) if header else ()

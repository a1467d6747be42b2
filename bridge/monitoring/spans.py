"""What became of an instance as spans of OpenTelemetry, and those as OTLP in JSON. Pure functions.

This file must not know: sockets, files, clocks, logging, settings.

One trace for each move:

    move        from the first to the last moment of the others
      feed      the source wrote the row (whole seconds), the bridge read it
      queue     read, given to a worker; attempts that failed are in it
      work      given to a worker, recorded
        fetch, transcode, deliver, prove     of a delivered instance, laid back from the end

Attributes are identifiers, numbers and words of ours: nothing that a file or a server has written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bridge.dicom.syntaxes import SYNTAXES
from bridge.events import InstanceParked, Settled
from bridge.model import Delivered, Skipped

FEED_S_MAX = 86_400.0
"""An older row was not read late: the bridge was not there, or a range is replayed."""
INTERNAL, ERROR = 1, 2
"""SPAN_KIND_INTERNAL and STATUS_CODE_ERROR of opentelemetry-proto."""

Attribute = str | int


@dataclass(frozen=True, slots=True)
class MoveSpan:
    """What took time. Times: epoch seconds. ``parent_id``: "" for the first of a trace."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begin_at: float
    end_at: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    failed: bool = False


def spans_of(
    event: Settled | InstanceParked, *, ended_at: float, trace_id: str, span_id: str
) -> tuple[MoveSpan, ...]:
    """Return the spans of a move that came to its end at ``ended_at``, the first is the parent.

    ``trace_id``, ``span_id``: of that one, as the workers know it (orthanc/trace_context.py).
    """
    move, times = event.move, event.times
    started_at = min(times.started_at or ended_at, ended_at)
    read_at = min(times.read_at or started_at, started_at)
    parts: list[tuple[str, str, float, float]] = []
    row_at = _row_at(move.changed_at, read_at)
    if row_at is not None:
        parts.append(("feed", "move", row_at, read_at))
    parts.append(("queue", "move", read_at, started_at))
    parts.append(("work", "move", started_at, ended_at))
    parts += [
        (name, "work", begin_at, end_at)
        for name, begin_at, end_at in _stages(event, started_at, ended_at)
    ]
    ids = {name: _span_id(span_id, name) for name, *_ in parts} | {"move": span_id}
    failed = isinstance(event, InstanceParked)
    first = MoveSpan(
        "move",
        trace_id,
        span_id,
        "",
        parts[0][2],
        ended_at,
        _attributes(event),
        failed,
    )
    others = (
        MoveSpan(name, trace_id, ids[name], ids[parent], begin_at, end_at)
        for name, parent, begin_at, end_at in parts
    )
    return (first, *others)


def otlp_json(spans: Iterable[MoveSpan], resource: Mapping[str, Attribute]) -> bytes:
    """Write spans as the body of a request ExportTraceServiceRequest of OTLP/HTTP."""
    told = {
        "resource": {"attributes": _told(resource)},
        "scopeSpans": [{"scope": {"name": "orthanc-bridge"}, "spans": [_json(s) for s in spans]}],
    }
    return json.dumps({"resourceSpans": [told]}).encode()


def _json(span: MoveSpan) -> dict[str, object]:
    told: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": str(round(span.begin_at * 1e9)),
        "endTimeUnixNano": str(round(span.end_at * 1e9)),
        "attributes": _told(span.attributes),
    }
    if span.parent_id:
        told["parentSpanId"] = span.parent_id
    if span.failed:
        told["status"] = {"code": ERROR}
    return told


def _told(attributes: Mapping[str, Attribute]) -> list[dict[str, object]]:
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else _text(value)}
        for key, value in attributes.items()
    ]


def _text(value: str) -> dict[str, str]:
    return {"stringValue": value}


def _attributes(event: Settled | InstanceParked) -> dict[str, Attribute]:
    told: dict[str, Attribute] = {"orthanc.instance": event.move.instance_id}
    if event.move.sequence is not None:
        told["orthanc.sequence"] = event.move.sequence
    match event:
        case Settled(outcome=Delivered() as done):
            told |= {
                "bridge.outcome": "already_there" if done.already_there else "delivered",
                "bridge.attempts": event.attempt,
                "bridge.source_syntax": _known(done.source_syntax),
                "bridge.target_syntax": _known(done.target_syntax),
                "bridge.source_bytes": done.source_bytes,
                "bridge.target_bytes": done.target_bytes,
            }
        case Settled(outcome=outcome):
            reason = str(outcome.reason) if isinstance(outcome, Skipped) else ""
            told |= {"bridge.outcome": "skipped", "bridge.reason": reason}
        case InstanceParked():
            told |= {
                "bridge.outcome": "parked",
                "bridge.reason": str(event.reason),
                "bridge.attempts": event.attempts,
                "bridge.source_syntax": _known(event.source_syntax),
            }
    return told


def _known(syntax: str) -> str:
    """Return a transfer syntax that DICOM knows: senders may write anything in its place."""
    return syntax if syntax in SYNTAXES else "other"


def _stages(
    event: Settled | InstanceParked, started_at: float, ended_at: float
) -> Iterator[tuple[str, float, float]]:
    """Yield the stages of a delivered instance: the last one ends at the end."""
    if not (isinstance(event, Settled) and isinstance(event.outcome, Delivered)):
        return
    stages = event.outcome.stages
    begin_at = max(started_at, ended_at - stages.total_s)
    for name in ("fetch", "transcode", "deliver", "prove"):
        end_at = min(ended_at, begin_at + getattr(stages, f"{name}_s"))
        yield name, begin_at, end_at
        begin_at = end_at


def _row_at(changed_at: str, read_at: float) -> float | None:
    """Return when the source wrote the row; None where it does not say, or says nonsense."""
    try:
        at = datetime.strptime(changed_at, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return at if 0 <= read_at - at <= FEED_S_MAX else None


def _span_id(parent_id: str, name: str) -> str:
    return hashlib.blake2b(f"{parent_id} {name}".encode(), digest_size=8).hexdigest()

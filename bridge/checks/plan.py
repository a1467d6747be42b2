"""What is to be done from here: the work of ``plan``. Metadata is read, nothing is transferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridge.checks.ask_both_servers import BothServers, Show, ToleratedErrors
from bridge.checks.expected import expected_handling
from bridge.checks.throughput import Measured, Table, route_of
from bridge.decision import Handling, Treatment
from bridge.dicom.codecs import DECODERS
from bridge.dicom.syntaxes import Family, syntax_of
from bridge.errors import InstanceError, InstanceGone, SideError
from bridge.feed.sources import ReplayRange, pages_of
from bridge.model import Job, Move, SideName

MEGABYTE = 1_000_000
FIXED_S = 0.010
"""Seconds of work for any instance: two transfers, the target's ingest (FACTS in docs/plan.md)."""
TRANSFER_MB_S = 150.0
"""Assumed for both transfers together, by one worker on a local network."""
RATIO_LOSSLESS = 2.5
RATIO_LOSSY = 12.0
"""Assumed size of the pixels by that of the compressed file."""
SLOWEST_MB_S = 18.0
"""Assumed where the table of decoders has no measurement: that of JPEG 2000."""
MEASURED_INSTANCES_MIN = 20
"""Fewer deliveries than this do not make a measurement."""


@dataclass(slots=True)
class PlanRow:
    """What is planned for all instances of one source syntax with the same fate."""

    source_syntax: str
    treatment: str
    target_syntax: str
    why: str
    instances: int = 0
    source_bytes: int = 0
    work_s: float = 0.0
    measured: bool = False


@dataclass(slots=True)
class Plan:
    """Everything planned. ``changes`` counts the instances in the range, gone ones included."""

    first: int
    last: int
    changes: int = 0
    gone: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    rows: list[PlanRow] = field(default_factory=list)

    @property
    def source_bytes(self) -> int:
        """Bytes to be read from the source, of everything that is sent."""
        return sum(row.source_bytes for row in self.rows if row.target_syntax)

    def seconds(self, workers: int) -> float:
        """Estimate the wall-clock seconds with so many workers."""
        return sum(row.work_s for row in self.rows) / max(1, workers)

    @property
    def measured_share(self) -> float:
        """Part of the estimated work that rests on measurements, 0 to 1."""
        whole = sum(row.work_s for row in self.rows)
        return sum(row.work_s for row in self.rows if row.measured) / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What was learnt of one instance."""

    handling: Handling | None
    source_bytes: int = 0
    trouble: str = ""


def make_plan(
    servers: BothServers,
    *,
    job: Job,
    first: int,
    last: int,
    page_size: int,
    measured: Table,
    show: Show,
) -> Plan:
    """Look at the instances of the changes first..last. Raises SourceError."""
    plan = Plan(first, last)
    rows: dict[Handling, PlanRow] = {}
    tolerated = ToleratedErrors()

    def look(move: Move) -> _Look:
        client = servers.client(SideName.SOURCE)
        try:
            expected = expected_handling(client, move.instance_id, job)
            return _Look(expected, client.attachment_size(move.instance_id))
        except InstanceGone:
            return _Look(None)
        except InstanceError as exc:
            return _Look(None, trouble=str(exc.reason))
        except SideError as exc:
            tolerated.tolerate(exc)
            return _Look(None, trouble=f"{exc.side}_{exc.problem}")

    total = max(0, last - first + 1)
    for move, seen in servers.each(lambda m: (m, look(m)), _moves(servers, first, last, page_size)):
        plan.changes += 1
        if seen.handling is not None:
            row = rows.get(seen.handling) or _new_row(seen.handling)
            rows[seen.handling] = row
            row.instances += 1
            row.source_bytes += seen.source_bytes
        elif seen.trouble:
            plan.unreadable[seen.trouble] += 1
        else:
            plan.gone += 1
        show("looking at instances", (move.sequence or first) - first + 1, total)
    plan.rows = sorted(rows.values(), key=lambda row: (-row.source_bytes, row.source_syntax))
    for row in plan.rows:
        row.work_s, row.measured = estimate_s(row, measured)
    return plan


def _moves(servers: BothServers, first: int, last: int, page_size: int) -> Iterator[Move]:
    if last < first:
        return
    client = servers.client(SideName.SOURCE)
    feed = ReplayRange(client, start=first, end=last, page_size=page_size)
    for page in pages_of(feed):
        yield from page.moves


def _new_row(expected: Handling) -> PlanRow:
    return PlanRow(
        expected.source_syntax, str(expected.treatment), expected.target_syntax, expected.why
    )


def estimate_s(row: PlanRow, measured: Table) -> tuple[float, bool]:
    """Estimate the seconds of work for a row, and whether that is measured rather than assumed.

    Measured: seconds a byte of the same route lately. Assumed: a fixed part for each instance,
    the transfers, and the decoder's speed over pixels of an assumed size.
    """
    if row.treatment in (Treatment.SKIP, Treatment.PARK):
        return 0.0, False
    known = measured.get(route_of(row.source_syntax, row.target_syntax), Measured())
    if known.instances >= MEASURED_INSTANCES_MIN and known.source_bytes > 0:
        return row.source_bytes * known.work_s / known.source_bytes, True
    megabytes = row.source_bytes / MEGABYTE
    work_s = row.instances * FIXED_S
    if row.treatment != Treatment.TRANSCODE:
        return work_s + 2 * megabytes / TRANSFER_MB_S, False
    syntax = syntax_of(row.source_syntax)
    ratio = 1.0
    if syntax.encapsulated:
        ratio = RATIO_LOSSLESS if syntax.lossless else RATIO_LOSSY
        work_s += megabytes * ratio / decoder_mb_s(syntax.family)
    target = syntax_of(row.target_syntax)
    if target.encapsulated:
        work_s += 2 * megabytes * ratio / decoder_mb_s(target.family)  # encoded, decoded again
        ratio = ratio / RATIO_LOSSLESS
    return work_s + megabytes * (1 + ratio) / TRANSFER_MB_S, False


def decoder_mb_s(family: Family) -> float:
    """Return the measured speed of a family's first decoder, MB of pixels a second on one core."""
    table = DECODERS.get(family, ())
    return (table[0].megabytes_s if table else 0) or SLOWEST_MB_S


def next_sequence(checkpoint: int | None, *, start: str | int, end: int) -> int:
    """Return the first change that a follower would do next.

    ``start``: BRIDGE_START, which counts until there is a checkpoint. ``end``: of the feed.
    """
    if checkpoint is not None:
        return checkpoint + 1
    if isinstance(start, int):
        return max(1, start)
    return end + 1 if start == "now" else 1


def as_fields(row: PlanRow) -> Mapping[str, object]:
    """Return a row as JSON-ready values."""
    return {
        "source_syntax": syntax_of(row.source_syntax).keyword if row.source_syntax else "unknown",
        "source_uid": row.source_syntax,
        "does": row.treatment,
        "to": syntax_of(row.target_syntax).keyword if row.target_syntax else "",
        "why": row.why,
        "instances": row.instances,
        "megabytes": round(row.source_bytes / MEGABYTE, 2),
        "work_s": round(row.work_s, 2),
        "estimate": "measured" if row.measured else "assumed",
    }

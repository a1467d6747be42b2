"""What is to be done from here: the work of ``plan``. Metadata is read, nothing is transferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from bridge.checks.ask_both_servers import BATCH, BothServers, Show, ToleratedErrors
from bridge.checks.described_in_order import DescribedInOrder
from bridge.checks.disk_lists import SortedTexts
from bridge.checks.expected import expected_handling
from bridge.checks.throughput import Measured, Table, route_of
from bridge.decision import Handling, Treatment
from bridge.dicom.codecs import DECODERS
from bridge.dicom.syntaxes import Family, syntax_of
from bridge.errors import InstanceError, InstanceGone, SideError
from bridge.feed.pages import MovePage
from bridge.feed.sources import ReplayRange, pages_of
from bridge.model import Described, Job, SideName, SideProblem

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
READ_WHOLE_MIN = 1000
"""For fewer instances the source is never read as a whole."""
READ_WHOLE_SHARE = 10
"""It is where it holds at most so many instances for each that is planned. Described with all
others an instance takes an Orthanc 0.3 ms, by itself up to 4 (docs/orthanc.md)."""
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
class _Planned:
    """An instance, and what is told of it with others; None where nothing is."""

    instance_id: str
    told: Described | None


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
    """Look at the instances of the changes first..last.

    Raises SourceError, OSError (TMPDIR is full).
    """
    plan = Plan(first, last)
    rows: dict[Handling, PlanRow] = {}
    tolerated = ToleratedErrors()

    def look(instance_id: str, told: Described | None) -> _Look:
        client = servers.client(SideName.SOURCE)
        try:
            known = None if told is None else told.metadata
            expected = expected_handling(client, instance_id, job, known=known)
            size = None if told is None else told.size_bytes
            return _Look(expected, client.attachment_size(instance_id) if size is None else size)
        except InstanceGone:
            return _Look(None)
        except InstanceError as exc:
            return _Look(None, trouble=str(exc.reason))
        except SideError as exc:
            tolerated.tolerate(exc)
            return _Look(None, trouble=f"{exc.side}_{exc.problem}")

    def look_at_many(asked: Sequence[_Planned]) -> list[_Look]:
        untold = [one.instance_id for one in asked if one.told is None]
        told = servers.client(SideName.SOURCE).bulk_described(untold)
        return [look(one.instance_id, one.told or told.get(one.instance_id)) for one in asked]

    with SortedTexts() as texts:
        for page in _pages(servers, first, last, page_size):
            texts.add(f"{move.instance_id} {move.sequence}" for move in page.moves)
            plan.changes += len(page.moves)
            show("reading the feed", plan.changes, None)
        asked = _asked(servers, texts, plan.changes)
        for number, seen in enumerate(servers.each_together(look_at_many, asked)):
            if seen.handling is not None:
                row = rows.get(seen.handling) or _new_row(seen.handling)
                rows[seen.handling] = row
                row.instances += 1
                row.source_bytes += seen.source_bytes
            elif seen.trouble:
                plan.unreadable[seen.trouble] += 1
            else:
                plan.gone += 1
            show("inspecting instances", number + 1, plan.changes)
    plan.rows = sorted(rows.values(), key=lambda row: (-row.source_bytes, row.source_syntax))
    for row in plan.rows:
        row.work_s, row.measured = estimate_s(row, measured)
    return plan


def _pages(servers: BothServers, first: int, last: int, page_size: int) -> Iterator[MovePage]:
    if last < first:
        return
    client = servers.client(SideName.SOURCE)
    yield from pages_of(ReplayRange(client, start=first, end=last, page_size=page_size))


def _asked(servers: BothServers, texts: Iterable[str], count: int) -> Iterator[_Planned]:
    """Yield the instances by identifier, with what the source tells in pages of all it holds.

    ``count``: so many there are. Where the source holds many more, it is asked for these only.
    """
    instances = (text.partition(" ")[0] for text in texts)
    pages = servers.described(SideName.SOURCE) if _lists_pay(servers, count) else ()
    told = DescribedInOrder(pages)
    while batch := list(islice(instances, BATCH)):
        known = told.of(batch)
        yield from (_Planned(instance_id, known.get(instance_id)) for instance_id in batch)


def _lists_pay(servers: BothServers, count: int) -> bool:
    """Tell whether the source is to be read as a whole. Raises SourceError when it is away."""
    if count < READ_WHOLE_MIN:
        return False
    try:
        held = servers.client(SideName.SOURCE).statistics().instances
    except SideError as exc:
        if exc.problem is SideProblem.UNREACHABLE:
            raise
        return False
    return held <= READ_WHOLE_SHARE * count


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

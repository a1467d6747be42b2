"""Did every instance arrive, and is it the same image? From the audit file and both servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice

from bridge.checks.ask_both_servers import BATCH, BothServers, Holds, Show
from bridge.checks.audit_reader import Record
from bridge.checks.pixels import ImageComparison, ImageResult, Images
from bridge.errors import InstanceError, SideError
from bridge.model import Reason, SideName
from bridge.orthanc import Need, lacks_right


class Fate(StrEnum):
    """What became of an instance. The names are part of the contract."""

    ARRIVED = "arrived"
    """The target has it, and it is the same image, or the MD5 that it noted is the proved one."""
    DIFFERENT = "different"
    """The target has it, and it is another image, or it cannot read its file."""
    UNDECIDED = "undecided"
    """The target has it, and nothing tells whether it is the same image."""
    MISSING = "missing"
    """The target does not have it."""
    PARKED = "parked"
    """The target does not have it, and it was parked; ``how`` tells if it was dropped then."""
    GONE = "gone"
    """The target does not have it: it was deleted at the source before it could be read."""
    SKIPPED = "skipped"
    """The target does not have it, because a rule says so."""


SIDES = (SideName.SOURCE, SideName.TARGET)
AS_NOTED = (
    "the MD5 that the target noted at arrival is the one that was proved; the file itself was not "
    "read, --verify reads it"
)
NOT_AS_NOTED = "the MD5 that the target noted at arrival is not the one that was proved"
READ = "the target has read its file: it is the one that was proved (MD5)"
NOT_READ = "the target cannot read its file: it is damaged, or lost on the disk"
NOT_TOLD = "the target does not tell whether it can read its file"
WELL = (Fate.ARRIVED, Fate.SKIPPED)


@dataclass(frozen=True, slots=True)
class Arrival:
    """The answer for one instance. ``how`` tells what it rests on."""

    record: Record
    at_source: bool
    at_target: bool
    fate: Fate
    how: str


@dataclass(slots=True)
class Report:
    """Counts by fate."""

    counts: Counter[Fate] = field(default_factory=Counter)

    @property
    def everything_is_well(self) -> bool:
        """Whether every instance arrived as the same image, or was meant not to."""
        return all(fate in WELL for fate, count in self.counts.items() if count)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Where an instance is now. ``target_md5`` only where nothing better can be compared.

    ``readable``: whether the target can read its file; None where it was not asked, or tells not.
    """

    record: Record
    at_source: bool
    at_target: bool
    target_md5: str = ""
    asked_to_read: bool = False
    readable: bool | None = None

    @property
    def comparable(self) -> bool:
        """Whether there is something to compare the target's image with."""
        return self.at_target and (self.at_source or bool(self.record.text("samples_sha256")))


def arrivals(
    asked: Iterable[Record],
    servers: BothServers,
    images: Images,
    report: Report,
    show: Show,
    *,
    parked_as: Callable[[str], str | None] = lambda _: None,
    verify: bool = False,
) -> Iterator[Arrival]:
    """Arrival for each instance, in order, and count. Raises SourceError, TargetError, StateError.

    ``parked_as`` tells why an instance is parked now, which an audit file may not know.
    ``verify``: the target reads the file of what nothing but its MD5 tells of.
    """

    def look_at_many(records: Sequence[Record]) -> list[_Seen]:
        asked = [record.instance_id for record in records]
        at_source, at_target = (servers.held(side, asked) for side in SIDES)
        return [look(record, at_source, at_target) for record in records]

    def look(record: Record, holds: Holds, target_holds: Holds) -> _Seen:
        at_source, at_target = holds(record.instance_id), target_holds(record.instance_id)
        seen = _Seen(record, at_source, at_target)
        if at_target and not seen.comparable:
            target = servers.client(SideName.TARGET)
            seen = replace(seen, target_md5=_md5(target.stored_md5, record))
            if verify:
                readable = _readable(target.verify_stored, record)
                seen = replace(seen, asked_to_read=True, readable=readable)
        return seen

    stream = iter(asked)
    while batch := list(islice(stream, BATCH)):
        seen = list(servers.each_together(look_at_many, batch))
        pixels = {
            compared.instance_id: compared
            for compared in images.comparisons(
                (s.record.instance_id, "" if s.at_source else s.record.text("samples_sha256"))
                for s in seen
                if s.comparable
            )
        }
        for one in seen:
            arrival = _arrival(one, pixels.get(one.record.instance_id))
            if arrival.fate is Fate.MISSING and (reason := parked_as(one.record.instance_id)):
                arrival = replace(arrival, fate=Fate.PARKED, how=reason)
            report.counts[arrival.fate] += 1
            show("comparing", report.counts.total(), None)
            yield arrival


def _md5(stored_md5: Callable[[str], str], record: Record) -> str:
    try:
        return stored_md5(record.instance_id)
    except InstanceError:
        return ""


def _readable(verify_stored: Callable[[str], bool], record: Record) -> bool | None:
    try:
        return verify_stored(record.instance_id)
    except InstanceError:
        return None
    except SideError as exc:
        if not (exc.specific or lacks_right(exc, Need.LOOK_AT_ONE)):
            raise
        return None


def _arrival(seen: _Seen, compared: ImageComparison | None) -> Arrival:
    fate, how = _fate(seen, compared)
    return Arrival(seen.record, seen.at_source, seen.at_target, fate, how)


def _fate(seen: _Seen, compared: ImageComparison | None) -> tuple[Fate, str]:
    if not seen.at_target:
        return _why_missing(seen)
    if compared is None:
        return _by_md5(seen)
    match compared.result:
        case ImageResult.SAME:
            with_what = "source" if seen.at_source else "audit file"
            return Fate.ARRIVED, f"compared with the {with_what}: {compared.how}"
        case ImageResult.DIFFERENT:
            return Fate.DIFFERENT, compared.how
        case _:
            return Fate.UNDECIDED, compared.how


def _by_md5(seen: _Seen) -> tuple[Fate, str]:
    recorded = seen.record.text("target_md5")
    if not recorded:
        return Fate.UNDECIDED, "it was deleted at the source, and no checksum of it is on record"
    if seen.target_md5 != recorded:
        return Fate.DIFFERENT, NOT_AS_NOTED
    if not seen.asked_to_read:
        return Fate.ARRIVED, AS_NOTED
    if seen.readable is None:
        return Fate.UNDECIDED, NOT_TOLD
    return (Fate.ARRIVED, READ) if seen.readable else (Fate.DIFFERENT, NOT_READ)


def _why_missing(seen: _Seen) -> tuple[Fate, str]:
    record = seen.record
    reason = record.text("reason")
    match record.text("outcome"):
        case "parked":
            return Fate.PARKED, reason
        case "dropped":
            return Fate.PARKED, f"{reason}; dropped by a person"
        case "skipped" if reason == Reason.RULE:
            return Fate.SKIPPED, "by a rule"
        case "skipped" if not seen.at_source:
            return Fate.GONE, "deleted at the source before it could be read"
        case "delivered" | "already_there":
            return Fate.MISSING, "was delivered, but the target no longer has it"
        case _:
            return Fate.MISSING, "there is no record of it"

"""Brings what lies beside the files to the target: labels, metadata, attachments of all levels.

It comes after a delivery was proved, by itself: it fails no delivery and delays none. What is to
be written is decided in carry_decision.py. Before a value is written the ledger notes its digest,
so that a bridge that is killed knows it for its own. The UIDs of an instance never change on the
way, so a resource has the same identifier on both servers; what the target does not hold (it is
parked, or left out by a rule) is left until it is delivered.

What cannot be written for a reason of its own waits, and is tried again at the intervals of what is
parked because a server refuses it. An outage ends the attempt at everything, and nothing is lost:
the place in the feed stays.

Values and labels may be about patients: no message, event or log has any.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bridge.errors import InstanceError, SideError
from bridge.events import Carried, CarryFailed, CarryLeft, Event
from bridge.ledger.store import Ledger
from bridge.marks import MARK
from bridge.mirror.carry_decision import Carrying, carrying_of
from bridge.model import CarriedNames, Reason, ResourceKind, ServerInfo, SideName, SideProblem
from bridge.orthanc import Need, lacks_right
from bridge.orthanc.answers import Resource
from bridge.orthanc.carry_client import Attachment, Value
from bridge.pipeline.parked_policy import RETRIES

INTERVALS_S = RETRIES[Reason.SERVER_REFUSES_INSTANCE].intervals_s
LOST = "\ufffd"
"""In a list of metadata: a byte that is no UTF-8. The value is read by itself then."""
AT_ONE_MAX = 3
"""So often a server may fail at one resource before that one waits and the others go on."""
TOO_LARGE, FOREIGN, NO_LABELS = "too_large", "foreign", "no_labels"
LEFT_REASONS = (TOO_LARGE, FOREIGN, NO_LABELS)
"""Why something stays as it is at the target. Part of the contract (metrics)."""
LABELS, METADATA, ATTACHMENTS = "labels", "metadata", "attachments"
CARRIED_KINDS = (LABELS, METADATA, ATTACHMENTS)


class CarrySource(Protocol):
    """What is needed of the source."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        """Tell labels and metadata of resources, or of those of a kind above them."""

    def metadata_of(self, kind: ResourceKind, resource_id: str, name: str) -> Value | None:
        """Return a metadata as it is stored."""

    def attachment(self, kind: ResourceKind, resource_id: str, name: str) -> Attachment | None:
        """Describe an attachment."""

    def attachment_data(
        self, kind: ResourceKind, resource_id: str, name: str, *, bytes_max: int
    ) -> bytes:
        """Return the content of an attachment."""


class CarryTarget(CarrySource, Protocol):
    """What is needed of the target."""

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write a metadata."""

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        """Add a label."""

    def put_attachment(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write an attachment."""


@dataclass
class CarryCounts:
    """What became of some resources. ``failed``: resources that wait to be tried again."""

    resources: int = 0
    left: int = 0
    failed: int = 0


class CannotCarry(Exception):
    """One value cannot be brought. ``message``: without anything that a user has written."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Carrier:
    """Brings what lies beside the files of given resources. For one thread.

    ``bytes_max``: larger attachments stay.
    """

    def __init__(
        self,
        source: CarrySource,
        target: CarryTarget,
        names: CarriedNames,
        *,
        bytes_max: int,
        report: Callable[[Event], None] = lambda _: None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._target = target
        self._names = names
        self._bytes_max = bytes_max
        self._report = report
        self._now_s = now_s
        self._aliases: dict[str, tuple[str, ...]] | None = None
        self._without_labels: set[SideName] = set()
        self._failed_at = ("", 0)
        """The resource at which a server failed last, and how often in a row."""

    def carry_deliveries(self, ledger: Ledger, instances: Sequence[str]) -> CarryCounts:
        """Do it for instances, and for the series, studies and patients above them.

        Raises SideError, StateError: the next call does it again.
        """
        found: list[Resource] = []
        for kind in ResourceKind:
            found += self._source.resources(instances, of=kind)
        return self._carry(ledger, found)

    def carry(self, ledger: Ledger, resource_ids: Sequence[str]) -> CarryCounts:
        """Do it for resources of any kind; those that the source lacks are forgotten.

        Raises as ``carry_deliveries``.
        """
        found = self._source.resources(resource_ids)
        gone = set(resource_ids) - {resource.resource_id for resource in found}
        if gone:
            ledger.forget_carried(gone)
        return self._carry(ledger, found)

    def _carry(self, ledger: Ledger, found: Sequence[Resource]) -> CarryCounts:
        counts = CarryCounts(resources=len(found))
        if self._names.labels and found and found[0].labels is None:
            self._tell_no_labels(found[0], SideName.SOURCE)
        wanted = [one for one in found if self._has_any(one)]
        if not wanted:
            self._end_waiting(ledger, found)
            return counts
        held = {
            one.resource_id: one
            for one in self._target.resources([one.resource_id for one in wanted])
        }
        for here in found:
            waits = ledger.carry_waits(here.resource_id)
            if waits is not None and waits[1] > self._now_s():
                counts.failed += 1
                continue
            there = held.get(here.resource_id)
            failed = there is not None and not self._one(ledger, here, there, counts)
            if failed:
                tries = 0 if waits is None else waits[0]
                after_s = INTERVALS_S[min(tries, len(INTERVALS_S) - 1)]
                now = self._now_s()
                ledger.set_carry_waiting(here.resource_id, now=now, next_at=now + after_s)
                counts.failed += 1
            elif waits is not None:
                ledger.end_carry_waiting(here.resource_id)
        return counts

    def _end_waiting(self, ledger: Ledger, found: Sequence[Resource]) -> None:
        for resource in found:
            if ledger.carry_waits(resource.resource_id) is not None:
                ledger.end_carry_waiting(resource.resource_id)

    def _has_any(self, here: Resource) -> bool:
        """Tell whether there is something to bring, as far as that is known without asking."""
        labels = self._names.labels and bool(here.labels)
        metadata = any(self._listed(here, name) is not None for name in self._names.metadata)
        return labels or metadata or bool(self._names.attachments)

    def _one(self, ledger: Ledger, here: Resource, there: Resource, counts: CarryCounts) -> bool:
        """Bring what one resource has; False where something of it is to be tried again.

        Raises SideError for an outage.
        """
        written: Counter[str] = Counter()
        well = True
        for name, do in self._steps(ledger, here, there):
            try:
                kind, left = do()
            except CannotCarry as exc:
                message = exc.message
            except InstanceError as exc:
                message = exc.message
            except SideError as exc:
                if not self._about_this_one(exc, here):
                    raise
                message = f"The {exc.side} refused it ({exc.problem})."
            else:
                if left:
                    counts.left += 1
                    self._report(CarryLeft(here.resource_id, name, left))
                elif kind:
                    written[kind] += 1
                continue
            well = False
            self._report(CarryFailed(here.resource_id, name, message))
        if written:
            self._report(Carried(here.resource_id, dict(written)))
        if self._failed_at[0] == here.resource_id:
            self._failed_at = ("", 0)
        return well

    def _about_this_one(self, error: SideError, here: Resource) -> bool:
        """Tell whether an error is about a value: a right that is missing, a size, a conflict.

        What looks like an outage, and comes each time at the same resource, is about that one:
        both servers have described it a moment before.
        """
        if lacks_right(error, Need.WRITE) or error.problem is SideProblem.BODY_LIMIT:
            return True
        resource_id, times = self._failed_at
        times = times + 1 if resource_id == here.resource_id else 1
        self._failed_at = (here.resource_id, times)
        return times >= AT_ONE_MAX

    def _steps(
        self, ledger: Ledger, here: Resource, there: Resource
    ) -> Iterator[tuple[str, Callable[[], tuple[str, str]]]]:
        """Yield what may be to do for a resource, by name.

        Each returns what was written, of CARRIED_KINDS, and why something stays; "" for neither.
        """
        if self._names.labels and here.labels:
            yield LABELS, partial(self._labels, here, there)
        for name in self._names.metadata:
            if self._listed(here, name) is not None:
                yield name, partial(self._metadata, ledger, here, there, name)
        for name in self._names.attachments:
            yield name, partial(self._attachment, ledger, here, name)

    # Labels

    def _labels(self, here: Resource, there: Resource) -> tuple[str, str]:
        """Add the labels that the target lacks. It is a set: nothing is replaced."""
        if there.labels is None:
            self._tell_no_labels(here, SideName.TARGET)
            return "", ""
        lacking = [label for label in here.labels or () if label not in there.labels]
        for label in lacking:
            self._target.put_label(here.kind, here.resource_id, label)
        return (LABELS if lacking else ""), ""

    def _tell_no_labels(self, here: Resource, side: SideName) -> None:
        """Say once that a server is too old for labels: no instance is to blame."""
        if side not in self._without_labels:
            self._without_labels.add(side)
            self._report(CarryLeft(here.resource_id, LABELS, NO_LABELS))

    # Metadata

    def _listed(self, resource: Resource, name: str) -> str | None:
        """Return a metadata as a list of all has it: under its number, or under its name."""
        for told in (name, *self._names_of(name)):
            if told in resource.metadata:
                return resource.metadata[told]
        return None

    def _names_of(self, name: str) -> tuple[str, ...]:
        """Return by what other names the source tells a metadata."""
        if self._aliases is None:
            known = self._source.system().user_metadata
            self._aliases = {
                wanted: tuple(
                    told
                    for told, number in known.items()
                    if told != wanted and number == known.get(wanted, _number(wanted))
                )
                for wanted in self._names.metadata
            }
        return self._aliases[name]

    def _metadata(
        self, ledger: Ledger, here: Resource, there: Resource, name: str
    ) -> tuple[str, str]:
        told = self._listed(here, name)
        if told is None or MARK.fullmatch(told):
            return "", ""  # a mark of a bridge: it goes in a moment
        told_there = self._listed(there, name)
        if told == told_there and LOST not in told:
            self._note(ledger, here, f"metadata {name}", _digest(told.encode()))
            return "", ""
        kind, resource_id = here.kind, here.resource_id
        source = self._source.metadata_of(kind, resource_id, name)
        if source is None:
            return "", ""  # it went meanwhile
        target = self._target.metadata_of(kind, resource_id, name)
        if target is not None and MARK.fullmatch(target.data.decode("utf-8", "replace")):
            raise CannotCarry("A mark of a bridge is in its place at the target.")
        digest = _digest(source.data)
        key = f"metadata {name}"
        decided = carrying_of(
            digest,
            None if target is None else _digest(target.data),
            ledger.carried(resource_id, key),
        )
        match decided:
            case Carrying.LEAVE:
                return "", FOREIGN
            case Carrying.NOTHING:
                self._note(ledger, here, key, digest)
                return "", ""
        self._note(ledger, here, key, digest)
        etag = "" if target is None else target.etag
        self._target.put_metadata(kind, resource_id, name, source.data, etag=etag)
        return METADATA, ""

    # Attachments

    def _attachment(self, ledger: Ledger, here: Resource, name: str) -> tuple[str, str]:
        kind, resource_id = here.kind, here.resource_id
        source = self._source.attachment(kind, resource_id, name)
        if source is None:
            return "", ""
        if source.size_bytes > self._bytes_max:
            return "", TOO_LARGE
        data, md5 = None, source.md5
        if not md5:
            data = self._data(self._source, here, name)
            md5 = _md5(data)
        target = self._target.attachment(kind, resource_id, name)
        held = None
        if target is not None:
            if not target.md5 and target.size_bytes > self._bytes_max:
                return "", FOREIGN  # ours are smaller
            held = target.md5 or _md5(self._data(self._target, here, name))
        key = f"attachment {name}"
        digest = _digest(md5.encode())
        ours = ledger.carried(resource_id, key)
        decided = carrying_of(digest, None if held is None else _digest(held.encode()), ours)
        match decided:
            case Carrying.LEAVE:
                return "", FOREIGN
            case Carrying.NOTHING:
                self._note(ledger, here, key, digest)
                return "", ""
        data = self._data(self._source, here, name) if data is None else data
        if _md5(data) != md5:
            raise CannotCarry("It is not the file that the source has described.")
        self._note(ledger, here, key, digest)
        etag = "" if target is None else target.etag
        self._target.put_attachment(kind, resource_id, name, data, etag=etag)
        # 1.10 answers 200 for a study that is not there.
        stored = self._target.attachment(kind, resource_id, name)
        if stored is None or (stored.md5 or md5) != md5 or stored.size_bytes != len(data):
            raise CannotCarry("The target has taken it and does not hold it.")
        return ATTACHMENTS, ""

    def _data(self, server: CarrySource, here: Resource, name: str) -> bytes:
        return server.attachment_data(here.kind, here.resource_id, name, bytes_max=self._bytes_max)

    def _note(self, ledger: Ledger, here: Resource, key: str, digest: str) -> None:
        """Note a value that the target holds, or is about to be sent: it is ours to replace."""
        if ledger.carried(here.resource_id, key)[0] != digest:
            ledger.set_carried(here.resource_id, key, digest)


def _number(name: str) -> int | None:
    return int(name) if name.isdigit() else None


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _digest(data: bytes) -> str:
    """Return what a value is known again by. It is no secret: a short value can be guessed."""
    return hashlib.blake2b(data, digest_size=16, person=b"orthanc-bridge").hexdigest()

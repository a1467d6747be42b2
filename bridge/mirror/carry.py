"""Brings what lies beside the files to the target: labels, metadata, attachments of all levels.

It comes after a delivery was proved, by itself: it fails no delivery and delays none. What is to
be written is decided in carry_decision.py. Before a value is written the ledger notes its digest,
so that a bridge that is killed knows it for its own. The UIDs of an instance never change on the
way, so a resource has the same identifier on both servers; what the target does not hold (it is
parked, or left out by a rule) is left until it is delivered.

What cannot be written for a reason of its own waits, and is tried again at the intervals of what is
parked because a server refuses it. What else the resource has goes on meanwhile. A name that the
target does not know is told once, and nothing waits for it: it is an operator's to be configured.
An outage ends the attempt at everything, and nothing is lost: the place in the feed stays.

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
from bridge.mirror.beside_files import (
    CannotWrite,
    FailuresAtOne,
    ToldMetadata,
    attachment_key,
    digest_of,
    digest_of_attachment,
    metadata_key,
    retry_after_s,
    waits_still,
)
from bridge.mirror.carry_decision import Carrying, carrying_of
from bridge.mirror.sign_decision import SIGN
from bridge.model import (
    CarriedNames,
    DeliveredSign,
    ResourceKind,
    ServerInfo,
    SideName,
    SideProblem,
)
from bridge.orthanc.answers import Resource
from bridge.orthanc.carry_client import Attachment, Value

LOST = "\ufffd"
"""In a list of metadata: a byte that is no UTF-8. The value is read by itself then."""
TOO_LARGE, FOREIGN, NO_LABELS = "too_large", "foreign", "no_labels"
UNKNOWN_NAME = "unknown_name"
LEFT_REASONS = (TOO_LARGE, FOREIGN, NO_LABELS, UNKNOWN_NAME)
"""Why something stays as it is at the target. Part of the contract (metrics)."""
LABELS, METADATA, ATTACHMENTS = "labels", "metadata", "attachments"
CARRIED_KINDS = (LABELS, METADATA, ATTACHMENTS)
UNKNOWN_FOR_S = 3600.0
"""So long a name that the target does not know is not sent: it may be configured meanwhile."""
WAITING_MAX = 10_000
"""So many resources are known by what of them waits. Of further ones, all waits."""


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


class Carrier:
    """Brings what lies beside the files of given resources. For one thread.

    ``bytes_max``: larger attachments stay. ``sign``: what says delivered at the source stays there.
    """

    def __init__(
        self,
        source: CarrySource,
        target: CarryTarget,
        names: CarriedNames,
        *,
        bytes_max: int,
        sign: DeliveredSign | None = None,
        report: Callable[[Event], None] = lambda _: None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._target = target
        self._names = names
        self._bytes_max = bytes_max
        self._report = report
        self._now_s = now_s
        self._kept_label = "" if sign is None else sign.label
        self._told = ToldMetadata(source, names.metadata)
        self._without_labels: set[SideName] = set()
        self._unknown: dict[tuple[str, str], float] = {}
        """What the target does not know, by kind and name, and when it is tried again."""
        self._waiting: dict[str, frozenset[str]] = {}
        """What waits of a resource. It is learned again after a restart, by one more attempt."""
        self._failures = FailuresAtOne()

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
        return self._carry(ledger, self.forget_gone(ledger, resource_ids))

    def forget_gone(self, ledger: Ledger, resource_ids: Sequence[str]) -> list[Resource]:
        """Forget what was written for those that the source lacks; returns the others.

        Raises SideError, StateError.
        """
        found = self._source.resources(resource_ids)
        gone = set(resource_ids) - {resource.resource_id for resource in found}
        for resource_id in gone:
            self._waiting.pop(resource_id, None)
        if gone:
            ledger.forget_carried(gone)
        return found

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
            resource_id = here.resource_id
            waits = ledger.carry_waits(resource_id)
            waiting = frozenset[str]()
            if waits is not None and waits_still(*waits, now=self._now_s()):
                known = self._waiting.get(resource_id)
                if known is None and len(self._waiting) >= WAITING_MAX:
                    counts.failed += 1
                    continue
                waiting = known or waiting
            there = held.get(resource_id)
            failed = frozenset[str]()
            if there is not None:
                failed = self._one(ledger, here, there, counts, waiting)
            if failed:
                tries = 0 if waits is None else waits[0]
                now, after_s = self._now_s(), retry_after_s(tries)
                ledger.set_carry_waiting(resource_id, now=now, next_at=now + after_s)
            if failed or waiting:
                self._note_waiting(resource_id, failed | waiting)
                counts.failed += 1
            elif waits is not None:
                self._end_one(ledger, resource_id)
        return counts

    def _note_waiting(self, resource_id: str, names: frozenset[str]) -> None:
        if resource_id in self._waiting or len(self._waiting) < WAITING_MAX:
            self._waiting[resource_id] = names

    def _end_one(self, ledger: Ledger, resource_id: str) -> None:
        self._waiting.pop(resource_id, None)
        ledger.end_carry_waiting(resource_id)

    def _end_waiting(self, ledger: Ledger, found: Sequence[Resource]) -> None:
        for resource in found:
            if ledger.carry_waits(resource.resource_id) is not None:
                self._end_one(ledger, resource.resource_id)

    def _has_any(self, here: Resource) -> bool:
        """Tell whether there is something to bring, as far as that is known without asking."""
        labels = self._names.labels and bool(self._labels_of(here))
        metadata = any(self._told.get(here, name) is not None for name in self._names.metadata)
        return labels or metadata or bool(self._names.attachments)

    def _one(
        self,
        ledger: Ledger,
        here: Resource,
        there: Resource,
        counts: CarryCounts,
        waiting: frozenset[str],
    ) -> frozenset[str]:
        """Bring what one resource has, but for what waits; returns what is to be tried again.

        Raises SideError for an outage.
        """
        written: Counter[str] = Counter()
        failed = set[str]()
        for kind, name, do in self._steps(ledger, here, there):
            step = f"{kind} {name}"
            if step in waiting or self._is_unknown(kind, name):
                continue
            try:
                is_written, left = do()
            except CannotWrite as exc:
                message = exc.message
            except InstanceError as exc:
                message = exc.message
            except SideError as exc:
                if self._does_not_know(exc, here, kind, name):
                    counts.left += self._note_unknown(here, kind, name)
                    continue
                if not self._failures.about(exc, here.resource_id):
                    raise
                message = f"The {exc.side} refused the request ({exc.problem})."
            else:
                if left:
                    counts.left += 1
                    self._report(CarryLeft(here.resource_id, name, left))
                elif is_written:
                    written[kind] += 1
                    self._unknown.pop((kind, name), None)
                continue
            failed.add(step)
            self._report(CarryFailed(here.resource_id, name, message))
        if written:
            self._report(Carried(here.resource_id, dict(written)))
        self._failures.passed(here.resource_id)
        return frozenset(failed)

    # Names that the target does not know

    def _is_unknown(self, kind: str, name: str) -> bool:
        """Tell whether a name is not sent at present. A clock that was set back ends that."""
        again_at = self._unknown.get((kind, name), 0.0)
        return 0 < again_at - self._now_s() <= UNKNOWN_FOR_S

    def _does_not_know(self, error: SideError, here: Resource, kind: str, name: str) -> bool:
        """Tell whether the target has answered 404 to a name, and not to the resource.

        Raises SideError.
        """
        told = error.side is SideName.TARGET and error.problem is SideProblem.NOT_FOUND
        if not told or kind == LABELS or name.isdigit():
            return False
        return bool(self._target.resources([here.resource_id]))

    def _note_unknown(self, here: Resource, kind: str, name: str) -> bool:
        """Note it, and say so the first time."""
        is_new = (kind, name) not in self._unknown
        self._unknown[kind, name] = self._now_s() + UNKNOWN_FOR_S
        if is_new:
            self._report(CarryLeft(here.resource_id, name, UNKNOWN_NAME))
        return is_new

    def _steps(
        self, ledger: Ledger, here: Resource, there: Resource
    ) -> Iterator[tuple[str, str, Callable[[], tuple[bool, str]]]]:
        """Yield what may be to do for a resource, by kind and name.

        Each returns whether something was written, and why something stays, "" for no reason.
        """
        if self._names.labels and self._labels_of(here):
            yield LABELS, LABELS, partial(self._labels, here, there)
        for name in self._names.metadata:
            if self._told.get(here, name) is not None:
                yield METADATA, name, partial(self._metadata, ledger, here, there, name)
        for name in self._names.attachments:
            yield ATTACHMENTS, name, partial(self._attachment, ledger, here, name)

    # Labels

    def _labels(self, here: Resource, there: Resource) -> tuple[bool, str]:
        """Add the labels that the target lacks. It is a set: nothing is replaced."""
        if there.labels is None:
            self._tell_no_labels(here, SideName.TARGET)
            return False, ""
        lacking = [label for label in self._labels_of(here) if label not in there.labels]
        for label in lacking:
            self._target.put_label(here.kind, here.resource_id, label)
        return bool(lacking), ""

    def _labels_of(self, here: Resource) -> list[str]:
        """Return what is to be brought: all but the label that says delivered, at any level."""
        return [label for label in here.labels or () if label != self._kept_label]

    def _tell_no_labels(self, here: Resource, side: SideName) -> None:
        """Say once that a server is too old for labels: no instance is to blame."""
        if side not in self._without_labels:
            self._without_labels.add(side)
            self._report(CarryLeft(here.resource_id, LABELS, NO_LABELS))

    # Metadata

    def _metadata(
        self, ledger: Ledger, here: Resource, there: Resource, name: str
    ) -> tuple[bool, str]:
        told = self._told.get(here, name)
        if told is None or MARK.fullmatch(told) or SIGN.fullmatch(told):
            return False, ""  # a bridge has set it, about this server
        told_there = self._told.get(there, name)
        if told == told_there and LOST not in told:
            self._note(ledger, here, metadata_key(name), digest_of(told.encode()))
            return False, ""
        kind, resource_id = here.kind, here.resource_id
        source = self._source.metadata_of(kind, resource_id, name)
        if source is None:
            return False, ""  # it went meanwhile
        target = self._target.metadata_of(kind, resource_id, name)
        if target is not None and MARK.fullmatch(target.data.decode("utf-8", "replace")):
            raise CannotWrite(
                "A bridge has set a mark under the same name at the target for a moment."
            )
        digest = digest_of(source.data)
        key = metadata_key(name)
        held = None if target is None else digest_of(target.data)
        decided = carrying_of(digest, held, ledger.carried(resource_id, key))
        match decided:
            case Carrying.LEAVE:
                return False, FOREIGN
            case Carrying.NOTHING:
                self._note(ledger, here, key, digest)
                return False, ""
        self._note_writing(ledger, here, key, digest, held)
        etag = "" if target is None else target.etag
        self._target.put_metadata(kind, resource_id, name, source.data, etag=etag)
        return True, ""

    # Attachments

    def _attachment(self, ledger: Ledger, here: Resource, name: str) -> tuple[bool, str]:
        kind, resource_id = here.kind, here.resource_id
        source = self._source.attachment(kind, resource_id, name)
        if source is None:
            return False, ""
        if source.size_bytes > self._bytes_max:
            return False, TOO_LARGE
        data, md5 = None, source.md5
        if not md5:
            data = self._data(self._source, here, name)
            md5 = _md5(data)
        target = self._target.attachment(kind, resource_id, name)
        held = None
        if target is not None:
            if not target.md5 and target.size_bytes > self._bytes_max:
                return False, FOREIGN  # ours are smaller
            held = digest_of_attachment(target.md5 or _md5(self._data(self._target, here, name)))
        key = attachment_key(name)
        digest = digest_of_attachment(md5)
        decided = carrying_of(digest, held, ledger.carried(resource_id, key))
        match decided:
            case Carrying.LEAVE:
                return False, FOREIGN
            case Carrying.NOTHING:
                self._note(ledger, here, key, digest)
                return False, ""
        data = self._data(self._source, here, name) if data is None else data
        if _md5(data) != md5:
            raise CannotWrite("The source sent another file than it had described.")
        self._note_writing(ledger, here, key, digest, held)
        etag = "" if target is None else target.etag
        self._target.put_attachment(kind, resource_id, name, data, etag=etag)
        # 1.10 answers 200 for a study that is not there.
        stored = self._target.attachment(kind, resource_id, name)
        if stored is None or (stored.md5 or md5) != md5 or stored.size_bytes != len(data):
            raise CannotWrite("The target accepted it but does not hold it.")
        return True, ""

    def _data(self, server: CarrySource, here: Resource, name: str) -> bytes:
        return server.attachment_data(here.kind, here.resource_id, name, bytes_max=self._bytes_max)

    def _note(self, ledger: Ledger, here: Resource, key: str, digest: str) -> None:
        """Note a value that the target holds: it is ours to replace, and no other one is."""
        if ledger.carried(here.resource_id, key) != (digest, ""):
            ledger.set_carried(here.resource_id, key, digest)

    def _note_writing(
        self, ledger: Ledger, here: Resource, key: str, digest: str, held: str | None
    ) -> None:
        """Note a value that is about to be sent. ``held``: what it replaces, which is ours.

        That stays ours, however often the writing fails. Where there is nothing, what was about to
        be sent last may still come.
        """
        before = held or ledger.carried(here.resource_id, key)[0]
        ledger.set_carried(here.resource_id, key, digest, "" if before == digest else before)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()

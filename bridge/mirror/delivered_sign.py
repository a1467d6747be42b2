"""Signs at the source what was delivered: a label or a metadata (BRIDGE_DELIVERED_SIGN).

It comes after a delivery was proved and is on record, by itself: it fails no delivery and delays
none. The file at the source must have the MD5 of the one that was delivered. A newer version that
takes its place at this moment must not have the sign: the ledger notes which file is signed before
the sign is set, and the source is asked again after. What is signed by then and is another file has
its sign taken away, also by the next process after a kill.

Orthanc drops labels and metadata with the version that they belong to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import InstanceError, InstanceGone, SideError
from bridge.events import Event, Signed, SignFailed, SignLeft
from bridge.ledger.lock import explained
from bridge.ledger.records import SignDue
from bridge.ledger.store import SIGN_BEGUN_KEY, Ledger
from bridge.marks import MARK
from bridge.mirror.beside_files import CannotWrite, FailuresAtOne, ToldMetadata, retry_after_s
from bridge.mirror.sign_decision import SIGN, Signing, sign_value, signing_of
from bridge.model import DeliveredSign, ResourceKind, ServerInfo, SideName
from bridge.orthanc.answers import Resource

CHANGED, FOREIGN, NO_LABELS, NO_MD5 = "changed", "foreign", "no_labels", "no_md5"
SIGN_LEFT_REASONS = (CHANGED, FOREIGN, NO_LABELS, NO_MD5)
"""Why a delivered instance has no sign. Part of the contract (metrics)."""
STAYS = {Signing.NOTHING: "", Signing.NO_LABELS: NO_LABELS}
KIND = ResourceKind.INSTANCE


class SignedServer(Protocol):
    """What is needed of the source."""

    def system(self) -> ServerInfo:
        """Return the server's description."""

    def resources(
        self, resource_ids: Sequence[str], *, of: ResourceKind | None = None
    ) -> list[Resource]:
        """Tell labels, metadata and files of resources."""

    def stored_md5(self, instance_id: str) -> str:
        """Read the MD5 of the file as stored."""

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        """Return one metadata and its ETag, or None."""

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        """Write a metadata."""

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        """Delete a metadata."""

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        """Add a label."""

    def delete_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        """Take a label away."""


@dataclass(frozen=True, slots=True)
class _Writing:
    """A sign that is to be set. ``file``: the one at the source that was delivered."""

    due: SignDue
    how: Signing
    file: str
    md5: str


class Signer:
    """Signs given instances. For one thread."""

    def __init__(
        self,
        source: SignedServer,
        sign: DeliveredSign,
        *,
        look_at_feed: Callable[[Ledger], None],
        report: Callable[[Event], None] = lambda _: None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._sign = sign
        self._look_at_feed = look_at_feed
        self._report = report
        self._now_s = now_s
        self._told = ToldMetadata(source, [sign.metadata] if sign.metadata else [])
        self._failures = FailuresAtOne()
        self._without_labels = False
        """Whether it was said that the server is too old: no instance is to blame."""

    def sign(self, ledger: Ledger, batch: Sequence[SignDue]) -> None:
        """Sign instances; what cannot be done for a reason of its own waits.

        Raises SideError, StateError, FeedWentBackwards: the next call does it again.
        """
        self._look_again(ledger)
        found = {one.resource_id: one for one in self._source.resources(_ids(batch))}
        if any(due.instance_id not in found for due in batch):
            self._look_at_feed(ledger)  # another source lacks them for another reason
        writings = []
        for due in batch:
            here = found.get(due.instance_id)
            if here is None:
                ledger.end_sign(due)
            elif (writing := self._wanted(ledger, due, here)) is not None:
                writings.append(writing)
        if not writings:
            return
        noted = [[one.due.instance_id, one.file, one.md5] for one in writings]
        ledger.set_meta(SIGN_BEGUN_KEY, json.dumps(noted), durably=True)
        written = [one for one in writings if self._is_written(ledger, one)]
        shown = self._look_again(ledger)
        for one in written:
            if shown.get(one.due.instance_id) is False:
                self._postpone(ledger, one.due, "The source has taken it and does not show it.")
                continue
            ledger.end_sign(one.due)
            if one.due.instance_id in shown:
                kind = "label" if one.how is Signing.LABEL else "metadata"
                self._report(Signed(one.due.instance_id, kind))

    def _wanted(self, ledger: Ledger, due: SignDue, here: Resource) -> _Writing | None:
        """Decide about one instance; None where nothing is to be written."""
        record = ledger.delivery_of(due.instance_id)
        writing, left = None, ""
        # What is parked or outdated is noted again by its next delivery.
        if record and not record.outdated and not ledger.is_put_aside(due.instance_id):
            try:
                writing, left = self._judged(due, here, record.source_md5)
            except InstanceGone:
                pass
            except CannotWrite as exc:
                self._postpone(ledger, due, exc.message)
                return None
            except SideError as exc:
                self._failed(ledger, due, exc)
                return None
        if writing is None:
            ledger.end_sign(due)
        if left and not (left == NO_LABELS and self._without_labels):
            self._without_labels = self._without_labels or left == NO_LABELS
            self._report(SignLeft(due.instance_id, left))
        return writing

    def _judged(self, due: SignDue, here: Resource, md5: str) -> tuple[_Writing | None, str]:
        """Return what is to be written, or why nothing is. ``md5``: of what was delivered.

        Raises CannotWrite, InstanceGone, SideError.
        """
        told = self._told.get(here, self._sign.metadata) if self._sign.metadata else None
        how = signing_of(self._sign, here.labels, told, md5)
        if how in STAYS:
            return None, STAYS[how]
        if how is Signing.FOREIGN:
            if MARK.fullmatch(told or ""):
                raise CannotWrite("A bridge has set a mark under the same name for a moment.")
            return None, FOREIGN
        try:
            held = self._source.stored_md5(due.instance_id)
        except InstanceGone:
            raise
        except InstanceError:
            return None, NO_MD5
        return (None, CHANGED) if held != md5 else (_Writing(due, how, here.file, md5), "")

    def _is_written(self, ledger: Ledger, one: _Writing) -> bool:
        """Set a sign; False where that is to be tried again. Raises SideError for an outage."""
        instance_id = one.due.instance_id
        try:
            if one.how is Signing.LABEL:
                self._source.put_label(KIND, instance_id, self._sign.label)
            else:
                self._put_metadata(instance_id, one)
        except (CannotWrite, InstanceError) as exc:
            self._postpone(ledger, one.due, exc.message)
            return False
        except SideError as exc:
            self._failed(ledger, one.due, exc)
            return False
        self._failures.passed(instance_id)
        return True

    def _put_metadata(self, instance_id: str, one: _Writing) -> None:
        etag = ""
        if one.how is Signing.RENEW:
            now = self._source.metadata_value(instance_id, self._sign.metadata)
            if now is None or not SIGN.fullmatch(now[0]):
                raise CannotWrite("Somebody has changed it at this moment.")
            etag = now[1]
        data = sign_value(one.md5).encode("ascii")
        self._source.put_metadata(KIND, instance_id, self._sign.metadata, data, etag=etag)

    def _look_again(self, ledger: Ledger) -> Mapping[str, bool]:
        """End what was begun: take signs away that are at another file than was delivered.

        Returns the instances that still have their file, and whether they show the sign.
        """
        text = ledger.meta(SIGN_BEGUN_KEY)
        if text is None:
            return {}
        with explained(ledger.path):
            noted = {str(one): (str(file), str(md5)) for one, file, md5 in json.loads(text)}
        shown: dict[str, bool] = {}
        for here in self._source.resources(list(noted)):
            file, md5 = noted.get(here.resource_id, ("", ""))
            if here.file == file:
                shown[here.resource_id] = self._shows(here, md5)
            else:
                self._take_away(here, md5)
        ledger.set_meta(SIGN_BEGUN_KEY, None)
        return shown

    def _shows(self, here: Resource, md5: str) -> bool:
        if self._sign.label and here.labels is not None:
            return self._sign.label in here.labels
        return bool(self._sign.metadata) and self._told.get(
            here, self._sign.metadata
        ) == sign_value(md5)

    def _take_away(self, here: Resource, md5: str) -> None:
        if not self._shows(here, md5):
            return
        instance_id = here.resource_id
        try:
            if self._sign.label and here.labels is not None:
                self._source.delete_label(KIND, instance_id, self._sign.label)
                return
            now = self._source.metadata_value(instance_id, self._sign.metadata)
            if now is not None and now[0] == sign_value(md5):
                self._source.delete_metadata(instance_id, self._sign.metadata, etag=now[1])
        except InstanceError as exc:
            self._report(SignFailed(instance_id, exc.message))

    # What waits

    def _failed(self, ledger: Ledger, due: SignDue, error: SideError) -> None:
        """Let one wait that a server fails at. Raises the error for an outage."""
        if not self._failures.about(error, due.instance_id):
            raise error
        self._failures.passed(due.instance_id)
        self._postpone(ledger, due, f"The {SideName.SOURCE} refused it ({error.problem}).")

    def _postpone(self, ledger: Ledger, due: SignDue, message: str) -> None:
        ledger.postpone_sign(due, next_at=self._now_s() + retry_after_s(due.tries))
        self._report(SignFailed(due.instance_id, message))


def _ids(batch: Sequence[SignDue]) -> list[str]:
    return [due.instance_id for due in batch]

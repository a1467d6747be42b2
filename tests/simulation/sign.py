"""What says delivered at the source, between two servers that drift apart, and kills at any point.

    python -m tests.simulation.sign --seeds 100000 --first 0

The world of mirror.py, with a bridge that also signs at the source what it has delivered
(BRIDGE_DELIVERED_SIGN): by a label, by a metadata, or by either. Between any two requests newer
versions arrive, users write under the name of the sign, and the process is killed. What must hold
when nothing happens any more:

- no version has a sign that was not delivered;
- what was delivered, and is on record as it is at the source, has its sign, unless the source had
  another file when it was looked at, has written it anew since (no row of the feed and no delivery
  tells of that), or somebody else's text is under the name;
- what somebody else has written there stays;
- nothing of it is at the target, and nothing is left to do.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from bridge.errors import InstanceGone, side_error
from bridge.events import CopyRepaired, Event, SignLeft
from bridge.ledger.store import SIGN_BEGUN_KEY
from bridge.mirror.beside_copy import What
from bridge.mirror.beside_files import LONGEST_S
from bridge.mirror.delivered_sign import Signer
from bridge.mirror.sign_decision import SIGN, sign_value
from bridge.mirror.sign_thread import BATCH
from bridge.model import DeliveredSign, ResourceKind, SideName, SideProblem
from bridge.orthanc.answers import Resource
from tests.simulation.campaign import run_campaign
from tests.simulation.mirror import MirrorAddress, MirrorWorld, content_of, look
from tests.simulation.retention import md5
from tests.simulation.world import Violation

SIGNS = (
    DeliveredSign(label="delivered"),
    DeliveredSign(metadata="1027"),
    DeliveredSign(label="delivered", metadata="1027"),
)
LABEL, METADATA = (What.LABEL, "delivered"), (What.METADATA, "1027")
TURNS_MAX = 50
HAPPENS = 0.08
THEIRS = b"of a user"


class SignAddress(MirrorAddress):
    """A client of the source that signs."""

    world: SignedWorld

    def resources(self, resource_ids: Any, *, of: ResourceKind | None = None) -> list[Resource]:
        found = super().resources(resource_ids, of=of)
        if self.world.has_labels:
            return found
        return [Resource(one.kind, one.resource_id, None, one.metadata, one.file) for one in found]

    def _signed(self, request: str, instance_id: str) -> dict[Any, bytes]:
        return self._annotated(request, ResourceKind.INSTANCE, instance_id)

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        assert self.world.has_labels
        super().put_label(kind, resource_id, label)
        self.world.point()

    def delete_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        self._annotated("delete_label", kind, resource_id).pop((What.LABEL, label), None)
        self.world.point()

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        if name != METADATA[1]:
            return super().metadata_value(instance_id, name)
        there = self._signed("get", instance_id)
        if instance_id not in self.world.source.files:
            raise InstanceGone("gone")
        data = there.get(METADATA)
        return None if data is None else (data.decode(), f'"{md5(data)}"')

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        self._changes(self._annotated("put", kind, resource_id), etag)[What.METADATA, name] = data
        self.world.point()

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        if name != METADATA[1]:
            super().delete_metadata(instance_id, name, etag=etag)
            return
        self._changes(self._signed("delete", instance_id), etag).pop(METADATA, None)
        self.world.point()

    def _changes(self, there: dict[Any, bytes], etag: str) -> dict[Any, bytes]:
        now = there.get(METADATA)
        if etag != ("" if now is None else f'"{md5(now)}"'):
            raise side_error(self.side, SideProblem.SERVER_ERROR, "409", specific=True)
        return there


class SignedWorld(MirrorWorld):
    """Two servers, and one bridge that verifies, repairs and signs."""

    signs = True

    def __init__(self, seed: int, home: Path, *, deletions: bool = False) -> None:
        draw = random.Random(f"sign {seed}")
        self.sign_rng = draw
        self.wanted = draw.choice(SIGNS)
        self.has_labels = draw.random() < 0.7 or not self.wanted.metadata
        self.delivered: set[tuple[str, bytes]] = set()
        """Which contents of which instances were delivered and proved."""
        self.excused: set[str] = set()
        """What was another file than was delivered, when it was looked at."""
        super().__init__(seed, home, deletions=deletions)

    @property
    def by_label(self) -> bool:
        return self.has_labels and bool(self.wanted.label)

    def happen(self, request: str, side: SideName) -> None:
        super().happen(request, side)
        if self.calm or self.sign_rng.random() >= HAPPENS:
            return
        self.sign_rng.choice((self.write_theirs, self.overwrite, self.come, self.deliver))()

    def come(self) -> None:
        self.arrive()
        self.deliver()

    def write_theirs(self) -> None:
        """A user writes under the name of the metadata, whatever is there."""
        instance = self.one_of(self.source)
        if instance is not None:
            self.source.beside.setdefault((ResourceKind.INSTANCE, instance), {})[METADATA] = THEIRS

    def rewrite_source(self) -> None:
        before = dict(self.source.files)
        super().rewrite_source()
        self.excused |= {one for one, file in self.source.files.items() if before[one] != file}

    def deliver(self) -> None:
        self.now += 0.001  # by its time a delivery is known from the one before
        super().deliver()
        for instance, (_, noted) in self.source.files.items():
            record = self.ledger.delivery_of(instance)
            if record is not None and record.source_md5 == noted and not record.outdated:
                self.delivered.add((instance, content_of(self.noted[noted])))

    def report(self, event: Event) -> None:
        super().report(event)
        if isinstance(event, SignLeft):
            self.excused.add(event.instance_id)
        if isinstance(event, CopyRepaired):
            record = self.ledger.delivery_of(event.instance_id)
            if record is not None and record.source_md5:
                self.delivered.add((event.instance_id, content_of(self.noted[record.source_md5])))

    def sign_all(self) -> bool:
        """Sign what is due; True where nothing is left."""
        source = SignAddress(SideName.SOURCE, self)
        signer = Signer(
            source,
            self.wanted,
            look_at_feed=lambda ledger: look(ledger, source),
            report=self.report,
            now_s=lambda: self.now,
        )
        for _ in range(TURNS_MAX):
            due = self.ledger.signs_due(self.now, BATCH, longest_s=LONGEST_S)
            if not due:
                return True
            signer.sign(self.ledger, due)
        raise Violation("there is no end of signing")

    def theirs(self) -> set[tuple[str, str]]:
        """Return the instances that have a user's text, and their files."""
        return {
            (instance, file)
            for instance, (file, _) in self.source.files.items()
            if self.source.beside.get((ResourceKind.INSTANCE, instance), {}).get(METADATA) == THEIRS
        }

    # What must hold

    def check_signs(self) -> None:
        for _ in range(4):
            if not self.process(self.sign_all):
                raise Violation("signing does not come to its end")
            self.now += LONGEST_S
        if self.ledger.signs_waiting()[0] or self.ledger.meta(SIGN_BEGUN_KEY) is not None:
            raise Violation("something is left to be signed")
        for instance, (_, noted) in self.source.files.items():
            self._check(instance, noted)
        for there in self.target.beside.values():
            if LABEL in there or SIGN.fullmatch(there.get(METADATA, b"").decode()):
                raise Violation("a sign is at the target")

    def _check(self, instance: str, noted: str) -> None:
        there = self.source.beside.get((ResourceKind.INSTANCE, instance), {})
        told = there.get(METADATA, b"").decode()
        is_metadata = SIGN.fullmatch(told) is not None
        is_delivered = (instance, content_of(self.noted[noted])) in self.delivered
        if (LABEL in there or is_metadata) and not is_delivered:
            raise Violation(f"{instance} has a sign, and was not delivered so")
        if is_metadata:
            (signed,) = SIGN.fullmatch(told).groups()  # type: ignore[union-attr]
            if content_of(self.noted[signed]) != content_of(self.noted[noted]):
                raise Violation(f"{instance} has the sign of another version")
        record = self.ledger.delivery_of(instance)
        if record is None or record.outdated or record.source_md5 != noted:
            return
        if self.ledger.is_put_aside(instance) or instance in self.excused:
            return
        has_it = LABEL in there if self.by_label else told == sign_value(noted)
        if not has_it and (self.by_label or told != THEIRS.decode()):
            raise Violation(f"{instance} was delivered, and has no sign")


def simulate(seed: int, home: Path, *, killed_at: int | None = None) -> SignedWorld:
    """Run one schedule. Raises Violation."""
    (home / "bridge.sqlite3").touch()
    world = SignedWorld(seed, home)
    if killed_at is not None:
        world.killed_at = killed_at
    try:
        for _ in range(world.rng.randint(1, 4)):
            world.calm = False
            world.process(world.sign_all)
            world.verify()
            world.process(world.sign_all)
            world.calm = True
            world.age += 600.0
            world.now += 600.0
        theirs = world.theirs()
        world.settle()
        world.check_signs()
        if not theirs <= world.theirs():
            raise Violation("what a user has written was written over")
    finally:
        world.close()
    return world


def _kills(seed: int, home: Path) -> int:
    return simulate(seed, home).kills


def main() -> int:
    return run_campaign("tests.simulation.sign", "kills", _kills)


if __name__ == "__main__":
    sys.exit(main())

"""The sign at the source that says delivered: never for another file, never over what is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bridge.errors import FeedWentBackwards, InstanceError, InstanceGone, SideError
from bridge.events import Event, Progress, Signed, SignFailed, SignLeft, SignStopped, SignWorks
from bridge.ledger.records import DeliveryRecord, Entry, Parked, SignDue
from bridge.ledger.store import SIGN_BEGUN_KEY, Ledger
from bridge.marks import MARK, PROBE_VALUE
from bridge.mirror.beside_files import AT_ONE_MAX, INTERVALS_S, LONGEST_S
from bridge.mirror.carry import Carrier
from bridge.mirror.delivered_sign import SIGN_LEFT_REASONS, Signer
from bridge.mirror.sign_decision import SIGN, Signing, sign_value, signing_of
from bridge.mirror.sign_thread import BATCH, SignThread
from bridge.model import (
    CarriedNames,
    DeliveredSign,
    Move,
    Reason,
    ResourceKind,
    SideName,
    SideProblem,
)
from bridge.orthanc.answers import Resource
from tests.simulation.retention import md5
from tests.unit.mirror.test_carry import Side, named, outage, refused

LABEL = DeliveredSign(label="delivered")
METADATA = DeliveredSign(metadata="1027")
BOTH = DeliveredSign("delivered", "1027")
SUM = md5(b"a file")


@dataclass
class Source(Side):
    """The source: it holds files, and puts another one in the place of one when it is told to."""

    files: dict[str, bytes] = field(default_factory=dict)
    before_put: Callable[[str], None] = lambda _: None
    after_put: Callable[[str], None] = lambda _: None
    tells_sums: bool = True

    def _resource(self, resource_id: str) -> Resource:
        file = f"file of {md5(self.files[resource_id])}"
        return replace(super()._resource(resource_id), file=file)

    def stored_md5(self, instance_id: str) -> str:
        self._request("md5", instance_id)
        if instance_id not in self.files:
            raise InstanceGone("gone")
        if not self.tells_sums:
            raise InstanceError(Reason.SERVER_REFUSES_INSTANCE, "no MD5", final=False)
        return md5(self.files[instance_id])

    def metadata_value(self, instance_id: str, name: str) -> tuple[str, str] | None:
        found = self.metadata_of(ResourceKind.INSTANCE, instance_id, name)
        return None if found is None else (found.data.decode(), found.etag)

    def delete_metadata(self, instance_id: str, name: str, *, etag: str = "") -> None:
        now = self.metadata_value(instance_id, name)
        self._request("delete", instance_id, name)
        assert now is not None
        assert now[1] == etag
        del self.metadata[instance_id, name]

    def delete_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        assert kind is ResourceKind.INSTANCE
        self._request("unlabel", resource_id, label)
        self.labels[resource_id].discard(label)

    def put_metadata(
        self, kind: ResourceKind, resource_id: str, name: str, data: bytes, *, etag: str = ""
    ) -> None:
        self.before_put(resource_id)
        super().put_metadata(kind, resource_id, name, data, etag=etag)
        self.after_put(resource_id)

    def put_label(self, kind: ResourceKind, resource_id: str, label: str) -> None:
        self.before_put(resource_id)
        super().put_label(kind, resource_id, label)
        self.after_put(resource_id)

    def overwrite(self, instance_id: str, data: bytes) -> None:
        """Orthanc drops what lay beside the version before."""
        self.files[instance_id] = data
        self.labels.pop(instance_id, None)
        for key in [key for key in self.metadata if key[0] == instance_id]:
            del self.metadata[key]


class Scene:
    def __init__(self, home: Path) -> None:
        self.ids = [named(number) for number in range(3)]
        self.source = Source(SideName.SOURCE, list(self.ids))
        self.source.files = {one: f"file {one}".encode() for one in self.ids}
        self.path = home / "bridge.sqlite3"
        self.ledger = Ledger(self.path)
        self.events: list[Event] = []
        self.now = 1_000_000.0
        self.paces = True
        self.look: Callable[[Ledger], None] = lambda _: None

    def deliver(self, *ids: str, outdated: bool = False) -> None:
        """Note deliveries of what the source holds now."""
        self.now += 1.0
        self.ledger.commit(
            Entry(
                delivered=tuple(
                    DeliveryRecord(
                        one,
                        md5(self.source.files[one]),
                        "t",
                        self.now,
                        outdated=outdated,
                        to_sign=True,
                    )
                    for one in ids or self.ids
                )
            )
        )

    def signer(self, sign: DeliveredSign = BOTH) -> Signer:
        return Signer(
            self.source,
            sign,
            look_at_feed=self.look,
            report=self.events.append,
            now_s=lambda: self.now,
        )

    def thread(self, sign: DeliveredSign = BOTH) -> SignThread:
        return SignThread(
            self.signer(sign),
            state_path=self.path,
            pace=self,
            observer=self,
            stop=threading.Event(),
            now_s=lambda: self.now,
        )

    def sign(self, sign: DeliveredSign = BOTH) -> None:
        due = self.ledger.signs_due(self.now, BATCH, longest_s=LONGEST_S)
        self.signer(sign).sign(self.ledger, due)

    def due(self) -> list[str]:
        return [one.instance_id for one in self.ledger.signs_due(1e12, BATCH, longest_s=LONGEST_S)]

    def signed(self) -> set[str]:
        """Which instances say that the file that they have was delivered."""
        labelled = {one for one, labels in self.source.labels.items() if "delivered" in labels}
        told = {
            one
            for (one, name), data in self.source.metadata.items()
            if name == "1027" and data.decode() == sign_value(md5(self.source.files[one]))
        }
        return labelled | told

    def take(self, ledger: Ledger, instances: int) -> bool:
        assert ledger.path == self.path
        assert instances
        return self.paces

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def on_progress(self, progress: Progress) -> None:
        raise AssertionError(progress)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    ("sign", "labels", "told", "wanted"),
    [
        (BOTH, (), None, Signing.LABEL),
        (BOTH, ("other",), "theirs", Signing.LABEL),
        (BOTH, ("delivered", "x"), None, Signing.NOTHING),
        (BOTH, None, None, Signing.METADATA),
        (METADATA, (), None, Signing.METADATA),
        (METADATA, ("delivered",), "theirs", Signing.FOREIGN),
        (METADATA, None, sign_value(SUM), Signing.NOTHING),
        (METADATA, None, sign_value(md5(b"older")), Signing.RENEW),
        (METADATA, None, sign_value(SUM) + " ", Signing.FOREIGN),
        (METADATA, None, "", Signing.FOREIGN),
        (LABEL, None, None, Signing.NO_LABELS),
        (LABEL, (), None, Signing.LABEL),
    ],
)
def test_what_becomes_of_it(
    sign: DeliveredSign, labels: Sequence[str] | None, told: str | None, wanted: Signing
) -> None:
    assert signing_of(sign, labels, told, SUM) is wanted


def test_it_is_no_mark_and_is_known_for_a_sign() -> None:
    assert not MARK.fullmatch(sign_value(SUM))
    assert SIGN.fullmatch(sign_value(SUM))
    assert not DeliveredSign()


@pytest.mark.parametrize("sign", [LABEL, METADATA, BOTH])
@pytest.mark.parametrize("labels", [True, False])
def test_what_was_delivered_is_signed_once(scene: Scene, sign: DeliveredSign, labels: bool) -> None:
    scene.source.has_labels = labels
    scene.deliver(scene.ids[0], scene.ids[2])
    for _ in range(3):
        scene.sign(sign)
    if sign == LABEL and not labels:
        assert not scene.signed()
        assert scene.events == [SignLeft(scene.ids[0], "no_labels")], "it is said once"
        return
    assert scene.signed() == {scene.ids[0], scene.ids[2]}
    kind = "label" if labels and sign.label else "metadata"
    assert scene.events == [Signed(one, kind) for one in (scene.ids[0], scene.ids[2])]
    assert not scene.due()
    writes = [one for one in scene.source.asked if one.startswith(("put", "label"))]
    assert len(writes) == 2, "it is there the second time"
    scene.deliver()
    scene.sign(sign)
    assert scene.signed() == set(scene.ids)
    writes = [one for one in scene.source.asked if one.startswith(("put", "label"))]
    assert len(writes) == 3, "a delivery of the same file changes nothing"


@pytest.mark.parametrize("sign", [LABEL, METADATA])
def test_another_file_than_was_delivered_is_not_signed(scene: Scene, sign: DeliveredSign) -> None:
    scene.deliver()
    scene.source.overwrite(scene.ids[1], b"newer")
    scene.sign(sign)
    assert scene.signed() == {scene.ids[0], scene.ids[2]}
    assert SignLeft(scene.ids[1], "changed") in scene.events
    assert not scene.due(), "the delivery of the newer one notes it again"
    scene.deliver(scene.ids[1])
    scene.sign(sign)
    assert scene.signed() == set(scene.ids)


@pytest.mark.parametrize("sign", [LABEL, METADATA])
@pytest.mark.parametrize("moment", ["before_put", "after_put"])
def test_a_version_that_comes_at_this_moment_loses_the_sign(
    scene: Scene, sign: DeliveredSign, moment: str
) -> None:
    """The sign is set, and is at the newer version, or went with the older one."""
    scene.deliver()
    newer = scene.ids[1]

    def overwrite(resource_id: str) -> None:
        if resource_id == newer:
            scene.source.overwrite(newer, b"newer")

    setattr(scene.source, moment, overwrite)
    scene.sign(sign)
    assert "delivered" not in scene.source.labels.get(newer, ())
    assert (newer, "1027") not in scene.source.metadata
    assert scene.signed() == {scene.ids[0], scene.ids[2]}
    assert not scene.due()


@pytest.mark.parametrize("sign", [LABEL, METADATA])
def test_a_process_that_is_killed_leaves_no_wrong_sign(scene: Scene, sign: DeliveredSign) -> None:
    class Killed(Exception):
        pass

    def kill(_: str) -> None:
        raise Killed

    scene.deliver()
    scene.source.after_put = kill
    with pytest.raises(Killed):
        scene.sign(sign)
    assert scene.ledger.meta(SIGN_BEGUN_KEY)
    first = scene.ids[0]
    assert scene.signed() == {first}
    # The newer version has what lay beside the older one: it was overwritten before the sign came.
    scene.source.files[first] = b"newer"
    scene.source.after_put = lambda _: None
    scene.sign(sign)
    assert scene.signed() == set(scene.ids[1:])
    assert "delivered" not in scene.source.labels.get(first, ())
    assert (first, "1027") not in scene.source.metadata
    assert scene.ledger.meta(SIGN_BEGUN_KEY) is None


def test_a_sign_of_an_older_file_is_renewed(scene: Scene) -> None:
    scene.source.metadata[scene.ids[0], "1027"] = sign_value(md5(b"older")).encode()
    scene.deliver()
    scene.sign(METADATA)
    assert scene.signed() == set(scene.ids)


def test_what_somebody_else_has_written_stays(scene: Scene) -> None:
    scene.source.metadata[scene.ids[0], "1027"] = b"theirs"
    scene.source.user_metadata = {"Sent": 1027}
    scene.source.labels[scene.ids[1]] = {"theirs"}
    scene.deliver()
    scene.sign(METADATA)
    assert scene.source.metadata[scene.ids[0], "1027"] == b"theirs"
    assert SignLeft(scene.ids[0], "foreign") in scene.events
    scene.deliver()
    scene.sign(LABEL)
    assert scene.source.labels[scene.ids[1]] == {"theirs", "delivered"}


def test_a_mark_of_a_bridge_is_waited_for(scene: Scene) -> None:
    mark = f"{PROBE_VALUE}0000000001-{'0' * 16}".encode()
    scene.source.metadata[scene.ids[0], "1027"] = mark
    scene.deliver()
    scene.sign(METADATA)
    assert scene.source.metadata[scene.ids[0], "1027"] == mark
    assert scene.due() == [scene.ids[0]]
    del scene.source.metadata[scene.ids[0], "1027"]
    scene.sign(METADATA)
    assert scene.due() == [scene.ids[0]], "not before its time"
    scene.now += INTERVALS_S[0]
    scene.sign(METADATA)
    assert scene.signed() == set(scene.ids)


@pytest.mark.parametrize("how", ["parked", "outdated", "forgotten"])
def test_what_is_no_delivery_any_more_is_not_signed(scene: Scene, how: str) -> None:
    one = scene.ids[1]
    scene.deliver()
    if how == "parked":
        parked = Parked(Move(one), Reason.UNDECODABLE, "no", 1, 5.0, 5.0)
        scene.ledger.commit(Entry(parked=(parked,)))
    elif how == "outdated":
        scene.ledger.commit(Entry(outdated=(one,)))
    else:
        scene.ledger.forget_delivery(one)
    scene.sign()
    assert scene.signed() == {scene.ids[0], scene.ids[2]}
    assert not scene.due()


def test_a_delivery_that_comes_meanwhile_stays_noted(scene: Scene) -> None:
    scene.deliver()
    first = scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S)[0]
    scene.deliver()
    scene.ledger.end_sign(first)
    scene.ledger.postpone_sign(first, next_at=1e11)
    assert len(scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S)) == 3


def test_a_source_that_lacks_it_is_asked_whether_it_is_the_same(scene: Scene) -> None:
    scene.deliver()
    scene.source.ids.remove(scene.ids[1])

    def other(_: Ledger) -> None:
        raise FeedWentBackwards("another")

    scene.look = other
    with pytest.raises(FeedWentBackwards):
        scene.sign()
    assert len(scene.due()) == 3
    scene.look = lambda _: None
    scene.sign()
    assert not scene.due()
    assert scene.signed() == {scene.ids[0], scene.ids[2]}


def test_a_source_without_sums_gets_no_sign(scene: Scene) -> None:
    scene.source.tells_sums = False
    scene.deliver()
    scene.sign()
    assert scene.events == [SignLeft(one, "no_md5") for one in scene.ids]
    assert not scene.signed()


@pytest.mark.parametrize("verb", ["put", "md5"])
def test_what_is_refused_waits_and_the_others_are_signed(scene: Scene, verb: str) -> None:
    bad = scene.ids[1]
    scene.source.fails = lambda one, what: (
        refused(SideName.SOURCE) if one == bad and what.startswith(verb) else None
    )
    scene.deliver()
    scene.sign(METADATA)
    assert scene.signed() == {scene.ids[0], scene.ids[2]}
    failed = [event for event in scene.events if isinstance(event, SignFailed)]
    assert [event.instance_id for event in failed] == [bad]
    assert scene.ledger.signs_waiting() == (1, scene.now, scene.now)
    assert scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S) == []
    (due,) = scene.ledger.signs_due(scene.now + INTERVALS_S[0], BATCH, longest_s=LONGEST_S)
    assert due.tries == 1


def test_what_is_taken_and_not_shown_waits(scene: Scene) -> None:
    scene.source.after_put = lambda one: scene.source.labels[one].clear()
    scene.deliver()
    scene.sign(LABEL)
    assert len(scene.due()) == 3
    assert scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S) == []


def test_an_outage_loses_nothing_and_what_fails_each_time_waits(scene: Scene) -> None:
    bad = scene.ids[0]
    scene.source.fails = lambda one, what: (
        outage(SideName.SOURCE) if one == bad and what.startswith("put") else None
    )
    scene.deliver()
    signer = scene.signer(METADATA)
    for _ in range(AT_ONE_MAX - 1):
        with pytest.raises(SideError) as caught:
            signer.sign(scene.ledger, scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S))
        assert caught.value.problem is SideProblem.UNREACHABLE
    signer.sign(scene.ledger, scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S))
    assert scene.signed() == set(scene.ids[1:])
    assert scene.due() == [bad]


def test_the_thread_signs_what_is_due(scene: Scene) -> None:
    thread = scene.thread()
    assert not thread.sign_some(scene.ledger)
    scene.deliver()
    scene.paces = False
    thread.turn()
    assert not scene.signed()
    scene.paces = True
    assert thread.turn() == 0.0
    assert thread.turn() > 0.0
    assert scene.signed() == set(scene.ids)
    assert SignWorks() in scene.events
    scene.source.fails = lambda _one, _what: outage(SideName.SOURCE)
    scene.deliver()
    assert thread.turn() > 0.0
    assert any(isinstance(event, SignStopped) for event in scene.events)


def test_another_target_has_no_deliveries_to_be_signed(scene: Scene) -> None:
    scene.ledger.bind_deliveries("http://one")
    scene.deliver()
    scene.ledger.bind_deliveries("http://other")
    assert not scene.due()


def test_a_record_that_is_read_is_not_noted_again(scene: Scene) -> None:
    """A verification writes records that it has read."""
    scene.deliver()
    scene.sign()
    record = scene.ledger.delivery_of(scene.ids[0])
    assert record is not None
    scene.ledger.commit(Entry(delivered=(record,)))
    assert not scene.due()
    assert SignDue(scene.ids[0], 1.0) not in scene.ledger.signs_due(
        scene.now, BATCH, longest_s=LONGEST_S
    )


def test_no_sign_is_carried_to_the_target(scene: Scene) -> None:
    target = Side(SideName.TARGET, list(scene.ids))
    scene.deliver()
    scene.sign(LABEL)
    scene.deliver()
    scene.sign(METADATA)
    scene.source.labels[scene.ids[0]].add("urgent")
    names = CarriedNames(labels=True, metadata=("1027", "Sent"))
    scene.source.user_metadata = {"Sent": 1027}
    carrier = Carrier(scene.source, target, names, bytes_max=10, sign=BOTH)
    scene.ledger.restart_at(0)
    carrier.carry(scene.ledger, scene.ids)
    assert target.labels == {scene.ids[0]: {"urgent"}}
    assert not target.metadata


def test_what_waits_for_its_turn_is_told_apart_from_what_was_tried_in_vain(scene: Scene) -> None:
    scene.deliver()
    assert scene.ledger.signs_waiting() == (3, scene.now, None)
    bad = scene.ledger.signs_due(scene.now, BATCH, longest_s=LONGEST_S)[1]
    scene.ledger.postpone_sign(bad, next_at=1e11)
    scene.deliver(scene.ids[0])
    assert scene.ledger.signs_waiting() == (3, bad.noted_at, bad.noted_at)
    scene.deliver(bad.instance_id)
    assert scene.ledger.signs_waiting()[2] is None, "it was delivered anew"


def test_the_metrics_know_every_reason() -> None:
    from bridge.monitoring import metrics

    assert metrics.SIGN_LEFT_REASONS == SIGN_LEFT_REASONS

"""What the bridge knows of what it wrote: for as long as it may have to be replaced."""

from __future__ import annotations

from bridge.events import CarryLeft
from bridge.model import ResourceKind
from tests.unit.mirror.test_carry import Scene, named, refused, scene

__all__ = ["scene"]

KEY = "1024"


def test_what_came_during_a_round_is_not_forgotten_at_its_end(scene: Scene) -> None:
    """It is not in the list that the round has read."""
    scene.ledger.restart_at(1)
    new = named(9)
    thread = scene.thread()
    assert thread.carry_some(scene.ledger), "the list is read"

    def listed(kind: ResourceKind, since: int, limit: int) -> list[str]:
        return sorted(scene.ids)[since : since + limit] if kind is ResourceKind.INSTANCE else []

    scene.source.list_resources = listed  # type: ignore[method-assign]
    for side in (scene.source, scene.target):
        side.ids.append(new)
    scene.source.metadata[new, KEY] = b"first"
    scene.carrier().carry(scene.ledger, [new])
    assert scene.ledger.carried(new, f"metadata {KEY}")[0]
    while thread.carry_some(scene.ledger):
        pass
    assert scene.ledger.carried(new, f"metadata {KEY}")[0], "the source holds it"
    scene.source.metadata[new, KEY] = b"second"
    scene.carrier().carry(scene.ledger, [new])
    assert scene.target.metadata[new, KEY] == b"second"


def test_what_could_not_be_written_twice_is_still_ours_to_replace(scene: Scene) -> None:
    """The target holds what was written before both of them."""
    one = scene.ids[0]
    carrier = scene.carrier()
    scene.source.metadata[one, KEY] = b"first"
    carrier.carry(scene.ledger, [one])
    scene.target.fails = lambda _, what: (
        refused(scene.target.name) if what.startswith("put") else None
    )
    for number in range(3):
        scene.source.metadata[one, KEY] = f"refused {number}".encode()
        carrier.carry(scene.ledger, [one])
        scene.now += 1e6
    scene.target.fails = lambda _path, _what: None
    scene.source.metadata[one, KEY] = b"last"
    carrier.carry(scene.ledger, [one])
    assert scene.target.metadata[one, KEY] == b"last"
    assert not scene.happened(CarryLeft)


def test_what_lands_late_is_still_ours_to_replace(scene: Scene) -> None:
    """An upload that was given up, and reaches the target after the one that was sent next."""
    one = scene.ids[0]
    carrier = scene.carrier()
    for value in (b"first", b"second"):
        scene.source.metadata[one, KEY] = value
        carrier.carry(scene.ledger, [one])
    scene.source.metadata[one, KEY] = b"third"
    carrier.carry(scene.ledger, [one])
    scene.target.metadata[one, KEY] = b"second"
    scene.source.metadata[one, KEY] = b"fourth"
    carrier.carry(scene.ledger, [one])
    assert scene.target.metadata[one, KEY] == b"fourth"


def test_a_user_who_goes_back_to_a_value_of_before_is_a_user(scene: Scene) -> None:
    one = scene.ids[0]
    carrier = scene.carrier()
    for value in (b"first", b"second"):
        scene.source.metadata[one, KEY] = value
        scene.source.attachments[one, "1030"] = value
        carrier.carry(scene.ledger, [one])
        carrier.carry(scene.ledger, [one])
    scene.target.metadata[one, KEY] = b"first"
    scene.target.attachments[one, "1030"] = b"first"
    scene.source.metadata[one, KEY] = b"third"
    scene.source.attachments[one, "1030"] = b"third"
    carrier.carry(scene.ledger, [one])
    assert scene.target.metadata[one, KEY] == b"first"
    assert scene.target.attachments[one, "1030"] == b"first"
    assert len(scene.happened(CarryLeft)) == 2

"""``check`` against scripted servers: every kind of difference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Never

import pytest

from bridge.checks.ask_both_servers import TOLERATED_MAX, BothServers
from bridge.checks.compare import NOT_ITSELF, Check, reviewed
from bridge.checks.differences import Difference, State
from bridge.checks.pixels import ImageComparison, ImageResult
from bridge.checks.target_holds import HOLDS_NOTHING, LOST
from bridge.errors import InstanceError, InstanceGone, TargetError
from bridge.feed.identity import KnownPlace
from bridge.ledger.records import DeliveryRecord, Parked
from bridge.model import (
    Change,
    Described,
    Endpoint,
    Job,
    Move,
    Page,
    Reason,
    ServerInfo,
    SideName,
    SideProblem,
)
from bridge.orthanc import StoredFile
from bridge.rules import parse_rules

NATIVE = "1.2.840.10008.1.2.1"
J2K = "1.2.840.10008.1.2.4.90"
MPEG = "1.2.840.10008.1.2.4.100"


BULK = {"answered": True, "finds": False}
"""Whether the scripted servers answer for many instances at once, and in pages of all of them."""


@pytest.fixture(autouse=True, params=["in pages", "together", "one by one"])
def _all_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BULK, "answered", request.param != "one by one")
    monkeypatch.setitem(BULK, "finds", request.param == "in pages")


def identifier(number: int) -> str:
    digest = hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


@dataclass
class Scripted:
    """A server of so many instances; nothing of them is held in memory."""

    count: int = 0
    syntax: str = NATIVE
    syntaxes: dict[str, str] = field(default_factory=dict)
    lacks: set[str] = field(default_factory=set)
    adds: list[str] = field(default_factory=list)
    rows: list[Change] = field(default_factory=list)
    pixels: bool = True
    gone: set[str] = field(default_factory=set)
    """Listed, but not there any more when asked for."""
    sick: set[str] = field(default_factory=set)
    """Asked for, the server fails."""
    noted: dict[str, str | Exception] = field(default_factory=dict)
    """The MD5 of files, or why it is not told."""

    def _has(self, instance_id: str) -> bool:
        return instance_id not in self.lacks and instance_id not in self.gone

    def system(self) -> ServerInfo:
        return ServerInfo("scripted", 1, has_extended_changes=True)

    def list_instances(self, since: int, limit: int) -> list[str]:
        stop = min(since + limit, self.count)
        named = [i for i in map(identifier, range(since, stop)) if i not in self.lacks]
        return named + (self.adds if stop == self.count and since < self.count + 1 else [])

    def has_instance(self, instance_id: str) -> bool:
        return self._has(instance_id)

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        if instance_id in self.gone:
            raise InstanceGone("deleted")
        if instance_id in self.sick:
            raise TargetError(SideProblem.SERVER_ERROR, "failed", specific=True)
        known = {"TransferSyntax": self.syntaxes.get(instance_id, self.syntax)}
        return known | ({"PixelDataOffset": "1"} if self.pixels else {})

    def bulk_metadata(self, instance_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        if not BULK["answered"] or self.sick.intersection(instance_ids):
            return {}
        there = [i for i in instance_ids if self._has(i)]
        return {i: self.instance_metadata(i) for i in reversed(there)}

    def bulk_described(self, instance_ids: Sequence[str]) -> dict[str, Described]:
        return {i: Described(told, 1) for i, told in self.bulk_metadata(instance_ids).items()}

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        if not BULK["answered"]:
            return None
        return frozenset(instance_ids) - self.lacks - self.gone

    def find_described(self, since: int, limit: int) -> dict[str, Described] | None:
        if not BULK["finds"] or self.sick:
            return None
        there = sorted(i for i in self.list_instances(0, self.count + 1) if i not in self.gone)
        return {i: Described(self.instance_metadata(i), 1) for i in there[since : since + limit]}

    def unasked(self, *_: object) -> Never:
        raise AssertionError("nothing here needs this call")

    statistics = attachment_size = head = verify_stored = unasked

    def stored_md5(self, instance_id: str) -> str:
        noted = self.noted[instance_id]
        if isinstance(noted, Exception):
            raise noted
        return noted

    def stored_file(self, instance_id: str) -> StoredFile:
        return StoredFile(f"{id(self)}-{instance_id}", "", 1)

    def peers(self) -> dict[str, str]:
        return {}

    def changes(self, since: int, limit: int, *, only_new_instances: bool) -> Page:
        rows = tuple(
            row
            for row in self.rows
            if row.sequence > since and (row.change_type == "NewInstance" or not only_new_instances)
        )[:limit]
        return Page(rows, done=True, last=rows[-1].sequence if rows else since)

    def last_change(self) -> Page:
        last = self.rows[-1].sequence if self.rows else 0
        return Page(tuple(self.rows[-1:]), done=True, last=last)

    def close(self) -> None:
        pass


@dataclass
class Ledger:
    parked: dict[str, Parked] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    let_go: set[str] = field(default_factory=set)

    def delivery_of(self, instance_id: str) -> DeliveryRecord | None:
        known = instance_id in self.delivered | self.let_go
        return DeliveryRecord(instance_id, "", "", 0.0) if known else None

    def released(self) -> Iterator[str]:
        return iter(sorted(self.let_go))

    def checkpoint(self) -> int | None:
        return 10

    def parked_one(self, instance_id: str) -> Parked | None:
        return self.parked.get(instance_id)

    def is_put_aside(self, instance_id: str) -> bool:
        return instance_id in self.parked or instance_id in self.dropped


@dataclass
class Pixels:
    """Compares nothing and says what it is told."""

    says: dict[str, ImageComparison] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def comparisons(self, asked: Iterable[tuple[str, str]]) -> Iterator[ImageComparison]:
        for instance_id, recorded in asked:
            assert recorded == ""
            self.asked.append(instance_id)
            yield self.says.get(instance_id, ImageComparison(instance_id, ImageResult.SAME))


def job(rules: str = "", wanted: str = NATIVE, **policies: str) -> Job:
    return Job(
        Endpoint(SideName.SOURCE, "http://s"),
        Endpoint(SideName.TARGET, "http://t"),
        wanted_syntax=wanted,
        rules=parse_rules(rules) if rules else (),
        **policies,  # type: ignore[arg-type]
    )


def found(
    source: Scripted,
    target: Scripted,
    *,
    the_job: Job | None = None,
    known: Ledger | None = None,
    images: Pixels | None = None,
    sample: int | None = None,
    **options: Any,
) -> tuple[Check, list[Difference]]:
    sides = {SideName.SOURCE: source, SideName.TARGET: target}
    with (
        BothServers(sides.__getitem__) as servers,
        Check(
            servers,
            job=the_job or job(),
            known=known,
            page_size=1000,
            show=lambda *_: None,
            images=images,
            sample=sample,
            **options,
        ) as check,
    ):
        check.run()
        return check, list(check.differences)


def states(differences: list[Difference]) -> dict[str, State]:
    return {difference.instance_id: difference.state for difference in differences}


def test_equal_servers_have_no_differences() -> None:
    check, differences = found(Scripted(500, J2K), Scripted(500))
    assert differences == []
    assert (check.totals.source, check.totals.target, check.totals.on_both) == (500, 500, 500)
    assert check.totals.rate > 0


def test_a_listing_that_began_anew_counts_nothing_twice() -> None:
    class Shifting(Scripted):
        asked = 0

        def list_instances(self, since: int, limit: int) -> list[str]:
            self.asked += 1
            listed = super().list_instances(since, limit)
            return listed[::-1] if self.asked in (2, 3) else listed

    check, differences = found(Shifting(3000), Scripted(3000))
    assert differences == []
    assert (check.totals.source, check.totals.target, check.totals.on_both) == (3000,) * 3


def test_a_server_that_stumbles_over_one_instance_hides_nothing_of_the_others() -> None:
    ids = [identifier(number) for number in range(TOLERATED_MAX + 1)]
    target = Scripted(500, lacks={identifier(400)}, sick=set(ids[:TOLERATED_MAX]))
    check, differences = found(Scripted(500, J2K), target)
    assert check.totals.on_both == 499
    expected = dict.fromkeys(ids[:TOLERATED_MAX], State.UNREADABLE)
    assert states(differences) == expected | {identifier(400): State.MISSING}
    assert {f.detail for f in differences if f.state is State.UNREADABLE} == {"target_server_error"}
    with pytest.raises(TargetError, match="failed"):
        found(Scripted(500, J2K), Scripted(500, sick=set(ids)))


def test_missing_waiting_parked_extra_and_syntax_are_told_apart() -> None:
    ids = [identifier(number) for number in range(20)]
    parked = Parked(Move(ids[2]), Reason.UNDECODABLE, "", 3, 0.0, 0.0)
    source = Scripted(20, J2K, rows=[Change(11, "NewInstance", ids[1], "")])
    target = Scripted(20, lacks={ids[0], ids[1], ids[2]}, syntaxes={ids[3]: J2K})
    source.lacks = {ids[4]}
    _, differences = found(source, target, known=Ledger({ids[2]: parked}))
    assert states(differences) == {
        ids[0]: State.MISSING,
        ids[1]: State.WAITING,
        ids[2]: State.PARKED,
        ids[3]: State.SYNTAX,
        ids[4]: State.EXTRA,
    }
    wrong = next(difference for difference in differences if difference.state is State.SYNTAX)
    assert (wrong.source_syntax, wrong.target_syntax) == (J2K, J2K)
    assert wrong.detail == "expected ExplicitVRLittleEndian"


def test_what_retention_deleted_and_the_target_lost_is_lost() -> None:
    """Neither server lists it: `check` said 0 differences."""
    ids = [identifier(number) for number in range(40)]
    # Retention has deleted 30; the target has lost 5 of these.
    known = Ledger(let_go=set(ids[:30]), delivered=set(ids[30:]))
    source = Scripted(40, lacks=set(ids[:30]))
    _, differences = found(source, Scripted(40, lacks=set(ids[:5])), known=known)
    lost = {i: state for i, state in states(differences).items() if state is not State.EXTRA}
    assert lost == dict.fromkeys(ids[:5], State.LOST)
    assert {d.detail for d in differences if d.state is State.LOST} == {LOST}
    assert len(differences) == 30
    _, differences = found(source, Scripted(40, lacks=set(ids[:5])))
    assert State.LOST not in states(differences).values(), "there is no record"
    _, differences = found(source, Scripted(40, lacks=set(ids[:5])), known=known, finds_lost=False)
    assert State.LOST not in states(differences).values(), "the record is of another target"


def test_nothing_is_lost_at_a_target_that_is_not_itself() -> None:
    ids = [identifier(number) for number in range(4)]
    known = Ledger(let_go={ids[0]}, delivered=set(ids[1:]))
    source = Scripted(4, lacks={ids[0]})
    # It lists what was delivered, and holds nothing of it when it is asked.
    misled = Scripted(4, lacks=set(ids), adds=ids[1:])
    _, differences = found(source, misled, known=known)
    told = {d.instance_id: d for d in differences}
    assert told[ids[0]] == Difference(ids[0], State.UNREADABLE, detail=NOT_ITSELF)
    # It lists nothing of it at all: perhaps the wrong server. It is told all the same.
    _, differences = found(source, Scripted(4, lacks=set(ids)), known=known)
    told = {d.instance_id: d for d in differences}
    assert told[ids[0]] == Difference(ids[0], State.LOST, detail=f"{HOLDS_NOTHING} {LOST}")


def test_what_seems_lost_is_asked_for_a_second_time() -> None:
    """By itself: an answer for many, or one while the server was busy, is not believed alone."""
    ids = [identifier(number) for number in range(4)]
    known = Ledger(let_go={ids[0]}, delivered=set(ids[1:]))

    class Busy(Scripted):
        answers = 0

        def has_instance(self, instance_id: str) -> bool:
            if instance_id == ids[0]:
                Busy.answers += 1
            return super().has_instance(instance_id) or Busy.answers > 1

        def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
            held = super().bulk_held(instance_ids)
            if held is not None and ids[0] in instance_ids:
                Busy.answers += 1
            return held

    source = Scripted(4, lacks={ids[0]})
    _, differences = found(source, Busy(4, lacks={ids[0]}), known=known)
    assert Busy.answers > 1
    assert State.LOST not in states(differences).values()


def test_what_a_person_dropped_is_missing_and_says_so() -> None:
    ids = [identifier(number) for number in range(20)]
    target = Scripted(20, lacks={ids[0], ids[9], ids[19]})
    _, differences = found(Scripted(20), target, known=Ledger(dropped={ids[9]}))
    assert states(differences) == dict.fromkeys((ids[0], ids[9], ids[19]), State.MISSING)
    told = {difference.instance_id: difference.detail for difference in differences}
    assert told == {
        ids[0]: "",
        ids[9]: "dropped by a person (orthanc-bridge parked list --dropped)",
        ids[19]: "",
    }


def test_what_changes_meanwhile_is_no_difference() -> None:
    ids = [identifier(number) for number in range(4)]
    # 0: moved after the target was listed; 1: deleted at the source after it was listed.
    source = Scripted(4, gone={ids[1]})
    target = Scripted(4)
    listing = Scripted(4, lacks={ids[0], ids[1]})
    target.list_instances = listing.list_instances  # type: ignore[method-assign]
    _, differences = found(source, target)
    assert differences == []


def test_a_rule_that_skips_or_forwards_is_obeyed() -> None:
    ids = [identifier(number) for number in range(3)]
    source = Scripted(3, J2K, syntaxes={ids[0]: MPEG, ids[1]: NATIVE})
    target = Scripted(3, lacks={ids[1]}, syntaxes={ids[0]: MPEG, ids[2]: J2K})
    rules = f"[[rule]]\nsyntax = '{NATIVE}'\naction = 'skip'\n[[rule]]\naction = 'forward'"
    check, differences = found(source, target, the_job=job(rules))
    assert differences == []
    assert check.totals.skipped_by_rule == 1


@pytest.mark.parametrize(
    ("policies", "syntax", "state"),
    [
        ({"on_video": "forward"}, MPEG, None),
        ({"on_video": "park"}, MPEG, State.SYNTAX),
        ({"on_undecodable": "forward"}, J2K, None),
        ({"on_undecodable": "park"}, J2K, State.SYNTAX),
        ({"on_undecodable": "forward"}, "1.2.3.4", None),
    ],
)
def test_policies_decide_which_syntax_is_right(
    policies: dict[str, str], syntax: str, state: State | None
) -> None:
    _, differences = found(Scripted(1, syntax), Scripted(1, syntax), the_job=job("", **policies))
    assert [difference.state for difference in differences] == ([state] if state else [])


@pytest.mark.parametrize(("pixels", "count"), [(True, 1), (False, 0)])
def test_an_object_without_pixels_is_never_compressed(pixels: bool, count: int) -> None:
    target = Scripted(1, NATIVE, pixels=pixels)
    _, differences = found(Scripted(1, "1.2.840.10008.1.2"), target, the_job=job(wanted=J2K))
    assert len(differences) == count


def test_deep_compares_what_both_have_and_names_what_differs() -> None:
    ids = [identifier(number) for number in range(5)]
    pixels = Pixels(
        {
            ids[1]: ImageComparison(ids[1], ImageResult.DIFFERENT, "samples differ"),
            ids[2]: ImageComparison(ids[2], ImageResult.UNDECIDED, "no decoder"),
            ids[3]: ImageComparison(ids[3], ImageResult.GONE),
        }
    )
    check, differences = found(Scripted(5, J2K), Scripted(5, lacks={ids[0]}), images=pixels)
    assert sorted(pixels.asked) == sorted(ids[1:])
    assert check.totals.images_compared == 4
    assert states(differences) == {
        ids[0]: State.MISSING,
        ids[1]: State.PIXELS,
        ids[2]: State.UNREADABLE,
    }


def test_deep_does_not_blame_the_copy_where_the_source_is_damaged() -> None:
    """What came from the source is not what it notes. Seen to fail: ``pixels``."""
    ids = [identifier(number) for number in range(6)]
    source = Scripted(6, J2K)
    source.noted = {
        ids[0]: "s",
        ids[1]: "other",
        ids[2]: "other",
        ids[3]: "",
        ids[4]: InstanceError(Reason.SERVER_REFUSES_INSTANCE, "no MD5", final=False),
        ids[5]: TargetError(SideProblem.SERVER_ERROR, "failed", specific=True),
    }
    different, undecided = ImageResult.DIFFERENT, ImageResult.UNDECIDED
    results = [different, different, undecided, different, different, different]
    pixels = Pixels(
        {
            instance_id: ImageComparison(instance_id, result, source_md5="s")
            for instance_id, result in zip(ids, results, strict=True)
        }
    )
    _, differences = found(source, Scripted(6), images=pixels)
    wanted = dict.fromkeys(ids, State.PIXELS) | dict.fromkeys(ids[1:3], State.SOURCE_DAMAGED)
    assert states(differences) == wanted


def test_a_sample_is_drawn_from_everything_with_the_same_chance() -> None:
    drawn: dict[str, int] = {}
    for _ in range(60):
        pixels = Pixels()
        found(Scripted(50), Scripted(50), images=pixels, sample=10)
        assert len(set(pixels.asked)) == 10
        for instance_id in pixels.asked:
            drawn[instance_id] = drawn.get(instance_id, 0) + 1
    # 600 draws over 50 instances: 12 each, standard deviation about 3.
    assert len(drawn) == 50
    assert max(drawn.values()) < 30


def test_a_sample_larger_than_the_servers_is_all_of_it() -> None:
    pixels = Pixels()
    found(Scripted(5), Scripted(5), images=pixels, sample=100)
    assert len(pixels.asked) == 5


def test_after_fixing_what_arrived_is_fixed_and_the_rest_remains() -> None:
    ids = [identifier(number) for number in range(4)]
    source, target = Scripted(4), Scripted(4, lacks=set(ids))
    sides = {SideName.SOURCE: source, SideName.TARGET: target}
    with (
        BothServers(sides.__getitem__) as servers,
        Check(servers, job=job(), known=None, page_size=10, show=lambda *_: None) as check,
    ):
        check.run()
        assert sorted(move.instance_id for move in check.differences.moves()) == sorted(ids)
        target.lacks = {ids[1], ids[2], ids[3]}
        source.gone = {ids[3]}
        parked = Parked(Move(ids[2]), Reason.VIDEO, "", 1, 0.0, 0.0)
        known = Ledger({ids[2]: parked})
        looks: list[None] = []
        with reviewed(
            check.differences,
            source=source,
            target=target,
            known=known,
            look=lambda: looks.append(None),
        ) as after:
            assert states(list(after)) == {
                ids[0]: State.FIXED,
                ids[1]: State.MISSING,
                ids[2]: State.PARKED,
            }
        assert len(looks) == 2, "after each time that the source lacked the fourth"


# Servers go on working while they are compared


def ascending(count: int) -> list[str]:
    return sorted(identifier(number) for number in range(count))


def test_what_came_after_the_listing_hides_nothing_that_waits() -> None:
    """Rows of instances that neither server has listed stand before the one that waits."""
    first = ascending(20)[0]
    unlisted = [f"0000000{number}-00000000-00000000-00000000-00000000" for number in range(3)]
    rows = [
        Change(11 + number, "NewInstance", instance_id, "")
        for number, instance_id in enumerate([*unlisted, first])
    ]
    source, target = Scripted(20, rows=rows), Scripted(20, lacks={first})
    _, differences = found(source, target, known=Ledger())
    assert states(differences) == {first: State.WAITING}


def test_what_waits_and_is_parked_is_parked() -> None:
    ids = [identifier(number) for number in range(3)]
    rows = [Change(11 + n, "NewInstance", instance_id, "") for n, instance_id in enumerate(ids)]
    parked = Parked(Move(ids[1]), Reason.VIDEO, "", 1, 0.0, 0.0)
    source, target = Scripted(3, rows=rows), Scripted(3, lacks=set(ids))
    _, differences = found(source, target, known=Ledger({ids[1]: parked}))
    expected = dict.fromkeys(ids, State.WAITING) | {ids[1]: State.PARKED}
    assert states(differences) == expected


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_pixels_of_what_one_server_did_not_list_are_compared(side: str) -> None:
    servers = {"source": Scripted(5), "target": Scripted(5)}
    short = Scripted(5, lacks={identifier(2)})
    servers[side].list_instances = short.list_instances  # type: ignore[method-assign]
    pixels = Pixels()
    check, differences = found(servers["source"], servers["target"], images=pixels)
    assert differences == []
    assert sorted(pixels.asked) == ascending(5)
    assert (check.totals.source, check.totals.target, check.totals.on_both) == (5, 5, 5)


class Blinking(Scripted):
    """It does not know one instance for the first time that it is asked for it."""

    blinks: set[str]

    def has_instance(self, instance_id: str) -> bool:
        if instance_id in self.blinks:
            self.blinks.discard(instance_id)
            return False
        return super().has_instance(instance_id)

    def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
        told = super().bulk_held(instance_ids)
        if told is None:
            return None
        blinks, self.blinks = self.blinks & told, self.blinks - told
        return told - blinks


@pytest.mark.parametrize("waits", [False, True])
def test_what_the_source_lacked_for_a_moment_is_missing(*, waits: bool) -> None:
    lost = {identifier(number) for number in (0, 2, 4)}
    rows = [Change(11, "NewInstance", identifier(2), "")] if waits else []
    source = Blinking(5, rows=rows)
    source.blinks = set(lost)
    _, differences = found(source, Scripted(5, lacks=lost), known=Ledger())
    expected = dict.fromkeys(lost, State.MISSING)
    assert states(differences) == expected | ({identifier(2): State.WAITING} if waits else {})


def test_what_seems_deleted_is_asked_for_between_two_looks_at_the_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is the source of the listing before, and after."""
    done: list[str] = []
    look = KnownPlace.look

    def noted(place: KnownPlace) -> None:
        done.append("look")
        look(place)

    class Noting(Scripted):
        def has_instance(self, instance_id: str) -> bool:
            done.append("ask")
            return super().has_instance(instance_id)

        def bulk_held(self, instance_ids: Sequence[str]) -> frozenset[str] | None:
            told = super().bulk_held(instance_ids)
            done.extend(["ask"] if told is not None else [])
            return told

    monkeypatch.setattr(KnownPlace, "look", noted)
    gone = identifier(1)
    _, differences = found(Noting(3, gone={gone}), Scripted(3, lacks={gone}))
    assert differences == []
    assert done[-4:] == ["ask", "look", "ask", "look"]


def test_a_source_that_lists_nothing_for_a_moment_is_listed() -> None:
    class Away(Scripted):
        asked = 0

        def list_instances(self, since: int, limit: int) -> list[str]:
            self.asked += 1
            return [] if self.asked <= 2 else super().list_instances(since, limit)

    check, differences = found(Away(5), Scripted(5, lacks={identifier(3)}))
    assert states(differences) == {identifier(3): State.MISSING}
    assert check.totals.source == 5


class Failing(Scripted):
    """It answers with these errors when it is asked for the metadata of an instance."""

    errors: dict[str, Exception]

    def bulk_metadata(self, _instance_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        return {}

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        if instance_id in self.errors:
            raise self.errors[instance_id]
        return super().instance_metadata(instance_id)

    def find_described(self, since: int, limit: int) -> dict[str, Described] | None:  # noqa: ARG002
        return None


def test_what_the_target_lacks_after_all_is_missing_where_the_source_has_it() -> None:
    ids = [identifier(number) for number in range(3)]
    target = Failing(3)
    target.errors = {
        ids[0]: InstanceError(Reason.PROOF_MISMATCH, "it lacks it"),
        ids[1]: InstanceError(Reason.PROOF_MISMATCH, "it lacks it"),
        ids[2]: InstanceError(Reason.SERVER_REFUSES_INSTANCE, "it gives no file"),
    }
    _, differences = found(Scripted(3, gone={ids[1]}), target)
    assert states(differences) == {ids[0]: State.MISSING, ids[2]: State.UNREADABLE}


def test_what_is_deleted_at_the_source_while_it_is_looked_at_is_no_difference() -> None:
    ids = [identifier(number) for number in range(3)]
    target = Scripted(3, syntaxes={ids[1]: J2K, ids[2]: J2K})
    _, differences = found(Scripted(3, J2K, gone={ids[1]}), target)
    assert states(differences) == {ids[2]: State.SYNTAX}


def test_what_only_the_target_listed_and_nobody_holds_is_no_difference() -> None:
    extra = "ffffffff-00000000-00000000-00000000-0000000"
    names = [f"{extra}{number}" for number in range(3)]
    target = Scripted(3, adds=names, gone={names[1]})
    _, differences = found(Scripted(3, lacks=set(names)), target)
    assert states(differences) == {names[0]: State.EXTRA, names[2]: State.EXTRA}


def test_a_rule_may_want_another_syntax_than_the_setting() -> None:
    ids = [identifier(number) for number in range(3)]
    implicit = "1.2.840.10008.1.2"
    source = Scripted(3, J2K)
    target = Scripted(3, NATIVE, syntaxes={ids[1]: implicit})
    rules = f"[[rule]]\nsyntax = '{J2K}'\naction = 'transcode'\nto = '{implicit}'"
    _, differences = found(source, target, the_job=job(rules))
    assert states(differences) == {ids[0]: State.SYNTAX, ids[2]: State.SYNTAX}
    assert {difference.target_syntax for difference in differences} == {NATIVE}


def test_each_instance_of_a_sample_is_drawn_of_all_that_were_seen() -> None:
    asked: list[int] = []

    def draw(below: int) -> int:
        asked.append(below)
        return 1 if below == 5 else below - 1

    pixels = Pixels()
    found(Scripted(6), Scripted(6), images=pixels, sample=2, draw=draw)
    assert asked == [3, 4, 5, 6]
    assert pixels.asked == [ascending(6)[0], ascending(6)[4]]

"""``check`` against scripted servers: every kind of difference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Never

import pytest

from bridge.comparison import Check
from bridge.core.errors import InstanceGone, TargetError
from bridge.core.model import (
    Change,
    Endpoint,
    Job,
    Move,
    Page,
    Reason,
    ServerInfo,
    SideName,
    SideProblem,
)
from bridge.core.rules import parse_rules
from bridge.entry import Parked
from bridge.findings import Finding, State
from bridge.images import Likeness, Verdict
from bridge.lookers import STUMBLES_MAX, Lookers
from bridge.review import reviewed

NATIVE = "1.2.840.10008.1.2.1"
J2K = "1.2.840.10008.1.2.4.90"
MPEG = "1.2.840.10008.1.2.4.100"


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

    def system(self) -> ServerInfo:
        return ServerInfo("scripted", 1, has_extended_changes=True)

    def list_instances(self, since: int, limit: int) -> list[str]:
        stop = min(since + limit, self.count)
        named = [i for i in map(identifier, range(since, stop)) if i not in self.lacks]
        return named + (self.adds if stop == self.count and since < self.count + 1 else [])

    def has_instance(self, instance_id: str) -> bool:
        return instance_id not in self.lacks | self.gone

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        if instance_id in self.gone:
            raise InstanceGone("deleted")
        if instance_id in self.sick:
            raise TargetError(SideProblem.SERVER_ERROR, "failed", specific=True)
        known = {"TransferSyntax": self.syntaxes.get(instance_id, self.syntax)}
        return known | ({"PixelDataOffset": "1"} if self.pixels else {})

    def unasked(self, *_: object) -> Never:
        raise AssertionError("nothing here needs this call")

    attachment_size = stored_md5 = head = unasked

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

    def checkpoint(self) -> int | None:
        return 10

    def parked_one(self, instance_id: str) -> Parked | None:
        return self.parked.get(instance_id)


@dataclass
class Pixels:
    """Compares nothing and says what it is told."""

    says: dict[str, Verdict] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def verdicts(self, asked: Iterable[tuple[str, str]]) -> Iterator[Verdict]:
        for instance_id, recorded in asked:
            assert recorded == ""
            self.asked.append(instance_id)
            yield self.says.get(instance_id, Verdict(instance_id, Likeness.SAME))


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
) -> tuple[Check, list[Finding]]:
    sides = {SideName.SOURCE: source, SideName.TARGET: target}
    with (
        Lookers(sides.__getitem__) as lookers,
        Check(
            lookers,
            job=the_job or job(),
            known=known,
            page_size=1000,
            show=lambda *_: None,
            images=images,
            sample=sample,
        ) as check,
    ):
        check.run()
        return check, list(check.findings)


def states(findings: list[Finding]) -> dict[str, State]:
    return {finding.instance_id: finding.state for finding in findings}


def test_equal_servers_have_no_differences() -> None:
    check, findings = found(Scripted(500, J2K), Scripted(500))
    assert findings == []
    assert (check.totals.source, check.totals.target, check.totals.on_both) == (500, 500, 500)
    assert check.totals.rate > 0


def test_a_listing_that_began_anew_counts_nothing_twice() -> None:
    class Shifting(Scripted):
        asked = 0

        def list_instances(self, since: int, limit: int) -> list[str]:
            self.asked += 1
            listed = super().list_instances(since, limit)
            return listed[::-1] if self.asked in (2, 3) else listed

    check, findings = found(Shifting(3000), Scripted(3000))
    assert findings == []
    assert (check.totals.source, check.totals.target, check.totals.on_both) == (3000,) * 3


def test_a_server_that_stumbles_over_one_instance_hides_nothing_of_the_others() -> None:
    ids = [identifier(number) for number in range(STUMBLES_MAX + 1)]
    target = Scripted(500, lacks={identifier(400)}, sick=set(ids[:STUMBLES_MAX]))
    check, findings = found(Scripted(500, J2K), target)
    assert check.totals.on_both == 499
    expected = dict.fromkeys(ids[:STUMBLES_MAX], State.UNREADABLE)
    assert states(findings) == expected | {identifier(400): State.MISSING}
    assert {f.detail for f in findings if f.state is State.UNREADABLE} == {"target_server_error"}
    with pytest.raises(TargetError, match="failed"):
        found(Scripted(500, J2K), Scripted(500, sick=set(ids)))


def test_missing_waiting_parked_extra_and_syntax_are_told_apart() -> None:
    ids = [identifier(number) for number in range(20)]
    parked = Parked(Move(ids[2]), Reason.UNDECODABLE, "", 3, 0.0, 0.0)
    source = Scripted(20, J2K, rows=[Change(11, "NewInstance", ids[1], "")])
    target = Scripted(20, lacks={ids[0], ids[1], ids[2]}, syntaxes={ids[3]: J2K})
    source.lacks = {ids[4]}
    _, findings = found(source, target, known=Ledger({ids[2]: parked}))
    assert states(findings) == {
        ids[0]: State.MISSING,
        ids[1]: State.WAITING,
        ids[2]: State.PARKED,
        ids[3]: State.SYNTAX,
        ids[4]: State.EXTRA,
    }
    wrong = next(finding for finding in findings if finding.state is State.SYNTAX)
    assert (wrong.source_syntax, wrong.target_syntax) == (J2K, J2K)
    assert NATIVE in wrong.detail


def test_what_changes_meanwhile_is_no_difference() -> None:
    ids = [identifier(number) for number in range(4)]
    # 0: moved after the target was listed; 1: deleted at the source after it was listed.
    source = Scripted(4, gone={ids[1]})
    target = Scripted(4)
    listing = Scripted(4, lacks={ids[0], ids[1]})
    target.list_instances = listing.list_instances  # type: ignore[method-assign]
    _, findings = found(source, target)
    assert findings == []


def test_a_rule_that_skips_or_forwards_is_obeyed() -> None:
    ids = [identifier(number) for number in range(3)]
    source = Scripted(3, J2K, syntaxes={ids[0]: MPEG, ids[1]: NATIVE})
    target = Scripted(3, lacks={ids[1]}, syntaxes={ids[0]: MPEG, ids[2]: J2K})
    rules = f"[[rule]]\nsyntax = '{NATIVE}'\naction = 'skip'\n[[rule]]\naction = 'forward'"
    check, findings = found(source, target, the_job=job(rules))
    assert findings == []
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
    _, findings = found(Scripted(1, syntax), Scripted(1, syntax), the_job=job("", **policies))
    assert [finding.state for finding in findings] == ([state] if state else [])


@pytest.mark.parametrize(("pixels", "count"), [(True, 1), (False, 0)])
def test_an_object_without_pixels_is_never_compressed(pixels: bool, count: int) -> None:
    target = Scripted(1, NATIVE, pixels=pixels)
    _, findings = found(Scripted(1, "1.2.840.10008.1.2"), target, the_job=job(wanted=J2K))
    assert len(findings) == count


def test_deep_compares_what_both_have_and_names_what_differs() -> None:
    ids = [identifier(number) for number in range(5)]
    pixels = Pixels(
        {
            ids[1]: Verdict(ids[1], Likeness.DIFFERENT, "samples differ"),
            ids[2]: Verdict(ids[2], Likeness.UNDECIDED, "no decoder"),
            ids[3]: Verdict(ids[3], Likeness.GONE),
        }
    )
    check, findings = found(Scripted(5, J2K), Scripted(5, lacks={ids[0]}), images=pixels)
    assert sorted(pixels.asked) == sorted(ids[1:])
    assert check.totals.images_compared == 4
    assert states(findings) == {
        ids[0]: State.MISSING,
        ids[1]: State.PIXELS,
        ids[2]: State.UNREADABLE,
    }


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
        Lookers(sides.__getitem__) as lookers,
        Check(lookers, job=job(), known=None, page_size=10, show=lambda *_: None) as check,
    ):
        check.run()
        assert sorted(move.instance_id for move in check.findings.moves()) == sorted(ids)
        target.lacks = {ids[1], ids[2], ids[3]}
        source.gone = {ids[3]}
        parked = Parked(Move(ids[2]), Reason.VIDEO, "", 1, 0.0, 0.0)
        known = Ledger({ids[2]: parked})
        looks: list[None] = []
        with reviewed(
            check.findings,
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

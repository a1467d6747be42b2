"""``orthanc-bridge retention``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.output import say
from bridge.errors import EXIT_DONE, ConfigurationError
from bridge.untrusted_text import visible

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.ledger.store import Ledger

GOES = "would be deleted"
LISTED_MAX = 1000
"""Instances that are listed one by one; all are counted."""


def retention(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List what would be deleted, and why the rest stays."),
    ] = False,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm",
            help="Allow a running bridge to delete again after it stopped deleting, and to exceed "
            "BRIDGE_RETENTION_DAY_SHARE for one day. Also forget marks that the bridge could "
            "not remove from a server.",
        ),
    ] = False,
    forget: Annotated[
        str,
        typer.Option(
            "--forget",
            metavar="NAME",
            help="Forget a bridge that is gone for good: remove its note and stop waiting for it.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Show or allow what BRIDGE_SOURCE_RETENTION deletes.

    With BRIDGE_SOURCE_RETENTION a running bridge deletes delivered instances from the source. This
    command itself deletes nothing. Give one of --dry-run, --confirm and --forget.
    """
    from bridge.commands.lifecycle import begin
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger

    if sum((dry_run, confirm, bool(forget))) != 1:
        raise ConfigurationError(
            "Give one of --dry-run, --confirm and --forget.",
            advice="See orthanc-bridge retention --help.",
        )
    settings = load_settings()
    begin(settings)
    with Ledger(settings.state_path, create=False) as ledger:
        if confirm:
            return _confirm(settings, ledger)
        if forget:
            return _forget(settings, ledger, forget)
        return _explain(settings, ledger, as_json=as_json)


def _confirm(settings: Settings, ledger: Ledger) -> int:
    from bridge.marks import forget_marks
    from bridge.retention.age_clock import AgeClock
    from bridge.retention.deletion_limits import confirm

    confirm(ledger, now=AgeClock().now_s(ledger))
    for mark in forget_marks(ledger, time.time()):
        say(f"Forgotten, and perhaps still at the server: {visible(str(mark))}.")
    say("The bridge may delete again, and may exceed BRIDGE_RETENTION_DAY_SHARE for one day.")
    if settings.retention_s is None:
        say("But BRIDGE_SOURCE_RETENTION is keep, so nothing is deleted at the source.")
    return EXIT_DONE


def _forget(settings: Settings, ledger: Ledger, name: str) -> int:
    from bridge.errors import SideError
    from bridge.model import SideName
    from bridge.orthanc.session import SideClient
    from bridge.retention.bridge_notes import SETTLE_S, await_notes, forget_follower, see_notes
    from bridge.retention.note_tokens import newest_token

    # One that runs in spite of the person's word leaves its note anew within that time. Before the
    # note goes, as we may be killed; and from when it is gone.
    await_notes(ledger)
    known = forget_follower(ledger, name)
    for side in SideName:
        client = SideClient(settings.endpoint(side))
        try:
            seen = see_notes(ledger, client, side, token=newest_token(ledger))
            for note, told in zip(seen.notes, seen.told_apart(), strict=True):
                if told.bridge_id == name:
                    client.delete_peer(note.name)
                    known = True
        except SideError as exc:
            if side is SideName.SOURCE:
                raise
            say(f"Its notes at the target could not be removed: {visible(exc.message)}")
        finally:
            client.close()
    await_notes(ledger)
    if not known:
        raise ConfigurationError(
            f"No bridge named {name} is known here.",
            advice="Take the name from the message that says why nothing is deleted.",
        )
    say(f"Bridge {name} is forgotten. If it still runs, it will appear again.")
    say(f"Nothing is deleted before it has had the time for that ({SETTLE_S:.0f} s).")
    return EXIT_DONE


def _explain(settings: Settings, ledger: Ledger, *, as_json: bool) -> int:
    from collections import Counter
    from functools import partial

    from bridge.commands.output import print_json
    from bridge.model import SideName
    from bridge.orthanc.session import SideClient
    from bridge.pipeline.runtime import SystemClock
    from bridge.retention.age_clock import AgeClock
    from bridge.retention.background import OperatorsHold
    from bridge.retention.bridge_notes import NOTES_AWAITED, notes_awaited
    from bridge.retention.held_deletion import UNVERIFIED_KEY, why_unverified
    from bridge.retention.note_tokens import newest_token
    from bridge.retention.sweep import Sweeper
    from bridge.service import look_at_feed

    rules = settings.retention_rules()
    if rules is None:
        raise ConfigurationError(
            "BRIDGE_SOURCE_RETENTION is keep: nothing is ever deleted at the source.",
            advice="Set it to a duration such as 24h to see what that would delete.",
        )
    source, target = (SideClient(settings.endpoint(side)) for side in SideName)
    hold = OperatorsHold(settings.allowance(), SystemClock())
    look = partial(look_at_feed, source=source, overlap=settings.feed_overlap)
    sweeper = Sweeper(
        source, target, rules, token=newest_token(ledger), look_at_feed=look, hold=hold
    )
    counts: Counter[str] = Counter()
    listed: list[dict[str, object]] = []
    try:
        now = AgeClock().now_s(ledger, keep=False)
        refusals = [str(error) for error in sweeper.refusals(ledger, now=now)]
        held_back = hold(ledger) or (NOTES_AWAITED if notes_awaited(ledger, now) else "")
        if not held_back and ledger.meta(UNVERIFIED_KEY) is not None:
            held_back = why_unverified(ledger)
        left = sweeper.left_this_hour(ledger, now)
        for kept, why in sweeper.explain(ledger, now=now):
            counts[why or GOES] += 1
            if len(listed) < LISTED_MAX:
                age_s = None if kept.aged_from is None else round(now - kept.aged_from)
                listed.append({"instance": kept.instance_id, "age_s": age_s, "why": why or GOES})
        held = source.statistics().instances
    finally:
        source.close()
        target.close()
    most = counts[GOES] if left is None else min(left, counts[GOES])
    unknown = max(0, held - sum(counts.values()))
    if as_json:
        print_json(
            {
                "goes": 0 if refusals or held_back else most,
                "refusals": refusals,
                "hold": held_back,
                "counts": dict(counts),
                "without_proof": unknown,
                "instances": listed,
            }
        )
        return EXIT_DONE
    for text in refusals:
        say(f"Nothing is deleted at present: {text}")
    if held_back:
        say(f"Nothing is deleted at present: {held_back}.")
    if most < counts[GOES]:
        say(f"No more than {most} are deleted now: BRIDGE_RETENTION_PER_HOUR is the limit.")
    for why, count in sorted(counts.items(), key=lambda item: (item[0] != GOES, item[0])):
        say(f"{count:>9}  {why}")
    say(f"{unknown:>9}  kept: without proof of a delivery (orthanc-bridge replay can make it)")
    return EXIT_DONE

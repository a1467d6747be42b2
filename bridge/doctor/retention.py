"""What would make the target's copy no copy, or BRIDGE_SOURCE_RETENTION delete the only one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from bridge.config import Settings
from bridge.doctor.diagnosis import NOTE, OK, WARNING, Diagnosis
from bridge.errors import BridgeError, ConfigurationError, InstanceError, SideError, StateError
from bridge.feed.pages import NEW_INSTANCE
from bridge.ledger.lock import there_may_be
from bridge.ledger.store import Ledger
from bridge.marks import MarkedBy, Marks, MarksAtBest, MarksOnRecord, NotOnRecord
from bridge.mirror.copy_deletion import doubt_of
from bridge.model import ServerInfo, SideName
from bridge.monitoring.health import SOURCE_DOUBTS
from bridge.orthanc.session import SideClient
from bridge.retention.age_clock import AgeClock
from bridge.retention.batch_proof import refuse_target
from bridge.retention.limits_and_risks import RetentionRules, refuse_shared_database
from bridge.retention.note_tokens import newest_token
from bridge.retention.sweep import Sweeper
from bridge.two_servers import SAMPLED, HowMany, refuse, tell_apart, use_of

RETENTION_S_SENSIBLE = 3600.0
ROWS_MAX = 100
"""Rows of the feed in which the next instances to be moved are sought."""


def check_two_servers(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the two addresses are two servers.

    Raises ConfigurationError where ``run`` would end with it now, or at its first move.
    """
    clients = source, target = [SideClient(settings.endpoint(side)) for side in SideName]
    try:
        next_ones = _next_to_move(settings, source)
        answer = tell_apart(source, target, next_ones, marks=_marks(settings))
        overwrites = target.system().overwrite_instances
    except SideError:
        return  # the checks of both servers say it
    finally:
        for client in clients:
            client.close()
    use = use_of(moves=bool(next_ones), overwrites=overwrites)
    refuse(answer, use, vouched=settings.servers_are_distinct)
    if answer.how_many is HowMany.TWO:
        text = f"source and target are two servers: {answer.how}"
        yield Diagnosis(OK, "settings", text)
    else:
        yield Diagnosis(
            WARNING,
            "settings",
            f"the bridge cannot tell whether source and target are two servers: {answer.how}",
            "The bridge tries again before it moves anything. Until it can tell, it sends nothing "
            "to a target that may overwrite instances. Allow GET /changes there, or set "
            "BRIDGE_SERVERS_ARE_DISTINCT=true.",
        )


def _next_to_move(settings: Settings, source: SideClient) -> list[str]:
    """Return a few of what ``run`` would move first. Raises SideError."""
    checkpoint = None
    if there_may_be(settings.state_path):
        # An unusable state file is named by its own check.
        with suppress(StateError), Ledger(settings.state_path, create=False) as ledger:
            checkpoint = ledger.checkpoint()
    if checkpoint is None and settings.start == "now":
        return []
    if checkpoint is None and settings.start == "snapshot":
        return source.list_instances(0, SAMPLED)
    since = max(0, settings.start - 1) if isinstance(settings.start, int) else 0
    page = source.changes(
        since if checkpoint is None else checkpoint, ROWS_MAX, only_new_instances=True
    )
    return [row.resource_id for row in page.changes if row.change_type == NEW_INSTANCE][:SAMPLED]


def _marks(settings: Settings) -> Marks:
    """Return where the marks are on record that are set meanwhile."""
    if not there_may_be(settings.state_path):
        return NotOnRecord()
    opened = partial(Ledger, settings.state_path, create=False)
    return MarksAtBest(MarksOnRecord(opened, MarkedBy.COMMAND))


def check_retention(settings: Settings) -> Iterator[Diagnosis]:
    """Look for what stops BRIDGE_SOURCE_RETENTION, or would make it delete the only copy."""
    rules = settings.retention_rules()
    if rules is None:
        return
    source, target = (SideClient(settings.endpoint(side)) for side in SideName)
    try:
        here, there = source.system(), target.system()
        infos = here, there
        refusals = [] if here.read_only else list(_refusals(settings, rules, source, target, infos))
    except SideError:
        return  # said already
    finally:
        source.close()
        target.close()
    for error in refusals:
        yield Diagnosis(WARNING, "retention", error.message, error.advice)
    dangers = (
        (
            here.overwrite_instances,
            "OverwriteInstances is on at the source: an instance that arrives again at the moment "
            "of its deletion is lost",
            "Set OverwriteInstances to false at the source, or BRIDGE_SOURCE_RETENTION=keep.",
        ),
        (
            here.read_only,
            "the source is read-only: nothing can be deleted there",
            "Set ReadOnly to false at the source, or BRIDGE_SOURCE_RETENTION=keep.",
        ),
        (
            rules.retention_s < RETENTION_S_SENSIBLE,
            f"BRIDGE_SOURCE_RETENTION is {settings.source_retention}: that leaves little time to "
            "notice a problem with the target",
            "Set a day or more: then you can restore the target from a backup that lacks its last "
            "hours.",
        ),
    )
    for holds, message, advice in dangers:
        if holds:
            yield Diagnosis(WARNING, "retention", message, advice)
    yield from _verifying(settings, there)
    text = f"delivered instances are deleted from the source after {settings.source_retention}"
    yield Diagnosis(OK, "retention", text)


def check_mirror_deletions(settings: Settings) -> Iterator[Diagnosis]:
    """Look for what would make BRIDGE_MIRROR_DELETIONS delete the last copy."""
    if settings.mirror_deletions_after_s is None:
        return
    source, target = (SideClient(settings.endpoint(side)) for side in SideName)
    try:
        doubt = doubt_of(source.system(), target.system(), settings.accepted_risks)
    except SideError:
        return  # said already
    finally:
        source.close()
        target.close()
    if doubt is None:
        text = f"what the source has lacked is deleted at the target ({settings.mirror_deletions})"
        yield Diagnosis(OK, "mirror", text)
        return
    text, advice = SOURCE_DOUBTS[doubt]
    yield Diagnosis(WARNING, "mirror", text, advice)


def _refusals(
    settings: Settings,
    rules: RetentionRules,
    source: SideClient,
    target: SideClient,
    infos: tuple[ServerInfo, ServerInfo],
) -> Iterator[BridgeError]:
    """Tell what the sweeps would stop at. Raises SideError for a server that cannot be used.

    ``infos``: what source and target have just said of themselves.
    """
    here, there = infos
    told: set[str] = set()
    for ask in (
        lambda: refuse_target(rules, there),
        lambda: refuse_shared_database(rules, here, there),
    ):
        try:
            ask()
        except ConfigurationError as exc:
            told.add(exc.message)
            yield exc
    if not there_may_be(settings.state_path):
        return  # nothing was ever delivered from here
    try:
        with Ledger(settings.state_path, create=False) as ledger:
            sweeper = Sweeper(
                source,
                target,
                rules,
                token=newest_token(ledger),
                look_at_feed=lambda _: None,
            )
            for error in sweeper.refusals(ledger, now=AgeClock().now_s(ledger, keep=False)):
                if isinstance(error, ConfigurationError) and error.message not in told:
                    yield error
    except StateError:
        return  # the check of the state file says why


def _verifying(settings: Settings, target: ServerInfo) -> Iterator[Diagnosis]:
    """Whether the target verifies its files for us."""
    client = SideClient(settings.endpoint(SideName.TARGET))
    try:
        held = client.list_instances(0, 1)
        whole = client.verify_stored(held[0]) if held else True
    except (SideError, InstanceError) as exc:
        yield Diagnosis(
            WARNING,
            "retention",
            f"the target does not verify its files, so nothing will be deleted: {exc}",
            "Allow POST /instances/.../attachments/dicom/verify-md5 to the target's login.",
        )
        return
    finally:
        client.close()
    if not whole:
        yield Diagnosis(
            WARNING,
            "retention",
            f"the target's file of instance {held[0]} is damaged or lost",
            "Check the target's disk before anything is deleted at the source.",
        )
    yield Diagnosis(
        NOTE,
        "retention",
        f"Orthanc {target.version} does not report MaximumStorageCacheSize",
        "Check that it is 0 at the target. Otherwise the target may verify files that are only in "
        "its memory.",
    )

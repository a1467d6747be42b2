"""The two Orthancs: what they are, what we may do there, and what there can lose data.

Every right is probed by doing what the bridge does, as far as that leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath

from bridge.checks.ask_both_servers import inspector
from bridge.config import Settings
from bridge.doctor.diagnosis import ERROR, NOTE, OK, WARNING, Diagnosis, error_of
from bridge.errors import FeedWentBackwards, InstanceError, SideError, StateError
from bridge.feed.identity import check_reached
from bridge.feed.pages import can_be_late, filters_on_server
from bridge.ledger.lock import there_may_be
from bridge.ledger.store import Ledger
from bridge.model import CounterLag, ServerInfo, SideName, SideProblem
from bridge.orthanc import Need, OrthancClient, lacks_right

HEAD_BYTES = 1024
SKEW_S_MAX = 5.0
"""Clocks of servers are read in whole seconds, and the answer takes its time."""
HIDES_ITS_CLOCK = (SideProblem.FORBIDDEN, SideProblem.NOT_FOUND)
"""Any other problem is the server's as a whole, and was reported by the checks before."""
FILL_WARNING = 0.8
TELLS_LIMITS = (1, 12, 0)
"""From this version on /system has the limits of storage, OverwriteInstances and the like."""


def check_source(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the source can be followed and read. Raises SourceError."""
    with inspector(settings.endpoint(SideName.SOURCE)) as client:
        info = client.system()
        yield _identity("source", info, settings.source_url)
        yield _database_of_source(settings, info)
        last = client.last_change().last
        yield Diagnosis(OK, "source", f"the feed can be read; its newest change is {last}")
        checkpoint, lag = _followed(settings)
        yield from _same_feed(client, checkpoint, lag)
        if filters_on_server(info):
            how = "the source filters changes for the bridge"
        elif info.has_extended_changes and can_be_late(info):
            how = "the bridge filters changes itself, because rows may become visible late"
        elif info.has_extended_changes:
            how = "the bridge filters changes itself, to count what the source recycles unread"
        else:
            how = "the bridge filters changes itself, because this version of Orthanc cannot"
        yield Diagnosis(OK, "source", how)
        yield from _may_fetch(settings, client, checkpoint)
        if settings.retention_s is not None:
            client.may_delete()
            yield Diagnosis(OK, "source", "deletions are allowed (BRIDGE_SOURCE_RETENTION)")
        behind = None if checkpoint is None else max(0, last - checkpoint)
        yield from _source_limits(client, info, behind)


def check_target(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the target takes what we send, and as it is sent. Raises TargetError."""
    with inspector(settings.endpoint(SideName.TARGET)) as client:
        info = client.system()
        yield _identity("target", info, settings.target_url)
        yield Diagnosis(
            OK,
            "target",
            f"{_index(info)}; any database is fine, because the bridge does not read the target's "
            "feed",
        )
        if info.read_only:
            yield Diagnosis(
                ERROR,
                "target",
                "it is read-only and stores nothing",
                "Set ReadOnly to false in the target's configuration.",
                11,
            )
        else:
            client.may_store()
            yield Diagnosis(OK, "target", "uploads are allowed (tested without storing anything)")
        yield from _may_list_target(client)
    yield from _target_settings(info)
    yield from _overwriting(settings, info)


def check_clocks(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the clocks of both servers and this machine agree: lag is told by them."""
    for side in SideName:
        try:
            with inspector(settings.endpoint(side)) as client:
                ahead_s = (client.now() - datetime.now(UTC)).total_seconds()
        except SideError as exc:
            if exc.problem in HIDES_ITS_CLOCK:
                text = "its clock could not be read"
                yield Diagnosis(
                    NOTE, side, text, "Check that both machines are synchronised (NTP)."
                )
            continue
        if abs(ahead_s) <= SKEW_S_MAX:
            yield Diagnosis(OK, side, "its clock agrees with the clock of this machine")
            continue
        word = "ahead of" if ahead_s > 0 else "behind"
        yield Diagnosis(
            WARNING,
            side,
            f"its clock is {abs(ahead_s):.0f} s {word} the clock of this machine: lag in seconds, "
            "ages and log times are wrong by that much",
            "Synchronise both machines (NTP).",
        )


def _identity(side: str, info: ServerInfo, url: str) -> Diagnosis:
    plugins = "with" if info.plugins_enabled else "without"
    can = f"; it reports {', '.join(info.capabilities)}" if info.capabilities else ""
    text = f"Orthanc {info.version} at {url}, {plugins} support for plugins{can}"
    return Diagnosis(OK, side, text)


def _index(info: ServerInfo) -> str:
    """Name where a server has its index."""
    schema = "" if info.database_version is None else f", schema {info.database_version}"
    if info.database_backend is None:
        return f"its index is in SQLite{schema}"
    plugin = PurePath(info.database_backend).name or info.database_backend
    return f"its index is in the database of {plugin}{schema}"


def _database_of_source(settings: Settings, info: ServerInfo) -> Diagnosis:
    """Say what the source's database means for its feed."""
    if not can_be_late(info):
        text = "changes become visible in order"
        return Diagnosis(OK, "source", f"{_index(info)}: {text}")
    text = (
        "changes may become visible late (PostgreSQL plugin 7 or newer with many writers: by "
        "thousands of sequences and many seconds). The bridge asks for missing sequences for "
        f"{settings.feed_gap_hours:g} h (BRIDGE_FEED_GAP_HOURS)"
    )
    if settings.recount_interval_s:
        text += (
            f" and compares the source's count every {settings.recount_interval_s / 60:g} min "
            "(BRIDGE_RECOUNT_INTERVAL_S)"
        )
    else:
        text += "; nothing finds changes that become visible later (BRIDGE_RECOUNT_INTERVAL_S is 0)"
    advice = (
        "Nothing must be done. To avoid late changes: IndexConnectionsCount 1 at the source (one "
        "Orthanc on the database; slower), or TransactionMode Serializable (half the speed, and "
        "senders may get 503)."
    )
    return Diagnosis(NOTE, "source", f"{_index(info)}: {text}", advice)


def _may_list_target(client: OrthancClient) -> Iterator[Diagnosis]:
    """Whether the target shows what it holds: no move needs that, ``check`` does."""
    try:
        if client.list_instances(0, 1):
            yield Diagnosis(OK, "target", "instances can be listed")
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK):
            raise
        text = f"instances cannot be listed, which run does not need: {exc.message}"
        yield Diagnosis(NOTE, "target", text, "check needs it: allow GET on /instances for it.")


def _may_fetch(
    settings: Settings, client: OrthancClient, checkpoint: int | None
) -> Iterator[Diagnosis]:
    """Fetch the beginning of one instance. Raises SourceError."""
    try:
        listed = client.list_instances(0, 1)
    except SideError as exc:
        snapshot = settings.start == "snapshot" and checkpoint is None
        if snapshot or not lacks_right(exc, Need.LOOK):
            raise
        yield Diagnosis(
            NOTE,
            "source",
            "instances cannot be listed, so fetching one could not be tested; run follows the feed "
            f"without it: {exc.message}",
            "A snapshot and check need it, and so does the bridge to tell a file that is lost from "
            "an outage: allow GET on /instances.",
        )
        return
    if not listed:
        yield Diagnosis(
            NOTE,
            "source",
            "it holds no instance yet, so fetching one could not be tested",
            "Send one to it and run doctor again.",
        )
        return
    try:
        if settings.rules_file is not None:
            client.instance_metadata(listed[0])
        client.head(listed[0], HEAD_BYTES)
    except InstanceError as exc:
        yield Diagnosis(
            WARNING,
            "source",
            f"an instance is listed but cannot be fetched: {exc.message}",
            "If nobody deleted it just now, files are missing in the storage area of the source.",
        )
    else:
        yield Diagnosis(OK, "source", "instances can be listed and fetched")


def _followed(settings: Settings) -> tuple[int | None, CounterLag | None]:
    """The checkpoint, and where the source's counter was seen to stay; None for none."""
    if not there_may_be(settings.state_path):
        return None, None
    try:
        with Ledger(settings.state_path, create=False) as ledger:
            return ledger.checkpoint(), ledger.counter_lag()
    except StateError:
        return None, None  # the check of the state file says why


def _same_feed(
    client: OrthancClient, checkpoint: int | None, lag: CounterLag | None
) -> Iterator[Diagnosis]:
    if checkpoint is None:
        return
    try:
        check_reached(client, checkpoint, lag=lag)
    except FeedWentBackwards as exc:
        yield error_of("source", exc)


def _source_limits(
    client: OrthancClient, info: ServerInfo, behind: int | None
) -> Iterator[Diagnosis]:
    if not _tells_limits(info):
        yield Diagnosis(
            NOTE,
            "source",
            f"Orthanc {info.version} does not report its storage limits",
            "Check its configuration: MaximumStorageSize and MaximumPatientCount should be 0, or "
            "leave room for the longest outage.",
        )
        return
    limits = [
        text
        for text, value in (
            (f"MaximumStorageSize {info.maximum_storage_bytes} bytes", info.maximum_storage_bytes),
            (f"MaximumPatientCount {info.maximum_patient_count}", info.maximum_patient_count),
        )
        if value
    ]
    if not limits:
        yield Diagnosis(OK, "source", "it deletes no old instances (no storage limit)")
        return
    try:
        held = client.statistics()
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK):
            raise
        yield Diagnosis(
            WARNING,
            "source",
            f"it has a storage limit ({', '.join(limits)}), and how full it is could not be read: "
            f"{exc.message}",
            "Allow GET on /statistics, and run doctor again.",
        )
        return
    full = max(
        held.disk_bytes / info.maximum_storage_bytes if info.maximum_storage_bytes else 0.0,
        held.patients / info.maximum_patient_count if info.maximum_patient_count else 0.0,
    )
    lag = "" if behind is None else f"; the bridge is {behind} changes behind"
    state = f"{', '.join(limits)}, {full:.0%} full{lag}"
    if info.maximum_storage_mode == "Reject":
        level = WARNING if full >= FILL_WARNING else OK
        yield Diagnosis(level, "source", f"it refuses new instances when it is full: {state}")
        return
    level = ERROR if full >= FILL_WARNING and behind else WARNING
    yield Diagnosis(
        level,
        "source",
        f"it recycles: instances can be deleted before they are moved ({state})",
        "Raise the limit above what the longest outage needs, or set MaximumStorageMode to Reject.",
        10,
    )


def _target_settings(info: ServerInfo) -> Iterator[Diagnosis]:
    if not _tells_limits(info):
        yield Diagnosis(
            NOTE,
            "target",
            f"Orthanc {info.version} does not report its storage limits and transcoding",
            "Check its configuration: it should have no IngestTranscoding and no "
            "MaximumStorageSize.",
        )
    if info.ingest_transcoding:
        yield Diagnosis(
            WARNING,
            "target",
            f"IngestTranscoding is {info.ingest_transcoding}: it changes what the "
            "bridge sends, does not report failures, and has crashed under load",
            "Remove IngestTranscoding from the target's configuration.",
        )
    if (info.maximum_storage_bytes or info.maximum_patient_count) and (
        info.maximum_storage_mode != "Reject"
    ):
        yield Diagnosis(
            WARNING,
            "target",
            "it recycles: old instances are deleted when new ones arrive",
            "If that is not intended, raise MaximumStorageSize and MaximumPatientCount.",
        )


def _overwriting(settings: Settings, target: ServerInfo) -> Iterator[Diagnosis]:
    with inspector(settings.endpoint(SideName.SOURCE)) as client:
        source = client.system()
    if source.overwrite_instances is None or target.overwrite_instances is None:
        yield Diagnosis(
            NOTE,
            "target",
            "not both servers report OverwriteInstances",
            "Check that it is the same in both configurations.",
        )
    elif source.overwrite_instances and not target.overwrite_instances:
        yield Diagnosis(
            WARNING,
            "target",
            "OverwriteInstances is on at the source and off at the target: when an instance is "
            "sent again, the target keeps the first version",
            "Set it to the same value on both servers.",
        )
    else:
        yield Diagnosis(OK, "target", "OverwriteInstances is set safely on both servers")


def _tells_limits(info: ServerInfo) -> bool:
    numbers = tuple(int(part) for part in info.version.split(".") if part.isdigit())
    # "mainline" is a development version, newer than all.
    return numbers >= TELLS_LIMITS or not numbers

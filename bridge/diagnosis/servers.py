"""The two Orthancs: what they are, what we may do there, and what there can lose data.

Every right is probed by doing what the bridge does, as far as that leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from bridge.config import Settings
from bridge.core.errors import FeedWentBackwards, InstanceError, SideError, StateError
from bridge.core.model import ServerInfo, SideName
from bridge.diagnosis.finding import ERROR, OK, WARNING, Diagnosis, error_of
from bridge.feed_reader import check_counter, filters_on_server
from bridge.ledger import Ledger
from bridge.lookers import inspector
from bridge.orthanc import InspectionClient
from bridge.state_file import there_may_be

HEAD_BYTES = 1024
SKEW_S_MAX = 5.0
"""Clocks of servers are read in whole seconds, and the answer takes its time."""
FILL_WARNING = 0.8
TELLS_LIMITS = (1, 12, 0)
"""From this version on /system has the limits of storage, OverwriteInstances and the like."""


def check_source(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the source can be followed and read. Raises SourceError."""
    with inspector(settings.endpoint(SideName.SOURCE)) as client:
        info = client.system()
        yield _identity("source", info, settings.source_url)
        last = client.last_change().last
        yield Diagnosis(OK, "source", f"the feed can be read; its last change is {last}")
        checkpoint = _checkpoint(settings)
        yield from _same_feed(client, checkpoint)
        if filters_on_server(info):
            how = "on the server"
        elif info.has_extended_changes:
            how = "here (it recycles, and what it drops unread must be counted)"
        else:
            how = "here (the server cannot)"
        yield Diagnosis(OK, "source", f"changes are filtered {how}")
        yield from _may_fetch(client)
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
        if info.read_only:
            yield Diagnosis(
                ERROR,
                "target",
                "it is read-only and will store nothing",
                "Set ReadOnly to false in the target's configuration.",
                11,
            )
        else:
            client.may_store()
            yield Diagnosis(OK, "target", "uploads are allowed (probed; nothing was stored)")
        if client.list_instances(0, 1):
            yield Diagnosis(OK, "target", "instances can be listed")
    yield from _target_settings(info)
    yield from _overwriting(settings, info)


def check_clocks(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the clocks of both servers and this machine agree: lag is told by them."""
    for side in SideName:
        try:
            with inspector(settings.endpoint(side)) as client:
                ahead_s = (client.now() - datetime.now(UTC)).total_seconds()
        except SideError:
            # A server that is down was reported before; one that only hides its clock serves us.
            yield Diagnosis(OK, side, "its clock could not be read and was not compared")
            continue
        if abs(ahead_s) <= SKEW_S_MAX:
            yield Diagnosis(OK, side, "its clock agrees with ours")
            continue
        word = "ahead of" if ahead_s > 0 else "behind"
        yield Diagnosis(
            WARNING,
            side,
            f"its clock is {abs(ahead_s):.0f} s {word} ours: lag in seconds, ages and the times "
            "of logs are wrong by that much",
            "Synchronise both machines (NTP).",
        )


def _identity(side: str, info: ServerInfo, url: str) -> Diagnosis:
    backend = info.database_backend or "SQLite"
    plugins = "on" if info.plugins_enabled else "off"
    text = f"Orthanc {info.version} at {url} (index {backend}, plugins {plugins})"
    return Diagnosis(OK, side, text)


def _may_fetch(client: InspectionClient) -> Iterator[Diagnosis]:
    """Fetch the beginning of one instance."""
    listed = client.list_instances(0, 1)
    if not listed:
        yield Diagnosis(
            OK, "source", "it holds no instance: whether we may fetch could not be tried"
        )
        return
    try:
        client.instance_metadata(listed[0])
        client.head(listed[0], HEAD_BYTES)
    except InstanceError as exc:
        yield Diagnosis(
            WARNING,
            "source",
            f"an instance is listed and cannot be fetched: {exc.message}",
            "If it was not deleted a moment ago, the storage area lacks files of the index.",
        )
    else:
        yield Diagnosis(OK, "source", "instances can be listed and fetched")


def _checkpoint(settings: Settings) -> int | None:
    """The checkpoint; None when there is none."""
    if not there_may_be(settings.state_path):
        return None
    try:
        with Ledger(settings.state_path, create=False) as ledger:
            return ledger.checkpoint()
    except StateError:
        return None  # the check of the state file says why


def _same_feed(client: InspectionClient, checkpoint: int | None) -> Iterator[Diagnosis]:
    if checkpoint is None:
        return
    page = client.changes(checkpoint, 1, only_new_instances=False)
    try:
        check_counter(page.last, position=checkpoint)
    except FeedWentBackwards as exc:
        yield error_of("source", exc)


def _source_limits(
    client: InspectionClient, info: ServerInfo, behind: int | None
) -> Iterator[Diagnosis]:
    if not _tells_limits(info):
        yield Diagnosis(
            OK,
            "source",
            f"Orthanc {info.version} does not tell its limits: make sure that its configuration "
            "has neither MaximumStorageSize nor MaximumPatientCount, or that they leave room for "
            "the longest outage",
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
        yield Diagnosis(OK, "source", "it recycles nothing")
        return
    held = client.statistics()
    full = max(
        held.disk_bytes / info.maximum_storage_bytes if info.maximum_storage_bytes else 0.0,
        held.patients / info.maximum_patient_count if info.maximum_patient_count else 0.0,
    )
    lag = "" if behind is None else f"; we are {behind} changes behind"
    state = f"{', '.join(limits)}, {full:.0%} full{lag}"
    if info.maximum_storage_mode == "Reject":
        level = WARNING if full >= FILL_WARNING else OK
        yield Diagnosis(level, "source", f"it refuses new instances when it is full: {state}")
        return
    level = ERROR if full >= FILL_WARNING and behind else WARNING
    yield Diagnosis(
        level,
        "source",
        f"it recycles: instances can vanish before they are moved ({state})",
        "Make the limit larger than the longest outage needs, or set MaximumStorageMode to Reject.",
        10,
    )


def _target_settings(info: ServerInfo) -> Iterator[Diagnosis]:
    if not _tells_limits(info):
        yield Diagnosis(
            OK,
            "target",
            f"Orthanc {info.version} does not tell these settings: make sure that its "
            "configuration has no IngestTranscoding and no MaximumStorageSize",
        )
    if info.ingest_transcoding:
        yield Diagnosis(
            WARNING,
            "target",
            f"IngestTranscoding is {info.ingest_transcoding}: it changes what we send, without "
            "saying so when it fails, and has crashed under load",
            "Remove IngestTranscoding from the target's configuration.",
        )
    if (info.maximum_storage_bytes or info.maximum_patient_count) and (
        info.maximum_storage_mode != "Reject"
    ):
        yield Diagnosis(
            WARNING,
            "target",
            "it recycles: old instances vanish when new ones arrive",
            "Intended? Otherwise raise MaximumStorageSize and MaximumPatientCount.",
        )


def _overwriting(settings: Settings, target: ServerInfo) -> Iterator[Diagnosis]:
    with inspector(settings.endpoint(SideName.SOURCE)) as client:
        source = client.system()
    if source.overwrite_instances is None or target.overwrite_instances is None:
        yield Diagnosis(
            OK,
            "target",
            "not both servers tell OverwriteInstances: it should be the same on both",
        )
    elif source.overwrite_instances and not target.overwrite_instances:
        yield Diagnosis(
            WARNING,
            "target",
            "OverwriteInstances is on at the source and off here: an instance that is sent again "
            "is a new change, and the target keeps the first version",
            "Set it alike on both servers.",
        )
    else:
        yield Diagnosis(OK, "target", "OverwriteInstances loses nothing")


def _tells_limits(info: ServerInfo) -> bool:
    numbers = tuple(int(part) for part in info.version.split(".") if part.isdigit())
    # "mainline" is a development version, newer than all.
    return numbers >= TELLS_LIMITS or not numbers

"""What ``doctor`` finds: each check tells what it saw and what to do about it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bridge.config import Settings, load_settings, unknown_variables
from bridge.core.codecs import DECODERS
from bridge.core.errors import BridgeError, ConfigurationError, InstanceError, SideError
from bridge.core.model import ServerInfo, SideName
from bridge.ledger import Ledger, there_may_be
from bridge.selftest import decode_sample
from bridge.sides import SideClient

OK = "ok"
WARNING = "warning"
ERROR = "error"
FREE_BYTES_MIN = 1024**3
RETENTION_S_SENSIBLE = 3600.0


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding. ``level`` is ok, warning or error; ``exit_code`` counts for errors."""

    level: str
    subject: str
    message: str
    advice: str = ""
    exit_code: int = 0


def diagnose() -> list[Diagnosis]:
    """Check everything that can be checked; without valid settings, only those and decoders."""
    found: list[Diagnosis] = []
    try:
        settings = load_settings()
    except ConfigurationError as exc:
        found.append(_error("settings", exc))
    else:
        found.append(Diagnosis(OK, "settings", "valid"))
        found.extend(_unknown_settings())
        for check in (_source, _target, _state, _spool, _retention):
            found.extend(_guarded(check, settings))
    found.extend(_decoders())
    return found


def _guarded(
    check: Callable[[Settings], Iterator[Diagnosis]], settings: Settings
) -> Iterator[Diagnosis]:
    try:
        yield from check(settings)
    except SideError as exc:
        yield _error(exc.side, exc)
    except BridgeError as exc:
        yield _error("state", exc)


def _error(subject: str, exc: BridgeError) -> Diagnosis:
    return Diagnosis(ERROR, subject, exc.message, exc.advice, exc.exit_code)


def _unknown_settings() -> Iterator[Diagnosis]:
    for name, meant in unknown_variables():
        advice = f"Did you mean {meant}?" if meant else "Remove it."
        yield Diagnosis(WARNING, "settings", f"{name} is not a setting and has no effect", advice)


def _source(settings: Settings) -> Iterator[Diagnosis]:
    client = SideClient(settings.endpoint(SideName.SOURCE))
    try:
        info = client.system()
        yield Diagnosis(OK, "source", f"Orthanc {info.version} at {settings.source_url}")
        last = client.last_change().last
        yield Diagnosis(OK, "source", f"the feed can be read; its last change is {last}")
        how = "on the server" if info.has_extended_changes else "here (the server cannot)"
        yield Diagnosis(OK, "source", f"changes are filtered {how}")
        if client.list_instances(0, 1):
            yield Diagnosis(OK, "source", "instances can be listed")
    finally:
        client.close()
    yield from _source_limits(info)


def _source_limits(info: ServerInfo) -> Iterator[Diagnosis]:
    limits = [
        text
        for text, value in (
            (f"MaximumStorageSize {info.maximum_storage_bytes} bytes", info.maximum_storage_bytes),
            (f"MaximumPatientCount {info.maximum_patient_count}", info.maximum_patient_count),
        )
        if value
    ]
    if limits and info.maximum_storage_mode != "Reject":
        yield Diagnosis(
            WARNING,
            "source",
            f"it recycles ({', '.join(limits)}): instances can vanish before they are moved",
            "Make the limit larger than the longest outage needs, or set MaximumStorageMode "
            "to Reject.",
        )
    if info.overwrite_instances:
        yield Diagnosis(
            WARNING,
            "source",
            "OverwriteInstances is on: a resent instance is a new change, and the target keeps "
            "the first version unless it overwrites too",
        )


def _target(settings: Settings) -> Iterator[Diagnosis]:
    client = SideClient(settings.endpoint(SideName.TARGET))
    try:
        info = client.system()
    finally:
        client.close()
    yield Diagnosis(OK, "target", f"Orthanc {info.version} at {settings.target_url}")
    if info.ingest_transcoding:
        yield Diagnosis(
            WARNING,
            "target",
            f"IngestTranscoding is {info.ingest_transcoding}: it changes what we send, without "
            "saying so when it fails, and has crashed under load",
            "Remove IngestTranscoding from the target's configuration.",
        )
    if info.maximum_storage_bytes and info.maximum_storage_mode != "Reject":
        yield Diagnosis(
            WARNING,
            "target",
            "it recycles: old instances vanish when new ones arrive",
            "Intended? Otherwise raise MaximumStorageSize.",
        )
    if info.read_only:
        yield Diagnosis(
            ERROR,
            "target",
            "it is read-only and will store nothing",
            "Set ReadOnly to false in the target's configuration.",
            11,
        )


def _state(settings: Settings) -> Iterator[Diagnosis]:
    path = settings.state_path
    existed = there_may_be(path)
    with Ledger(path) as ledger:
        checkpoint = ledger.checkpoint()
        parked = sum(ledger.parked_by_reason().values())
    what = f"checkpoint {checkpoint}, {parked} parked" if existed else "new"
    yield Diagnosis(OK, "state", f"{path} can be used ({what})")
    yield from _free_space("state", path.parent, "BRIDGE_STATE_PATH")


def _spool(_settings: Settings) -> Iterator[Diagnosis]:
    yield from _free_space("spool", Path(tempfile.gettempdir()), "TMPDIR")


def _free_space(subject: str, directory: Path, setting: str) -> Iterator[Diagnosis]:
    free = shutil.disk_usage(directory).free
    text = f"{free // 1024**2} MB free in {directory}"
    if not os.access(directory, os.W_OK):
        yield Diagnosis(ERROR, subject, f"{directory} is not writable", f"Change {setting}.", 12)
    elif free < FREE_BYTES_MIN:
        yield Diagnosis(WARNING, subject, text, f"Free space there, or move it with {setting}.")
    else:
        yield Diagnosis(OK, subject, text)


def _retention(settings: Settings) -> Iterator[Diagnosis]:
    """Look for what would make BRIDGE_SOURCE_RETENTION delete the only copy."""
    retention_s = settings.retention_s
    if retention_s is None:
        return
    ends, infos = {}, {}
    for side in SideName:
        client = SideClient(settings.endpoint(side))
        try:
            infos[side], ends[side] = client.system(), client.last_change()
        except SideError:
            return  # said already
        finally:
            client.close()
    source, target = infos[SideName.SOURCE], infos[SideName.TARGET]
    changes = ends[SideName.SOURCE].changes
    dangers = (
        (
            changes and changes == ends[SideName.TARGET].changes,
            "the feeds of source and target end with the same change: is it one server behind two "
            "addresses?",
            "Compare BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL. The bridge makes sure before it "
            "deletes.",
        ),
        (
            target.maximum_storage_bytes and target.maximum_storage_mode != "Reject",
            "the target recycles: what was deleted at the source would then be nowhere",
            "Set MaximumStorageMode to Reject at the target, or BRIDGE_SOURCE_RETENTION=keep.",
        ),
        (
            source.overwrite_instances,
            "OverwriteInstances is on at the source: an instance that is sent again in the very "
            "moment of its deletion is lost",
            "Set OverwriteInstances to false at the source, or BRIDGE_SOURCE_RETENTION=keep.",
        ),
        (
            source.read_only,
            "the source is read-only: nothing can be deleted there",
            "Set ReadOnly to false at the source, or BRIDGE_SOURCE_RETENTION=keep.",
        ),
        (
            retention_s < RETENTION_S_SENSIBLE,
            f"BRIDGE_SOURCE_RETENTION is {settings.source_retention}: that leaves little time to "
            "notice that something is wrong with the target",
            "A day or more also bridges the loss of the target's last hours, before its backup.",
        ),
    )
    for holds, message, advice in dangers:
        if holds:
            yield Diagnosis(WARNING, "retention", message, advice)
    text = f"delivered instances are deleted from the source after {settings.source_retention}"
    yield Diagnosis(OK, "retention", text)


def _decoders() -> Iterator[Diagnosis]:
    for family, decoders in DECODERS.items():
        names = ", ".join(decoder.name for decoder in decoders)
        try:
            decode_sample(family)
        except InstanceError as exc:
            yield Diagnosis(
                ERROR, "decoders", f"{family}: {exc.message}", "Reinstall orthanc-bridge.", 1
            )
        else:
            yield Diagnosis(OK, "decoders", f"{family}: {names}")

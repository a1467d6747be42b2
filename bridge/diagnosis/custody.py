"""What would make the target's copy no copy, or BRIDGE_SOURCE_RETENTION delete the only one."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.config import Settings
from bridge.core.errors import InstanceError, SideError
from bridge.core.model import ServerInfo, SideName
from bridge.diagnosis.finding import OK, WARNING, Diagnosis
from bridge.lookers import inspector
from bridge.sides import SideClient

RETENTION_S_SENSIBLE = 3600.0


def check_two_servers(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the two addresses lead to one server: all would be there already, and never move."""
    if settings.retention_s is not None:
        return  # asked below
    ends = []
    for side in SideName:
        with inspector(settings.endpoint(side)) as client:
            try:
                ends.append(client.last_change().changes)
            except SideError:
                return  # said already; the target's feed is not ours to read otherwise
    if ends[0] and ends[0] == ends[1]:
        yield Diagnosis(
            WARNING,
            "target",
            "its feed ends with the same change as the source's: is it one server behind two "
            "addresses? Everything would seem to be there already, and nothing would be moved",
            "Compare BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL.",
        )


def check_retention(settings: Settings) -> Iterator[Diagnosis]:
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
    yield from _verifying(settings, target)
    text = f"delivered instances are deleted from the source after {settings.source_retention}"
    yield Diagnosis(OK, "retention", text)


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
            f"the target does not verify its files for us, so nothing will be deleted: {exc}",
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
            "Look after the target's disk before anything is deleted at the source.",
        )
    yield Diagnosis(
        OK,
        "retention",
        f"Orthanc {target.version} does not tell MaximumStorageCacheSize: make sure that it is 0 "
        "at the target, or it may verify files that only its memory has",
    )

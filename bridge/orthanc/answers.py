"""What Orthanc's answers must look like, and the values they become.

Whatever is not as expected raises WrongAnswer with a text that quotes no content: the other end
may be any program, and its answer may hold anything.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from bridge.core.model import Change, Page, ServerInfo, StoreAnswer

INSTANCE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
TEXT_CHARACTERS_MAX = 256
MEBIBYTE = 1024 * 1024

_T = TypeVar("_T")

_RESOURCE_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_SIZE = re.compile(r"[0-9]{1,18}")


class WrongAnswer(ValueError):
    """An answer that Orthanc would not give; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ``/statistics`` tells. Sizes in bytes, of the attachments of every level."""

    instances: int
    series: int
    studies: int
    patients: int
    disk_bytes: int
    uncompressed_bytes: int


@dataclass(frozen=True, slots=True)
class OrthancFault:
    """Orthanc's own description of an error, without its ``Details``, which may quote data."""

    status: int
    text: str
    uri: str = ""


def parse_json(body: bytes) -> Any:  # noqa: ANN401  (JSON is anything until it is checked)
    """Parse a JSON answer; raises WrongAnswer for anything else, absurd nesting included."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise WrongAnswer("the body is not JSON") from None


def parse_fault(body: bytes) -> OrthancFault | None:
    """Read Orthanc's JSON error body; None when it is something else."""
    try:
        answer = parse_json(body)
        fields = _object(answer)
        text = _text(fields, "OrthancError")
        uri = fields.get("Uri")
        return OrthancFault(
            status=_integer(fields, "OrthancStatus"),
            text=re.sub(r"[^\x20-\x7e]", "?", text),
            uri=uri if isinstance(uri, str) else "",
        )
    except WrongAnswer:
        return None


def parse_system(body: bytes) -> ServerInfo:
    """``/system``. Fields that older versions do not have become None."""
    fields = _object(parse_json(body))
    capabilities = fields.get("Capabilities")
    megabytes = _optional(fields, "MaximumStorageSize", int)
    return ServerInfo(
        version=_text(fields, "Version"),
        api_version=_integer(fields, "ApiVersion"),
        has_extended_changes=isinstance(capabilities, dict)
        and capabilities.get("HasExtendedChanges") is True,
        name=_optional(fields, "Name", str) or "",
        plugins_enabled=fields.get("PluginsEnabled") is True,
        database_backend=_optional(fields, "DatabaseBackendPlugin", str),
        overwrite_instances=_optional(fields, "OverwriteInstances", bool),
        maximum_storage_bytes=None if megabytes is None else megabytes * MEBIBYTE,
        maximum_patient_count=_optional(fields, "MaximumPatientCount", int),
        maximum_storage_mode=_optional(fields, "MaximumStorageMode", str),
        ingest_transcoding=_optional(fields, "IngestTranscoding", str),
        read_only=_optional(fields, "ReadOnly", bool),
        storage_compression=_optional(fields, "StorageCompression", bool),
    )


def parse_changes(body: bytes, *, since: int | None, rows_max: int) -> Page:
    """Parse ``/changes``: at most ``rows_max`` rows, ascending, all above ``since`` if given."""
    fields = _object(parse_json(body))
    rows = fields.get("Changes")
    if not isinstance(rows, list):
        raise WrongAnswer("it has no list of Changes")
    if len(rows) > rows_max:
        raise WrongAnswer(f"{len(rows)} rows where at most {rows_max} were asked for")
    changes = tuple(_change(row) for row in rows)
    above = since
    for change in changes:
        if above is not None and change.sequence <= above:
            raise WrongAnswer(f"Seq {change.sequence} follows {above}: not ascending")
        above = change.sequence
    done = fields.get("Done")
    if not isinstance(done, bool):
        raise WrongAnswer("Done is not true or false")
    last = _integer(fields, "Last")
    return Page(changes=changes, done=done, last=last)


def parse_store(body: bytes) -> StoreAnswer:
    """Parse the answer to ``POST /instances``."""
    fields = _object(parse_json(body))
    instance_id = _text(fields, "ID")
    if not INSTANCE_ID.fullmatch(instance_id):
        raise WrongAnswer("ID is not an Orthanc identifier")
    study = fields.get("ParentStudy")
    told = isinstance(study, str) and INSTANCE_ID.fullmatch(study)
    return StoreAnswer(
        instance_id=instance_id, status=_text(fields, "Status"), study_id=str(study) if told else ""
    )


def parse_metadata(body: bytes) -> dict[str, str]:
    """``/instances/{id}/metadata?expand``: names and values, both text."""
    fields = _object(parse_json(body))
    if not all(isinstance(value, str) for value in fields.values()):
        raise WrongAnswer("a metadata value is not text")
    return fields


def parse_instance_ids(body: bytes, *, rows_max: int) -> list[str]:
    """``/instances?since=&limit=``: identifiers only."""
    rows = parse_json(body)
    if not isinstance(rows, list):
        raise WrongAnswer("the body is not a list")
    if len(rows) > rows_max:
        raise WrongAnswer(f"{len(rows)} rows where at most {rows_max} were asked for")
    if not all(isinstance(row, str) and INSTANCE_ID.fullmatch(row) for row in rows):
        raise WrongAnswer("a row is not an Orthanc identifier")
    return rows


def parse_statistics(body: bytes) -> Statistics:
    """``/statistics``, where sizes are numbers written as text."""
    fields = _object(parse_json(body))
    sizes = []
    for name in ("TotalDiskSize", "TotalUncompressedSize"):
        text = _text(fields, name)
        if not _SIZE.fullmatch(text):
            raise WrongAnswer(f"{name} is not a size")
        sizes.append(int(text))
    return Statistics(
        instances=_integer(fields, "CountInstances"),
        series=_integer(fields, "CountSeries"),
        studies=_integer(fields, "CountStudies"),
        patients=_integer(fields, "CountPatients"),
        disk_bytes=sizes[0],
        uncompressed_bytes=sizes[1],
    )


def parse_md5(body: bytes) -> str:
    """Parse an MD5 as text: 32 lower-case hexadecimal digits."""
    text = body.decode("ascii", "replace").strip()
    if not _MD5.fullmatch(text):
        raise WrongAnswer("the body is not an MD5")
    return text


def parse_deleted(body: bytes) -> None:
    """Check the answer to a deletion."""
    if "RemainingAncestor" not in _object(parse_json(body)):
        raise WrongAnswer("it does not say that it has deleted anything")


def parse_verified(body: bytes) -> None:
    """Check the answer to ``verify-md5``."""
    if parse_json(body) != {}:
        raise WrongAnswer("it does not say that it has verified anything")


def parse_size(body: bytes) -> int:
    """Parse a number of bytes as text."""
    text = body.decode("ascii", "replace").strip()
    if not _SIZE.fullmatch(text):
        raise WrongAnswer("the body is not a size")
    return int(text)


def parse_moment(body: bytes) -> datetime:
    """Parse ``/tools/now``: ``YYYYMMDDTHHMMSS``."""
    try:
        return datetime.strptime(body.decode("ascii", "replace").strip(), "%Y%m%dT%H%M%S")
    except ValueError:
        raise WrongAnswer("the body is not a time") from None


def parse_lookup(body: bytes) -> list[tuple[str, str]]:
    """``/tools/lookup``: level and Orthanc ID of each resource found."""
    rows = parse_json(body)
    if not isinstance(rows, list):
        raise WrongAnswer("the body is not a list")
    return [(_text(_object(row), "Type"), _identifier(_text(row, "ID"))) for row in rows]


def parse_children(body: bytes, name: str) -> list[str]:
    """``/studies/{id}`` and ``/series/{id}``: the Orthanc IDs listed under ``name``."""
    rows = _object(parse_json(body)).get(name)
    if not isinstance(rows, list):
        raise WrongAnswer(f"it has no list of {name}")
    return [_identifier(row) for row in rows]


def _identifier(value: object) -> str:
    if not isinstance(value, str) or not INSTANCE_ID.fullmatch(value):
        raise WrongAnswer("an ID is not an Orthanc identifier")
    return value


def _change(row: object) -> Change:
    fields = _object(row)
    resource_id = _text(fields, "ID")
    if not _RESOURCE_ID.fullmatch(resource_id):
        raise WrongAnswer("the ID of a row is not an identifier")
    return Change(
        sequence=_integer(fields, "Seq"),
        change_type=_text(fields, "ChangeType"),
        resource_id=resource_id,
        date=_text(fields, "Date"),
    )


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongAnswer("it is not a JSON object")
    return value


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_CHARACTERS_MAX:
        raise WrongAnswer(f"{name} is missing, empty or not text")
    return value


def _integer(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WrongAnswer(f"{name} is missing or not a whole number from 0 up")
    return value


def _optional(fields: dict[str, Any], name: str, kind: type[_T]) -> _T | None:
    value = fields.get(name)
    return value if isinstance(value, kind) else None

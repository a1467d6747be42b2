"""What Orthanc's answers must look like, and the values they become.

Everything that a server says enters here, and is bounded and made valid here, once: numbers by a
range, texts by a length, in valid Unicode and without what acts on a terminal, identifiers by the
form that Orthanc gives them. Whatever is not as expected raises WrongAnswer with a text that
quotes no content: the other end may be any program, and its answer may hold anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.alias_generators import to_pascal

from bridge.model import Change, Described, Page, ResourceKind, ServerInfo, StoreAnswer, StudyState
from bridge.untrusted_text import TEXT_CHARACTERS_MAX, cleaned, shortened, valid, visible

INSTANCE_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
"""What Orthanc names any resource by: a SHA-1 in five groups."""
SEQUENCE_MAX = 2**53 - 1
"""Of a change: what JSON carries exactly, and what a database's 64 bits hold with room to spare."""
COUNT_MAX = 2**53 - 1
SHOWN_CHARACTERS_MAX = 2 * TEXT_CHARACTERS_MAX
"""Of a text in which something had to be written out."""
MEBIBYTE = 1024 * 1024
CAPABILITIES_MAX = 20
METADATA_MAX = 1_000
PEERS_MAX = 10_000
ROW_VALUES_MAX = 16
"""Of JSON, in one row of a page: Orthanc's have seven, and their names are not counted."""
VALUE_BYTES_MIN = 16
"""Of a list without a known number of rows: so many bytes of it for each value, on average."""
FEW_VALUES = 4096
"""So many values are in order in any answer."""
METADATA_CHARACTERS_MAX = 4 * TEXT_CHARACTERS_MAX
"""Orthanc's own metadata are short; what users add is read whole by ``parse_resources`` only."""
LABELS_MAX = 1_000

_T = TypeVar("_T")

_MD5 = re.compile(r"[0-9a-f]{32}")
_SIZE = re.compile(r"[0-9]{1,18}")
_ETAG = re.compile(r'"[0-9]{1,20}-[0-9a-f]{32}"')
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}(?:\.[0-9]{1,9})?")


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
class Resource:
    """A resource, and what a server tells beside its files. Texts are a user's: never log them.

    ``labels`` None: the server has none (before 1.12). ``metadata``: a byte that is no UTF-8 is
    told as U+FFFD. ``file``: of an instance, the name of its file; another version has another one.
    """

    kind: ResourceKind
    resource_id: str
    labels: tuple[str, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    file: str = ""


KINDS = {
    "Patient": ResourceKind.PATIENT,
    "Study": ResourceKind.STUDY,
    "Series": ResourceKind.SERIES,
    "Instance": ResourceKind.INSTANCE,
}
"""As Orthanc calls them in an answer, and in its routes."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What ``/attachments/dicom/info`` tells. ``uuid``: the name of the file in its storage area.

    ``md5``: as noted at its arrival, before any compression; "" where the server notes none.
    """

    uuid: str
    md5: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class OrthancFault:
    """Orthanc's own description of an error, without its ``Details``, which may quote data."""

    status: int
    text: str
    uri: str = ""


def _shown(value: object) -> object:
    """Make a text fit to be kept and shown; leave anything else for the types to refuse."""
    return _fit(value) if isinstance(value, str) else value


def _fit(text: str) -> str:
    return shortened(visible(cleaned(text)), SHOWN_CHARACTERS_MAX)


def _of_kind(kind: type[_T]) -> Callable[[object], _T | None]:
    """Take a value of the wrong kind as one that is not told: older versions lack it, too."""

    def taken(value: object) -> _T | None:
        return value if isinstance(value, kind) else None

    return taken


def _count_or_none(value: object) -> int | None:
    """Take a number out of range as one that is not told."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX
    return value if fits and isinstance(value, int) else None


def _date_or_nothing(text: str) -> str:
    return text if _DATE.fullmatch(text) else ""


def _must_be_short(value: object) -> object:
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS_MAX:
        raise ValueError("too long")
    return value


def _is_identifier(text: str) -> str:
    if not INSTANCE_ID.fullmatch(text):
        raise ValueError("not an Orthanc identifier")
    return text


def _size(value: object) -> int:
    if not isinstance(value, str) or not _SIZE.fullmatch(value):
        raise ValueError("not a size")
    return int(value)


Text = Annotated[str, Field(min_length=1), BeforeValidator(_shown), BeforeValidator(_must_be_short)]
"""A text that must be there. One that is too long is no text of Orthanc's."""
Told = Annotated[str | None, BeforeValidator(_shown), BeforeValidator(_of_kind(str))]
"""A text that may be missing."""
Flag = Annotated[bool | None, BeforeValidator(_of_kind(bool))]
Limit = Annotated[int | None, BeforeValidator(_count_or_none)]
Sequence = Annotated[int, Field(ge=0, le=SEQUENCE_MAX)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Identifier = Annotated[str, AfterValidator(_is_identifier)]
Size = Annotated[int, BeforeValidator(_size)]


Rows = Annotated[list[_T], FailFast()]
"""The first mistake is enough: each one is kept as an object, and an answer may be all mistakes."""


class _Answer(BaseModel):
    """An object of JSON. What is not named here is not looked at."""

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        alias_generator=to_pascal,
    )


class _Fault(_Answer):
    orthanc_status: Count
    orthanc_error: Annotated[str, Field(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
    uri: Told = None


class _System(_Answer):
    version: Text
    api_version: Count
    capabilities: Annotated[dict[str, Any] | None, BeforeValidator(_of_kind(dict))] = None
    name: Told = None
    plugins_enabled: Flag = None
    database_backend_plugin: Told = None
    database_version: Limit = None
    overwrite_instances: Flag = None
    maximum_storage_size: Limit = None
    maximum_patient_count: Limit = None
    maximum_storage_mode: Told = None
    ingest_transcoding: Told = None
    read_only: Flag = None
    storage_compression: Flag = None
    user_metadata: Annotated[dict[str, Any] | None, BeforeValidator(_of_kind(dict))] = None


class _Row(_Answer):
    seq: Sequence
    change_type: Text
    id: Annotated[Text, Field(alias="ID")]
    date: Text


class _Changes(_Answer):
    changes: Rows[_Row]
    done: bool
    last: Sequence


class _Stored(_Answer):
    id: Annotated[Identifier, Field(alias="ID")]
    status: Text
    parent_study: Told = None


class _Statistics(_Answer):
    count_instances: Count
    count_series: Count
    count_studies: Count
    count_patients: Count
    total_disk_size: Size
    total_uncompressed_size: Size


class _File(_Answer):
    uuid: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,128}$")]
    uncompressed_md5: Annotated[
        str, Field(alias="UncompressedMD5", pattern=r"^([0-9a-f]{32})?$")
    ] = ""
    uncompressed_size: Count


class _Resource(_Answer):
    id: Annotated[Identifier, Field(alias="ID")]


class _Bulk(_Answer):
    id: Annotated[Identifier, Field(alias="ID")]
    metadata: dict[str, Any]
    file_size: Annotated[int | None, BeforeValidator(_count_or_none)] = None


DICOM_FILE = 1
"""The attachment that is the instance's file, by Orthanc's number for it."""


class _Attached(_Answer):
    content_type: int | str
    uncompressed_size: Annotated[int | None, BeforeValidator(_count_or_none)] = None


class _Described(_Answer):
    id: Annotated[Identifier, Field(alias="ID")]
    metadata: dict[str, Any]
    attachments: Rows[_Attached]

    @property
    def file_size(self) -> int | None:
        """The size of the DICOM file; None where it is not among the attachments."""
        sizes = (a.uncompressed_size for a in self.attachments if a.content_type == DICOM_FILE)
        return next(sizes, None)


class _Beside(_Answer):
    id: Annotated[Identifier, Field(alias="ID")]
    type: Text
    metadata: dict[str, Any]
    labels: Annotated[list[Any] | None, BeforeValidator(_of_kind(list))] = None
    file_uuid: Annotated[str | None, BeforeValidator(_of_kind(str))] = None


class _Peer(_Answer):
    url: str


class _Found(_Answer):
    type: Text
    id: Annotated[Identifier, Field(alias="ID")]


class _Study(_Answer):
    id: Annotated[Identifier, Field(alias="ID")]
    is_stable: bool
    last_update: Told = None


_FAULT = TypeAdapter(_Fault)
_SYSTEM = TypeAdapter(_System)
_CHANGES = TypeAdapter(_Changes)
_STORED = TypeAdapter(_Stored)
_STATISTICS = TypeAdapter(_Statistics)
_IDENTIFIERS = TypeAdapter(Rows[Identifier], config=ConfigDict(strict=True))
_FILE = TypeAdapter(_File)
_RESOURCE = TypeAdapter(_Resource)
_NAMES = TypeAdapter(Rows[str], config=ConfigDict(strict=True))
_RESOURCES = TypeAdapter(Rows[_Resource])
_BULK = TypeAdapter(Rows[_Bulk])
_DESCRIBED = TypeAdapter(Rows[_Described])
_BESIDE = TypeAdapter(Rows[_Beside])
_PEER = TypeAdapter(_Peer)
_FOUND = TypeAdapter(Rows[_Found])
_STUDY = TypeAdapter(_Study)
_OBJECT = TypeAdapter(dict[str, Any], config=ConfigDict(strict=True))


def parse_json(body: bytes, *, values_max: int | None = None) -> Any:  # noqa: ANN401  (JSON)
    """Parse a JSON answer; raises WrongAnswer for anything else, absurd nesting included.

    Every text in it is valid Unicode then: an answer in UTF-8 may name halves of characters.
    ``values_max``: of an answer without free text, which may be large. An empty object takes two
    bytes as text and more than sixty as a value, so that a bound in bytes bounds no memory.
    """
    # Each value but the first is behind a comma or a bracket; names are behind those as well.
    if values_max is not None and sum(map(body.count, (b",", b"[", b"{"))) > values_max:
        raise WrongAnswer(f"it has more than {values_max} values")
    try:
        # A file of NaN or Infinity is no JSON; Python would take it for numbers.
        value = json.loads(body, parse_constant=_no_number)
        return _whole(value) if b"\\u" in body or not _is_utf8(body) else value
    except (ValueError, RecursionError):
        raise WrongAnswer("the body is not JSON") from None


def parse_fault(body: bytes) -> OrthancFault | None:
    """Read Orthanc's JSON error body; None when it is something else."""
    try:
        fault = _checked(_FAULT, parse_json(body))
    except WrongAnswer:
        return None
    text = re.sub(r"[^\x20-\x7e]", "?", fault.orthanc_error)
    return OrthancFault(status=fault.orthanc_status, text=text, uri=fault.uri or "")


def parse_system(body: bytes) -> ServerInfo:
    """``/system``. Fields that older versions do not have become None."""
    told = _checked(_SYSTEM, parse_json(body))
    megabytes = told.maximum_storage_size
    capabilities = sorted(name for name, has in (told.capabilities or {}).items() if has is True)
    return ServerInfo(
        version=told.version,
        api_version=told.api_version,
        has_extended_changes=(told.capabilities or {}).get("HasExtendedChanges") is True,
        name=told.name or "",
        plugins_enabled=told.plugins_enabled is True,
        database_backend=told.database_backend_plugin,
        database_version=told.database_version,
        capabilities=tuple(map(cleaned, capabilities[:CAPABILITIES_MAX])),
        overwrite_instances=told.overwrite_instances,
        maximum_storage_bytes=None if megabytes is None else megabytes * MEBIBYTE,
        maximum_patient_count=told.maximum_patient_count,
        maximum_storage_mode=told.maximum_storage_mode,
        ingest_transcoding=told.ingest_transcoding,
        read_only=told.read_only,
        storage_compression=told.storage_compression,
        user_metadata={
            cleaned(name): number
            for name, number in list((told.user_metadata or {}).items())[:METADATA_MAX]
            if isinstance(number, int)
        },
    )


def parse_changes(body: bytes, *, since: int | None, rows_max: int) -> Page:
    """Parse ``/changes``: at most ``rows_max`` rows, ascending, all above ``since`` if given.

    A row whose ID is no identifier of Orthanc's has "" for it: it names nothing to be asked for.
    """
    page = parse_json(body, values_max=_values_of(rows_max))
    _check_count(page.get("Changes") if isinstance(page, dict) else None, rows_max)
    told = _checked(_CHANGES, page)
    changes = tuple(
        Change(
            sequence=row.seq,
            change_type=row.change_type,
            resource_id=row.id if INSTANCE_ID.fullmatch(row.id) else "",
            date=_date_or_nothing(row.date),
        )
        for row in told.changes
    )
    above = since
    for change in changes:
        if above is not None and change.sequence <= above:
            raise WrongAnswer(f"Seq {change.sequence} follows {above}: not ascending")
        above = change.sequence
    return Page(changes=changes, done=told.done, last=told.last)


def parse_store(body: bytes) -> StoreAnswer:
    """Parse the answer to ``POST /instances``."""
    told = _checked(_STORED, parse_json(body))
    study = told.parent_study or ""
    return StoreAnswer(
        instance_id=told.id,
        status=told.status,
        study_id=study if INSTANCE_ID.fullmatch(study) else "",
    )


def parse_metadata(body: bytes) -> dict[str, str]:
    """``/instances/{id}/metadata?expand``: names and values, both text."""
    return _metadata(_checked(_OBJECT, parse_json(body)))


def parse_bulk_metadata(body: bytes, *, asked: Collection[str]) -> dict[str, dict[str, str]]:
    """``/tools/bulk-content`` with metadata: those of each instance, by its identifier.

    It names no instance that is not there, in any order.
    """
    told = parse_json(body)
    _check_count(told, len(asked))
    rows = _checked(_BULK, told)
    found = {row.id: _metadata(row.metadata) for row in rows}
    if len(found) < len(rows) or not found.keys() <= set(asked):
        raise WrongAnswer("it names an instance twice, or one that was not asked for")
    return found


def parse_bulk_described(body: bytes, *, asked: Collection[str]) -> dict[str, Described]:
    """``/tools/bulk-content`` with metadata, and the sizes of the files that it tells beside."""
    told = parse_json(body)
    _check_count(told, len(asked))
    rows = _checked(_BULK, told)
    found = {row.id: Described(_metadata(row.metadata), row.file_size) for row in rows}
    if len(found) < len(rows) or not found.keys() <= set(asked):
        raise WrongAnswer("it names an instance twice, or one that was not asked for")
    return found


def parse_found_described(body: bytes, *, rows_max: int) -> dict[str, Described]:
    """``/tools/find`` with metadata and attachments of instances, in the order of the answer."""
    told = parse_json(body)
    _check_count(told, rows_max)
    rows = _checked(_DESCRIBED, told)
    found = {row.id: Described(_metadata(row.metadata), row.file_size) for row in rows}
    if len(found) < len(rows):
        raise WrongAnswer("it names an instance twice")
    return found


def parse_bulk_held(body: bytes, *, asked: Collection[str]) -> frozenset[str]:
    """``/tools/bulk-content``: the identifiers of what is there, of those that were asked for."""
    told = parse_json(body)
    _check_count(told, len(asked))
    found = frozenset(row.id for row in _checked(_RESOURCES, told))
    if not found <= set(asked):
        raise WrongAnswer("it names an instance that was not asked for")
    return found


def parse_bulk_studies(body: bytes, *, rows_max: int) -> frozenset[str]:
    """``/tools/bulk-content`` at the level of studies: their identifiers, and nothing else."""
    told = parse_json(body)
    _check_count(told, rows_max)
    return frozenset(row.id for row in _checked(_RESOURCES, told))


def _metadata(told: dict[str, Any]) -> dict[str, str]:
    if len(told) > METADATA_MAX:
        raise WrongAnswer(f"more than {METADATA_MAX} metadata")
    if not all(isinstance(value, str) for value in told.values()):
        raise WrongAnswer("a metadata is no text")
    longest = METADATA_CHARACTERS_MAX
    return {shortened(name, longest): shortened(value, longest) for name, value in told.items()}


def parse_resources(body: bytes) -> list[Resource]:
    """``/tools/bulk-content`` with metadata: what there is of any kind, in any order.

    A label that Orthanc would not take is left out.
    """
    found = []
    for row in _checked(_BESIDE, parse_json(body)):
        kind = KINDS.get(row.type)
        if kind is None:
            raise WrongAnswer("it names a kind of resource that there is not")
        if len(row.metadata) > METADATA_MAX or len(row.labels or ()) > LABELS_MAX:
            raise WrongAnswer(f"more than {METADATA_MAX} metadata or labels")
        if not all(isinstance(value, str) for value in row.metadata.values()):
            raise WrongAnswer("a metadata is no text")
        told = row.labels
        labels = None
        if told is not None:
            texts = (one for one in told if isinstance(one, str))
            labels = tuple(sorted(text for text in texts if _LABEL.fullmatch(text)))
        file = row.file_uuid or ""
        found.append(Resource(kind, row.id, labels, dict(row.metadata), shortened(file, 64)))
    return found


def parse_instance_ids(body: bytes, *, rows_max: int) -> list[str]:
    """``/instances?since=&limit=``: identifiers only."""
    rows = parse_json(body, values_max=_values_of(rows_max))
    _check_count(rows, rows_max)
    return _checked(_IDENTIFIERS, rows)


def parse_statistics(body: bytes) -> Statistics:
    """``/statistics``, where sizes are numbers written as text."""
    told = _checked(_STATISTICS, parse_json(body))
    return Statistics(
        instances=told.count_instances,
        series=told.count_series,
        studies=told.count_studies,
        patients=told.count_patients,
        disk_bytes=told.total_disk_size,
        uncompressed_bytes=told.total_uncompressed_size,
    )


def parse_md5(body: bytes) -> str:
    """Parse an MD5 as text: 32 lower-case hexadecimal digits."""
    text = body.decode("ascii", "replace").strip()
    if not _MD5.fullmatch(text):
        raise WrongAnswer("the body is not an MD5")
    return text


def parse_deleted(body: bytes) -> None:
    """Check the answer to a deletion."""
    if "RemainingAncestor" not in _checked(_OBJECT, parse_json(body)):
        raise WrongAnswer("it does not say that it has deleted anything")


def parse_stored_file(body: bytes) -> StoredFile:
    """``/instances/{id}/attachments/dicom/info``: since Orthanc 1.10.0."""
    told = _checked(_FILE, parse_json(body))
    return StoredFile(uuid=told.uuid, md5=told.uncompressed_md5, size_bytes=told.uncompressed_size)


def parse_resource_id(body: bytes) -> str:
    """Return the ID of a resource as its own route tells it."""
    values_max = FEW_VALUES + len(body) // VALUE_BYTES_MIN
    return _checked(_RESOURCE, parse_json(body, values_max=values_max)).id


def parse_names(body: bytes) -> list[str]:
    """``/{level}/{id}/metadata`` and ``/attachments``: what a resource has, by name."""
    names = _checked(_NAMES, parse_json(body, values_max=FEW_VALUES))
    if len(names) > METADATA_MAX:
        raise WrongAnswer(f"more than {METADATA_MAX} metadata or attachments")
    return names


def parse_protected(body: bytes) -> None:
    """Check that a patient is protected."""
    if body.strip() != b"1":
        raise WrongAnswer("the patient is not protected")


def parse_peers(body: bytes) -> dict[str, str]:
    """``/peers?expand``: the name of each peer and its address."""
    told = _checked(_OBJECT, parse_json(body))
    if len(told) > PEERS_MAX:
        raise WrongAnswer(f"more than {PEERS_MAX} peers")
    # One by one: the first mistake ends it.
    return {_fit(name): _fit(_checked(_PEER, peer).url) for name, peer in told.items()}


def parse_metadata_value(body: bytes) -> str:
    """One metadata, as text."""
    return _fit(body.decode("utf-8", "replace"))


def parse_etag(text: str) -> str:
    """Return the ETag of a metadata (revision and MD5) as it is sent back; "" for anything else."""
    return text if _ETAG.fullmatch(text) else ""


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
    text = body.decode("ascii", "replace").strip()
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        return datetime.strptime(text[:15], "%Y%m%dT%H%M%S")
    except ValueError:
        raise WrongAnswer("the body is not a time") from None


def parse_lookup(body: bytes) -> list[tuple[str, str]]:
    """``/tools/lookup``: level and Orthanc ID of each resource found."""
    return [(found.type, found.id) for found in _checked(_FOUND, parse_json(body))]


def parse_children(body: bytes, name: str) -> list[str]:
    """``/studies/{id}`` and ``/series/{id}``: the Orthanc IDs listed under ``name``."""
    values_max = FEW_VALUES + len(body) // VALUE_BYTES_MIN
    rows = _checked(_OBJECT, parse_json(body, values_max=values_max)).get(name)
    if not isinstance(rows, list):
        raise WrongAnswer(f"it has no list of {name}")
    return _checked(_IDENTIFIERS, rows)


def parse_study_state(body: bytes) -> tuple[str, StudyState]:
    """``/studies/{id}``: its Orthanc ID, whether it is stable, and when something came last."""
    values_max = FEW_VALUES + len(body) // VALUE_BYTES_MIN
    told = _checked(_STUDY, parse_json(body, values_max=values_max))
    return told.id, StudyState(told.is_stable, _date_or_nothing(told.last_update or ""))


def _values_of(rows: int) -> int:
    return FEW_VALUES + rows * ROW_VALUES_MAX


def _check_count(rows: object, rows_max: int) -> None:
    """Refuse a list that is too long, before anything is made of its rows."""
    if isinstance(rows, list) and len(rows) > rows_max:
        raise WrongAnswer(f"{len(rows)} rows where at most {rows_max} were asked for")


def _checked(kind: TypeAdapter[_T], value: object) -> _T:
    """Return a value of that type. Raises WrongAnswer that says which field is none."""
    try:
        return kind.validate_python(value)
    except (ValidationError, RecursionError) as exc:
        raise WrongAnswer(_what_is_wrong(exc)) from None


def _what_is_wrong(exc: ValidationError | RecursionError) -> str:
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
    # A place in it is told by the names that we have for fields: others may be anything.
    place = " ".join(part for part in map(str, first["loc"]) if part in _OUR_NAMES)
    what = str(first["msg"]).removeprefix("Value error, ")
    return f"{place or 'it'} is not as expected ({what[:60]})"


def _names_of(*kinds: type[_Answer]) -> frozenset[str]:
    return frozenset(str(f.alias) for kind in kinds for f in kind.model_fields.values())


_OUR_NAMES = _names_of(_Fault, _System, _Row, _Changes, _Stored, _Statistics, _Found)


def _no_number(_: str) -> float:
    raise ValueError


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _whole(value: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return JSON without halves of characters."""
    match value:
        case str():
            return valid(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {valid(name): _whole(item) for name, item in value.items()}
        case _:
            return value

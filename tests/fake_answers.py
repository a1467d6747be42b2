"""What an honest Orthanc answers, request by request; `fake_orthanc` puts it on the wire."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.fake_store import BadFile, FakeStore, FeedRow, StoredInstance, identified


class Server(Protocol):
    """What the answers depend on."""

    store: FakeStore
    extended_changes: bool

    def system(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes = b""
    status: int = 200
    content_type: str | None = "application/json; charset=utf-8"


def answer_to(fake: Server, method: str, target: str, body: bytes) -> Answer:
    """Answer one request honestly."""
    parts = urlsplit(target)
    path = unquote(parts.path)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for (wanted, pattern), handler in _ROUTES.items():
        found = re.fullmatch(pattern, path)
        if found and wanted == method:
            return handler(fake, query, body, *found.groups())
    return _error(HTTPStatus.NOT_FOUND, 17, "Unknown resource", (method, path))


def _json(value: object) -> Answer:
    return Answer(json.dumps(value, indent=3).encode())


def _error(status: HTTPStatus, code: int, text: str, route: tuple[str, str]) -> Answer:
    fields = {
        "HttpError": status.phrase,
        "HttpStatus": status,
        "Message": text,
        "Method": route[0],
        "OrthancError": text,
        "OrthancStatus": code,
        "Uri": route[1],
    }
    return Answer(json.dumps(fields, indent=1).encode(), status, None)


def _number(text: str | None, default: int) -> int:
    """Orthanc reads what is not a number as 0."""
    if text is None:
        return default
    return int(text) if re.fullmatch(r"-?\d+", text) else 0


def _changes(fake: Server, query: dict[str, str], _body: bytes) -> Answer:
    store = fake.store
    if "last" in query:
        row, last = store.last()
        return _page(fake, [row] if row else [], done=True, last=last)
    types, to = None, None
    if fake.extended_changes:
        types = frozenset(query["type"].split(";")) if "type" in query else None
        to = _number(query["to"], 0) if "to" in query else None
    since = _number(query.get("since"), 0)
    rows, done, last = store.page(since, _number(query.get("limit"), 100), to=to, types=types)
    return _page(fake, rows, done=done, last=last)


def _page(fake: Server, rows: Sequence[FeedRow], *, done: bool, last: int) -> Answer:
    answer: dict[str, object] = {
        "Changes": [row.json() for row in rows],
        "Done": done,
        "Last": last,
    }
    if fake.extended_changes and rows:
        answer["First"] = rows[0].seq
    return _json(answer)


def _clear_changes(fake: Server, _query: dict[str, str], _body: bytes) -> Answer:
    fake.store.clear_changes()
    return Answer(content_type=None)


def _list(fake: Server, query: dict[str, str], _body: bytes) -> Answer:
    ids = fake.store.listing()
    since = _number(query.get("since"), 0)
    return _json(ids[since : since + _number(query.get("limit"), len(ids))])


def _upload(fake: Server, _query: dict[str, str], body: bytes) -> Answer:
    return store_answer(fake, body)


def store_answer(
    fake: Server, body: bytes, *, instance_id: str | None = None, status: str = "Success"
) -> Answer:
    """Answer an upload, under another ID if given; stored only when ``status`` is Success."""
    try:
        if status == "Success":
            instance_id, status = fake.store.put(body, instance_id=instance_id)
    except BadFile:
        return _error(HTTPStatus.BAD_REQUEST, 15, "Bad file format", ("POST", "/instances"))
    stored = fake.store.instances.get(instance_id or "")
    parents = stored.parents if stored else ("", "", "")
    names = ("ParentSeries", "ParentStudy", "ParentPatient")
    return _json(
        {"ID": instance_id, "Path": f"/instances/{instance_id}", "Status": status}
        | dict(zip(names, parents, strict=True))
    )


def _instance(  # noqa: PLR0911 (a table of routes)
    fake: Server, _query: dict[str, str], _body: bytes, *where: str
) -> Answer:
    instance_id, rest = where
    stored = fake.store.instances.get(instance_id)
    if stored is None:
        path = f"/instances/{instance_id}{rest}"
        return _error(HTTPStatus.NOT_FOUND, 17, "Unknown resource", ("GET", path))
    match rest:
        case "":
            return _json({"FileSize": len(stored.data), "ID": instance_id, "Type": "Instance"})
        case "/file":
            return Answer(stored.data, content_type="application/dicom")
        case "/metadata":
            return _json(stored.metadata)
        case "/attachments/dicom/info":
            fields = {"CompressedMD5": stored.md5, "UncompressedMD5": stored.md5, "ContentType": 1}
            size = len(stored.data)
            sizes = {"CompressedSize": size, "UncompressedSize": size}
            return _json(fields | sizes | {"Uuid": stored.uuid})
        case "/attachments/dicom/md5":
            return Answer(stored.md5.encode(), content_type="text/plain")
        case "/attachments/dicom/size":
            return Answer(str(len(stored.data)).encode(), content_type="text/plain")
        case _:
            return Answer(status=404, content_type=None)


def _bulk(fake: Server, _query: dict[str, str], body: bytes) -> Answer:
    """Tell the metadata of those that are there, in an order of its own, as 1.9.4 and newer do."""
    asked = json.loads(body)
    found = [i for i in reversed(asked["Resources"]) if i in fake.store.instances]
    if asked.get("Level") == "Study":
        studies = {fake.store.instances[i].parents[1] for i in found}
        return _json([{"ID": study, "Type": "Study"} for study in sorted(studies)])
    return _json(
        [
            {
                "ID": i,
                "Type": "Instance",
                "FileSize": len(fake.store.instances[i].data),
                "Metadata": fake.store.instances[i].metadata,
            }
            for i in found
        ]
    )


def _find(fake: Server, _query: dict[str, str], body: bytes) -> Answer:
    """Describe all instances by position, as 1.12.5 and newer do; older ones only name them."""
    asked = json.loads(body)
    listed = fake.store.listing()[asked["Since"] : asked["Since"] + asked["Limit"]]
    if not fake.extended_changes:
        return _json(listed)
    return _json([_described(i, fake.store.instances[i]) for i in listed])


def _described(instance_id: str, stored: StoredInstance) -> dict[str, object]:
    file = {"ContentType": 1, "UncompressedSize": len(stored.data), "UncompressedMD5": stored.md5}
    return {
        "ID": instance_id,
        "Type": "Instance",
        "Metadata": stored.metadata,
        "Attachments": [file],
    }


def _delete(fake: Server, _query: dict[str, str], _body: bytes, instance_id: str) -> Answer:
    if not fake.store.delete(instance_id):
        return Answer(status=404, content_type=None)
    return _json({"RemainingAncestor": None})


def _verify(fake: Server, _query: dict[str, str], _body: bytes, instance_id: str) -> Answer:
    if instance_id not in fake.store.instances:
        path = f"/instances/{instance_id}/attachments/dicom/verify-md5"
        return _error(HTTPStatus.NOT_FOUND, 17, "Unknown resource", ("POST", path))
    return _json({})


def _metadata_value(
    fake: Server, _query: dict[str, str], _body: bytes, instance_id: str, name: str
) -> Answer:
    with fake.store.lock:
        stored = fake.store.instances.get(instance_id)
        if stored is None or name not in stored.metadata:
            return Answer(status=404, content_type=None)
        return Answer(stored.metadata[name].encode(), content_type="text/plain")


def _set_metadata(
    fake: Server, _query: dict[str, str], body: bytes, instance_id: str, name: str
) -> Answer:
    with fake.store.lock:
        stored = fake.store.instances.get(instance_id)
        if stored is None:
            return Answer(status=404, content_type=None)
        stored.metadata[name] = body.decode()
        fake.store.add_change("UpdatedMetadata", instance_id)
    return Answer(content_type=None)


def _patient(fake: Server, _query: dict[str, str], _body: bytes, instance_id: str) -> Answer:
    stored = fake.store.instances.get(instance_id)
    if stored is None:
        return Answer(status=404, content_type=None)
    return _json({"ID": stored.parents[2], "Type": "Patient"})


def _protect(fake: Server, _query: dict[str, str], _body: bytes, patient_id: str) -> Answer:
    fake.store.protected.add(patient_id)
    return Answer(content_type=None)


def _is_protected(fake: Server, _query: dict[str, str], _body: bytes, patient_id: str) -> Answer:
    protected = patient_id in fake.store.protected
    return Answer(b"1" if protected else b"0", content_type="text/plain")


def _peers(fake: Server, _query: dict[str, str], _body: bytes) -> Answer:
    with fake.store.lock:
        return _json({name: {"Url": url} for name, url in fake.store.peers.items()})


def _set_peer(fake: Server, _query: dict[str, str], body: bytes, name: str) -> Answer:
    with fake.store.lock:
        url = json.loads(body)["Url"]
        fake.store.peers[name] = url if url.endswith("/") else f"{url}/"  # as Orthanc does
    return Answer(content_type=None)


def _delete_peer(fake: Server, _query: dict[str, str], _body: bytes, name: str) -> Answer:
    with fake.store.lock:
        gone = fake.store.peers.pop(name, None)
    return Answer(status=404 if gone is None else 200, content_type=None)


def _delete_metadata(
    fake: Server, _query: dict[str, str], _body: bytes, instance_id: str, name: str
) -> Answer:
    with fake.store.lock:
        stored = fake.store.instances.get(instance_id)
        if stored is None:
            return Answer(status=404, content_type=None)
        stored.metadata.pop(name, None)
    return Answer(content_type=None)


def _statistics(fake: Server, _query: dict[str, str], _body: bytes) -> Answer:
    with fake.store.lock:
        stored = list(fake.store.instances.values())
    series, studies, patients = (len({i.parents[level] for i in stored}) for level in range(3))
    size = str(sum(len(i.data) for i in stored))
    return _json(
        {
            "CountInstances": len(stored),
            "CountPatients": patients,
            "CountSeries": series,
            "CountStudies": studies,
            "TotalDiskSize": size,
            "TotalUncompressedSize": size,
        }
    )


def _now(_fake: Server, _query: dict[str, str], _body: bytes) -> Answer:
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    return Answer(moment.encode(), content_type="text/plain")


def _lookup(fake: Server, _query: dict[str, str], body: bytes) -> Answer:
    uid = body.decode()
    with fake.store.lock:
        found = {
            level
            for instance_id, stored in fake.store.instances.items()
            for level in identified(uid, instance_id, stored)
        }
    return _json([{"ID": i, "Path": "/", "Type": level} for level, i in sorted(found)])


def _parent(fake: Server, _query: dict[str, str], _body: bytes, level: str, wanted: str) -> Answer:
    at, below = (1, "Series") if level == "studies" else (0, "Instances")
    with fake.store.lock:
        inside = [(i, s) for i, s in fake.store.instances.items() if s.parents[at] == wanted]
    if not inside:
        return _error(HTTPStatus.NOT_FOUND, 17, "Unknown resource", ("GET", f"/{level}/{wanted}"))
    children = {s.parents[0] if level == "studies" else i: None for i, s in inside}
    last = max(s.metadata.get("ReceptionDate", "") for _, s in inside)
    stable = wanted not in fake.store.unstable
    return _json({"ID": wanted, "IsStable": stable, "LastUpdate": last, below: list(children)})


_ROUTES: dict[tuple[str, str], Callable[..., Answer]] = {
    ("GET", "/tools/now"): _now,
    ("POST", "/tools/lookup"): _lookup,
    ("POST", "/tools/bulk-content"): _bulk,
    ("POST", "/tools/find"): _find,
    ("GET", "/(studies|series)/([^/]+)"): _parent,
    ("GET", "/system"): lambda fake, _query, _body: _json(fake.system()),
    ("GET", "/statistics"): _statistics,
    ("GET", "/changes"): _changes,
    ("DELETE", "/changes"): _clear_changes,
    ("GET", "/instances"): _list,
    ("POST", "/instances"): _upload,
    (
        "GET",
        r"/instances/([^/]+)(|/file|/metadata|/attachments/dicom/\w+)",
    ): _instance,
    ("DELETE", "/instances/([^/]+)"): _delete,
    ("POST", "/instances/([^/]+)/attachments/dicom/verify-md5"): _verify,
    ("GET", r"/instances/([^/]+)/metadata/(\d+)"): _metadata_value,
    ("PUT", r"/instances/([^/]+)/metadata/(\d+)"): _set_metadata,
    ("GET", "/instances/([^/]+)/patient"): _patient,
    ("PUT", "/patients/([^/]+)/protected"): _protect,
    ("GET", "/patients/([^/]+)/protected"): _is_protected,
    ("GET", "/peers"): _peers,
    ("PUT", "/peers/([^/]+)"): _set_peer,
    ("DELETE", "/peers/([^/]+)"): _delete_peer,
    ("DELETE", r"/instances/([^/]+)/metadata/(\d+)"): _delete_metadata,
}

"""``/openapi.json``: every address of the monitoring server, for programs.

A test calls each of them and holds its answer against what is written here, and holds what is
written here against the routes. Parts that are values of ours are described by their own fields.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

import bridge
from bridge.events import SideView, Workforce
from bridge.model import Reason
from bridge.monitoring.action_request import (
    A_MINUTE_MAX,
    FIELDS,
    INSTANCES_MAX,
    SEQUENCE_MAX,
)
from bridge.monitoring.board import Failure, RecentThroughput
from bridge.monitoring.guard import HEAD_BYTES_MAX
from bridge.monitoring.headline import BridgeStanding
from bridge.monitoring.health import CarryView, MirrorView, SignView
from bridge.monitoring.side_command import CommandState
from bridge.monitoring.throughput_history import SPANS, ThroughputOf
from bridge.monitoring.time_left import TimeLeft

OPENAPI_PATH = "/openapi.json"
VERSION = "3.1.0"

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
PLAIN = {str: TEXT, int: {"type": "integer"}, float: NUMBER, bool: FLAG, type(None): None}


def record(optional: tuple[str, ...] = (), /, **fields: Schema) -> Schema:
    """Describe an object by its fields; those that are not optional are always there."""
    needed = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": needed}


def or_null(schema: Schema) -> Schema:
    """Describe what may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def several(schema: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """Describe an object whose names are not known before."""
    return {"type": "object", "additionalProperties": schema}


def schema_of_fields(kind: type, **more: Schema) -> Schema:
    """Describe a value of ours by its fields, and what is told beside them."""
    hints = get_type_hints(kind)
    fields = {field.name: _of_hint(hints[field.name]) for field in dataclasses.fields(kind)}
    return record(**fields | more)


def _of_hint(hint: Any) -> Schema:  # noqa: ANN401 (a type, of whatever kind)
    parts = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        (only,) = [part for part in parts if part is not type(None)]
        return or_null(_of_hint(only))
    if get_origin(hint) is tuple:
        return several(_of_hint(parts[0]))
    if get_origin(hint) in (dict, Mapping):
        return {"type": "object"} if parts[1] is Any else by_name(_of_hint(parts[1]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return schema_of_fields(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": list(hint)}
    return PLAIN[hint] or {}


PROBLEM = record(code=TEXT, message=TEXT, advice=TEXT)
COMMAND = or_null(schema_of_fields(CommandState))
PARKED = {
    "instance": TEXT,
    "sequence": or_null(COUNT),
    "reason": {"enum": list(Reason)},
    "message": TEXT,
    "attempts": COUNT,
    "parked_at": NUMBER,
}
PUBLIC = {"public_urls": record(source=TEXT, target=TEXT), "command_prefix": TEXT}
SERVER = schema_of_fields(SideView, url=TEXT)
HEALTH: dict[str, Schema] = {
    "status": {"enum": ["ok", "failing"]},
    "standing": {"enum": list(BridgeStanding)},
    "headline": TEXT,
    "command": TEXT,
    "name": TEXT,
    "reasons": several(PROBLEM),
    "version": TEXT,
    "phase": TEXT,
    "hold": TEXT,
    "checkpoint": or_null(COUNT),
    "last": or_null(COUNT),
    "caught_up": FLAG,
    "lag_changes": COUNT,
    "lag_s": NUMBER,
    "time_left": or_null(schema_of_fields(TimeLeft)),
    "oldest_unfinished": or_null(COUNT),
    "oldest_unfinished_changed_at": or_null(TEXT),
    "waiting": COUNT,
    "in_flight": COUNT,
    "workers": schema_of_fields(Workforce),
    "parked": by_name(COUNT),
    "dropped": COUNT,
    "parked_total": COUNT,
    "source": SERVER,
    "target": SERVER,
    "gaps": record(open=COUNT, sequences=COUNT, oldest_s=or_null(NUMBER), given_up=COUNT),
    "verification": or_null(schema_of_fields(MirrorView, text=TEXT)),
    "carry": or_null(schema_of_fields(CarryView, text=TEXT)),
    "signs": or_null(schema_of_fields(SignView, text=TEXT)),
    "feed_read_at": or_null(NUMBER),
    "last_progress_at": or_null(NUMBER),
}
STATUS: dict[str, Schema] = HEALTH | {
    "in_flight": several(
        record(instance=TEXT, sequence=or_null(COUNT), stage=TEXT, attempt=COUNT, age_s=NUMBER)
    ),
    "now": NUMBER,
    "started_at": NUMBER,
    "versions": by_name(TEXT),
    **PUBLIC,
    "parked_newest": several(record(**PARKED, study=TEXT)),
    "limits": record(instances_s=NUMBER, mbit_s=NUMBER, quiet_hours=TEXT),
    "refused": several({"type": "object"}),
    "throughput": schema_of_fields(RecentThroughput),
    "failures": several(schema_of_fields(Failure)),
    "acts": FLAG,
    "command_beside": COMMAND,
}
STUDY = record(
    uid=TEXT,
    orthanc_id=TEXT,
    first_at=NUMBER,
    last_at=NUMBER,
    seen=COUNT,
    delivered=COUNT,
    parked=COUNT,
    skipped=COUNT,
    complete=FLAG,
    stable=FLAG,
)
STUDIES = record(
    ("parked", "parked_more"),
    studies=several(STUDY),
    older=TEXT,
    name=TEXT,
    parked=several(record(**PARKED)),
    parked_more=FLAG,
    **PUBLIC,
)
SEQUENCE: Schema = {"type": "integer", "minimum": 0, "maximum": SEQUENCE_MAX}
ACTION_FIELDS: dict[str, Schema] = {
    "instances": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": INSTANCES_MAX},
    "reason": {"enum": list(Reason)},
    "study": TEXT,
    "all": {"const": True},
    "from": SEQUENCE,
    "to": SEQUENCE,
}
MESSAGE = record(message=TEXT)
ASKED_FOR_MORE = record(("confirm",), message=TEXT, confirm=TEXT)


def _answer(text: str, schema: Schema | None = None, kind: str = "application/json") -> Schema:
    return {"description": text, "content": {kind: {"schema": schema or TEXT}}}


def _get(summary: str, answers: dict[str, Schema], **more: Any) -> Schema:  # noqa: ANN401
    return {"get": {"summary": summary, "responses": answers} | more}


def _query(name: str, text: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": TEXT}


def _action(name: str) -> Schema:
    fields = {field: ACTION_FIELDS[field] for field in sorted(FIELDS[name])}
    needed = ["from"] if "from" in fields else []
    body: Schema = {
        "type": "object",
        "properties": fields | {"confirm": TEXT},
        "required": needed,
        "additionalProperties": False,
    }
    answers = {
        "200": _answer("Done or, of a command, started.", record(message=TEXT, command=COMMAND)),
        "409": _answer(
            "With a text in confirm: send the request again with it. Without: not possible now.",
            ASKED_FOR_MORE,
        ),
    }
    refusals = {
        "400": "The body is not a valid request.",
        "401": "No token, or a wrong one.",
        "403": "The request comes from another web page.",
        "415": "The content type is not JSON.",
        "429": f"Too many wrong tokens, or more than {A_MINUTE_MAX} requests in a minute.",
        "503": "The bridge starts, or its state file cannot be used.",
    }
    return {
        "post": {
            "summary": f"{name}: see orthanc-bridge docs actions",
            "security": [{"token": []}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers | {code: _answer(t, MESSAGE) for code, t in refusals.items()},
        }
    }


READ: dict[str, Schema] = {
    "/": _get("The status page.", {"200": _answer("It.", kind="text/html")}),
    "/studies": _get("The page of studies.", {"200": _answer("It.", kind="text/html")}),
    "/livez": _get("The process works.", {"200": _answer("It does.", kind="text/plain")}),
    "/readyz": _get(
        "Both servers can be used, and the state can be written.",
        {
            code: _answer(text, record(ready=FLAG, reasons=several(PROBLEM)))
            for code, text in (("200", "Yes."), ("503", "Not ready, for these reasons."))
        },
    ),
    "/health": _get(
        "Whether a person must act.",
        {
            "200": _answer("All is well.", record(**HEALTH)),
            "503": _answer("A person must look, for these reasons.", record(**HEALTH)),
        },
    ),
    "/metrics": _get(
        "Metrics for Prometheus.",
        {
            "200": {
                "description": "Metrics; as OpenMetrics, with exemplars, where the header Accept "
                "asks for that.",
                "content": {
                    "text/plain": {"schema": TEXT},
                    "application/openmetrics-text": {"schema": TEXT},
                },
            }
        },
    ),
    "/api/status": _get("The complete status.", {"200": _answer("It.", record(**STATUS))}),
    "/api/studies": _get(
        "Studies, the latest arrival first.",
        {
            "200": _answer("They.", STUDIES),
            "400": _answer("Another text in ``after`` or ``incomplete`` than there is.", MESSAGE),
            "503": _answer("The state file cannot be read.", MESSAGE),
        },
        parameters=[
            _query("search", "A Study Instance UID, an Orthanc ID, or a parked instance's ID."),
            _query("incomplete", "1: only studies that lack instances; 0: all."),
            _query("after", "The UID after which the page begins: ``older`` of the previous page."),
        ],
    ),
    "/api/throughput": _get(
        "What was delivered in the last 15 minutes, hour, 24 hours and 30 days, also before a "
        "restart.",
        {
            "200": _answer(
                "Deliveries in each interval.",
                record(**{name: schema_of_fields(ThroughputOf) for name in SPANS}),
            )
        },
    ),
    OPENAPI_PATH: _get("This description.", {"200": _answer("It.", {"type": "object"})}),
}
NO_POKE: Schema = {
    "post": {
        "summary": "Make the bridge read the feed now: not without BRIDGE_POKE_TOKEN.",
        "responses": {"404": _answer("No token is set.", kind="text/plain")},
    }
}
POKE: Schema = {
    "post": {
        "summary": "Make the bridge read the feed now; send no body.",
        "security": [{"token": []}],
        "responses": {
            "202": _answer("The bridge reads the feed.", kind="text/plain"),
            "401": _answer("No token, or a wrong one.", kind="text/plain"),
        },
    }
}
WHO = _get(
    "The name of the token, and the running or last command.",
    {
        "200": _answer("It.", record(who=TEXT, actions=several(TEXT), command=COMMAND)),
        "401": _answer("No token, or a wrong one.", MESSAGE),
        "429": _answer("Too many wrong tokens.", MESSAGE),
    },
    security=[{"token": []}],
)


REFUSALS = {
    "400": f"No HTTP, a malformed Host, or a head of more than {HEAD_BYTES_MAX // 1024} KB.",
    "413": "A body where none is taken, one that is too large, or one without Content-Length.",
    "421": "The Host names another machine, and the server listens to this one only.",
}
"""What each address may answer before it is asked, as text (guard.py)."""


def _with_refusals(operations: Schema) -> Schema:
    return {
        method: operation | {"responses": _refused_too(operation["responses"])}
        for method, operation in operations.items()
    }


def _refused_too(responses: Schema) -> Schema:
    found = dict(responses)
    for code, text in REFUSALS.items():
        plain = _answer(text, kind="text/plain")
        if known := found.get(code):
            told = f"{known['description']} As text: {text}"
            plain = {"description": told, "content": known["content"] | plain["content"]}
        found[code] = plain
    return found


def description(*, pokes: bool, acts: bool) -> Schema:
    """Describe what a server answers. ``pokes``, ``acts``: whether it has a token for that."""
    paths = READ | {"/poke": POKE if pokes else NO_POKE}
    if acts:
        paths["/api/actions"] = WHO
        paths |= {f"/api/actions/{name}": _action(name) for name in FIELDS}
    return {
        "openapi": VERSION,
        "info": {"title": "orthanc-bridge", "version": bridge.__version__},
        "paths": {path: _with_refusals(of) for path, of in paths.items()},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }

"""Settings: environment variables ``BRIDGE_*``, and ``.env`` when there is one.

Validated once, at start. A bad value ends the command with exit code 2 and a message that names
the variable, what was seen and what to do. Secrets are not here: see ``bridge.credentials``.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.credentials import (
    ADMIN_TOKEN,
    ENV_FILE,
    NOTIFY_URLS,
    POKE_TOKEN,
    WEBHOOK_SECRET,
    admin_tokens,
    credentials_of,
    env_file,
    must_be_meant,
    notify_urls,
    place_in_dotenv,
    poke_token,
    read_dotenv,
    webhook_secret,
)
from bridge.dicom.syntaxes import target_syntax_uid
from bridge.errors import ConfigurationError
from bridge.feed.gaps import GapLimits
from bridge.model import (
    CarriedNames,
    DeliveredSign,
    Endpoint,
    Job,
    Receiver,
    Rule,
    SideName,
    TranscodeOptions,
)
from bridge.monitoring.health import HealthLimits
from bridge.monitoring.names import NAME_CHARACTERS_MAX, BridgeNames
from bridge.notify.event_kinds import CHOICES, chosen_events
from bridge.own_files import open_named, why_not_trusted
from bridge.pipeline.pacing import Allowance, parse_daily, parse_schedule, parse_timetable
from bridge.retention.limits_and_risks import RetentionRules, Risk
from bridge.rules import parse_rules

# Values of settings: what each may be, and what to say of one that may not.

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_HOST = re.compile(r"[\w.-]{1,253}|[0-9a-f:.]+(?:%[\w.-]+)?")
"""A name (international ones too) or an address, as ``urlsplit`` gives them."""
_PERCENT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,6})?")
DIGITS_MAX = 12
"""Of a number within a setting."""
MAX_SEQUENCE = 2**31 - 1
"""Orthanc writes sequences as 32-bit integers."""


def _can_be_asked_for(host: str) -> bool:
    """Tell whether the resolver takes a name; it raises UnicodeError, which is no OSError."""
    try:
        host.encode("idna").decode("idna")
    except UnicodeError:
        return False
    return True


def _base_url(value: str) -> str:
    """Check an address and bring it into one form, so that the same server looks the same."""
    value = value.strip()
    if not value.isprintable() or " " in value:
        raise ValueError("contains a blank or a control character")
    if "@" in value:
        # Anywhere: a password with a slash ends the host for a parser, and would be logged.
        raise ValueError(
            "must not contain a user name, a password or an @; set the ..._USERNAME and "
            "..._PASSWORD (or ..._PASSWORD_FILE) variables instead"
        )
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise ValueError("is not a URL; write for example http://orthanc:8042") from exc
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("must begin with http:// or https:// and name a host")
    if not _can_be_asked_for(parts.hostname or ""):
        raise ValueError(
            "names an impossible host: each part of a host name has 1 to 63 characters"
        )
    if parts.query or parts.fragment:
        raise ValueError("must not contain ? or #")
    if port == 0:
        raise ValueError("has port 0")
    usual = {"http": 80, "https": 443}[parts.scheme]
    place = parts.netloc.lower() if port != usual else parts.netloc.lower().rpartition(":")[0]
    return f"{parts.scheme}://{place}{parts.path}".rstrip("/")


def _name(value: str) -> str:
    value = value.strip()
    if not value.isprintable():
        raise ValueError("contains a control character")
    return value


def _readable_file(value: str | None) -> str | None:
    if value is not None and not os.access(value, os.R_OK):
        raise ValueError("names a file that does not exist or cannot be read")
    return value


RULES_BYTES_MAX = 1024 * 1024
GENERATION_DIGITS = 12
WORKERS_MAX = 256
WORKERS_BEYOND_CPUS = 2
"""While these wait for a server, the others keep the processors busy (docs/decisions/0003)."""


def default_workers() -> int:
    """Return how many workers keep the CPUs of this machine busy."""
    return min(WORKERS_MAX, len(os.sched_getaffinity(0)) + WORKERS_BEYOND_CPUS)


def _start(value: object) -> str | int:
    text = str(value).strip()
    if text in ("beginning", "now", "snapshot"):
        return text
    if (
        text.isascii()
        and text.isdigit()
        and len(text) <= DIGITS_MAX
        and 0 <= int(text) <= MAX_SEQUENCE
    ):
        return int(text)
    raise ValueError("must be beginning, now, snapshot or a sequence number (0 or more)")


def _verify(value: str) -> str:
    kind, _, count = value.partition(":")
    if value in ("off", "all") or (kind == "sample" and _is_count(count) and int(count) >= 1):
        return value
    raise ValueError("must be off, all or sample:N (one instance in N)")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX


def _schedule(value: str) -> str:
    parse_schedule(value)
    return value


def _timetable(value: str) -> str:
    parse_timetable(value)
    return value


def _executor(value: str) -> str:
    if value == "local":
        return value
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as exc:
        raise ValueError("has no valid port; write for example tcp://scheduler:8786") from exc
    named = _HOST.fullmatch(parts.hostname or "") and port and not parts.path and "@" not in value
    if parts.scheme not in ("tcp", "tls") or not named:
        raise ValueError("must be local, tcp://HOST:PORT or tls://HOST:PORT (a Dask scheduler)")
    return value


def _retention(value: str) -> str:
    number, unit = value[:-1], value[-1:]
    if value == "keep" or (_is_count(number) and unit in UNITS_S):
        return value
    raise ValueError("must be keep or a duration such as 24h (units: s, m, h, d)")


def _span_or_off(value: str) -> str:
    if value == "off" or (_is_count(value[:-1]) and int(value[:-1]) and value[-1:] in UNITS_S):
        return value
    raise ValueError("must be off or a duration such as 7d (units: s, m, h, d)")


def _percent(value: str) -> str:
    number = value.removesuffix("%")
    if value.endswith("%") and _PERCENT.fullmatch(number) and float(number) <= 100:
        return value
    raise ValueError("must be a percentage from 0% to 100%, such as 1% or 0.5%")


def _mirror_deletions(value: str) -> str:
    if value == "off":
        return value
    kind, _, span = value.partition(":")
    if kind == "after" and _is_count(span[:-1]) and span[-1:] in UNITS_S:
        return value
    raise ValueError("must be off or after:DURATION, such as after:7d (units: s, m, h, d)")


USER_NUMBERS = range(1024, 65536)
"""Of metadata and attachments that are a user's; Orthanc lets nobody write others."""
CARRIED_MAX = 50
"""So many names may be listed: each costs requests."""
_CARRIED_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ORTHANCS_OWN = frozenset(
    [
        "indexinseries",
        "receptiondate",
        "remoteaet",
        "expectednumberofinstances",
        "modifiedfrom",
        "anonymizedfrom",
        "lastupdate",
        "origin",
        "transfersyntax",
        "sopclassuid",
        "remoteip",
        "calledaet",
        "httpusername",
        "httphost",
        "pixeldataoffset",
        "maindicomtagssignature",
        "maindicomsequences",
        "pixeldatavr",
        "dicom",
        "dicom-as-json",
        "dicom-until-pixel-data",
    ]
)
"""Names that Orthanc gives to what is its own, in small letters."""


def carried_names(value: str) -> CarriedNames:
    """Read BRIDGE_CARRY. Raises ValueError."""
    labels, names = False, {"metadata": [], "attachments": []}  # type: tuple[bool, dict[str, list[str]]]
    for part in filter(None, (part.strip() for part in value.split(","))):
        kind, colon, name = part.partition(":")
        if part == "labels":
            labels = True
        elif kind not in names or not colon:
            raise ValueError(
                f"names {part[:80]!r}: write labels, metadata:NAME and attachments:NAME, separated "
                "by commas"
            )
        else:
            _check_carried(name)
            names[kind].append(name)
    if sum(map(len, names.values())) > CARRIED_MAX:
        raise ValueError(f"has more than {CARRIED_MAX} names")
    metadata, attachments = (tuple(dict.fromkeys(found)) for found in names.values())
    return CarriedNames(labels, metadata, attachments)


def _check_carried(name: str) -> None:
    if not _CARRIED_NAME.fullmatch(name):
        raise ValueError(f"names {name[:80]!r}: a name has letters, digits, - and _ only")
    if name.isdigit() and int(name) not in USER_NUMBERS:
        raise ValueError(f"names {name}: the number must be from 1024 to 65535")
    if name.lower() in ORTHANCS_OWN:
        raise ValueError(f"names {name}, which belongs to Orthanc and cannot be written")


def sign_named(value: str) -> DeliveredSign:
    """Read BRIDGE_DELIVERED_SIGN. Raises ValueError."""
    names = {"label": "", "metadata": ""}
    for part in filter(None, (part.strip() for part in value.split(","))):
        kind, _, name = part.partition(":")
        if kind not in names:
            raise ValueError(f"names {part[:80]!r}: write label:NAME, metadata:NAME or both")
        if not _CARRIED_NAME.fullmatch(name):
            raise ValueError(f"names {name[:80]!r}: a name has letters, digits, - and _ only")
        if kind == "metadata":
            _check_carried(name)
        if names[kind]:
            raise ValueError(f"names more than one {kind}")
        names[kind] = name
    return DeliveredSign(**names)


def _sign(value: str) -> str:
    sign_named(value)
    return value


def _carry(value: str) -> str:
    carried_names(value)
    return value


def _span(value: str) -> str:
    if _is_count(value[:-1]) and int(value[:-1]) and value[-1:] in UNITS_S:
        return value
    raise ValueError("must be a duration such as 1d (units: s, m, h, d)")


def _seconds(span: str) -> float:
    return float(span[:-1]) * UNITS_S[span[-1]]


def _events(value: str) -> str:
    return ",".join(kind for kind in CHOICES if kind in chosen_events(value))


def _daily(value: str) -> str:
    parse_daily(value)
    return value.strip()


Events = Annotated[str, AfterValidator(_events)]
DailyTime = Annotated[str, AfterValidator(_daily)]
Url = Annotated[str, AfterValidator(_base_url)]
Name = Annotated[str, AfterValidator(_name)]
File = Annotated[str | None, AfterValidator(_readable_file)]
Start = Annotated[str | int, BeforeValidator(_start)]
Verify = Annotated[str, AfterValidator(_verify)]
Schedule = Annotated[str, AfterValidator(_schedule)]
Timetable = Annotated[str, AfterValidator(_timetable)]
SpanOrOff = Annotated[str, AfterValidator(_span_or_off)]
Percent = Annotated[str, AfterValidator(_percent)]
Carry = Annotated[str, AfterValidator(_carry)]
Sign = Annotated[str, AfterValidator(_sign)]
Span = Annotated[str, AfterValidator(_span)]
MirrorDeletions = Annotated[str, AfterValidator(_mirror_deletions)]
Executor = Annotated[str, AfterValidator(_executor)]
Retention = Annotated[str, AfterValidator(_retention)]

PREFIX = "BRIDGE_"

# It tells of a line without telling of which file; read_dotenv tells what matters.
logging.getLogger("dotenv.main").setLevel(logging.ERROR)

SECRETS = (
    *(
        f"{PREFIX}{side}_{what}"
        for side in ("SOURCE", "TARGET")
        for what in ("USERNAME", "PASSWORD", "TOKEN")
    ),
    POKE_TOKEN,
    ADMIN_TOKEN,
    WEBHOOK_SECRET,
    NOTIFY_URLS,
)
"""Looked up by ``bridge.credentials``; each also as ``..._FILE``."""


_BARE = re.compile(r"[a-z]+://[\w.-]*(:\d+)?/?", re.ASCII)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def _is_like_an_address(value: str) -> bool:
    """Tell whether a value may hold a login or a key, as addresses do: not a bare host and port."""
    return not _BARE.fullmatch(value) and any(sign in value for sign in ("@", "://", "?"))


def _risks(value: str) -> str:
    named = [name.strip() for name in value.split(",") if name.strip()]
    for name in named:
        if name not in list(Risk):
            raise ValueError(f"{name!r} is none of {', '.join(Risk)}")
    return ",".join(named)


class Settings(BaseSettings):
    """Every setting that is not a secret. The description of each is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    source_url: Url = Field(
        description="Base URL of the first Orthanc (its REST API); a path prefix is allowed."
    )
    target_url: Url = Field(
        description="Base URL of the second Orthanc (its REST API); a path prefix is allowed."
    )
    source_ca_file: File = Field(None, description="CA certificates (PEM) that verify the source.")
    source_client_cert_file: File = Field(
        None, description="Client certificate (PEM) for the source."
    )
    source_client_key_file: File = Field(None, description="Key of that certificate (PEM).")
    target_ca_file: File = Field(None, description="CA certificates (PEM) that verify the target.")
    target_client_cert_file: File = Field(
        None, description="Client certificate (PEM) for the target."
    )
    target_client_key_file: File = Field(None, description="Key of that certificate (PEM).")
    http_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds that a server may be silent during a request."
    )
    transfer_syntax: Annotated[str, BeforeValidator(lambda v: target_syntax_uid(str(v)))] = Field(
        "ExplicitVRLittleEndian",
        validate_default=True,
        description="Transfer syntax at the target: DICOM keyword or UID, uncompressed or "
        "lossless.",
    )
    state_path: Path = Field(
        Path("state/bridge.sqlite3"),
        description="The state file (SQLite). Keep it on a permanent local disk.",
    )
    shared_directory: Literal["refuse", "accept"] = Field(
        "refuse",
        description="If every user may write to the directory of the state file, the audit file, "
        ".env or a file that a setting names: refuse (exit 2), or accept. Accept only "
        "where no other user can reach the directory (a volume of a container).",
    )
    start: Start = Field(
        "beginning",
        description="Where to start without a checkpoint: beginning, now, snapshot (list what is "
        "there, then follow) or a sequence.",
    )
    on_feed_reset: Literal["stop", "snapshot"] = Field(
        "stop",
        description="When the source's feed (its change log) was reset or replaced: stop (exit "
        "13), or take a snapshot and follow the new feed.",
    )
    feed_confirm_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds for which the bridge checks again, on new connections, a feed that "
        "looks reset or replaced, or two addresses that seem to lead to one server now, before it "
        "believes that. During that time it moves and deletes nothing. 0: it believes it at once.",
    )
    on_undecodable: Literal["park", "forward"] = Field(
        "park",
        description="Corrupt, unsupported or wrongly labelled pixel data: park, or forward "
        "unchanged.",
    )
    on_wrong_label: Literal["park", "decode"] = Field(
        "park",
        description="A JPEG code stream that contradicts its label (another JPEG process, another "
        "colour): park, or decode as the code stream says.",
    )
    on_video: Literal["forward", "park"] = Field(
        "forward", description="Video and referenced pixel data: forward unchanged, or park."
    )
    rules_file: File = Field(
        None,
        description="Rules (TOML) that forward, skip or transcode instances differently.",
    )
    verify: Verify = Field(
        "off",
        description="Decode lossless instances a second time with an independent decoder: off, "
        "sample:N or all.",
    )
    workers: int = Field(
        default_factory=default_workers,
        ge=1,
        le=WORKERS_MAX,
        description="Limit of instances that are decoded, or larger than 1 MB, at the same time; "
        "default: number of CPUs plus two.",
    )
    transfers: int = Field(
        32,
        ge=1,
        le=WORKERS_MAX,
        description="Limit of instances in transfer at the same time. The bridge finds by itself "
        "how many pay off, between BRIDGE_WORKERS and this limit. A limit below BRIDGE_WORKERS is "
        "raised to it.",
    )
    executor: Executor = Field(
        "local",
        description="Where workers run: local, or the Dask scheduler at tcp://HOST:PORT or "
        "tls://HOST:PORT (orthanc-bridge docs cluster).",
    )
    dask_tls_ca_file: File = Field(
        None, description="CA certificates (PEM) that verify the Dask scheduler; for tls://."
    )
    dask_tls_cert_file: File = Field(
        None, description="Client certificate (PEM) for the Dask scheduler."
    )
    dask_tls_key_file: File = Field(None, description="Key of that certificate (PEM).")
    worker_memory_mb: int = Field(
        2048,
        ge=256,
        le=1_048_576,
        description="Memory limit of each worker process, MB. A large instance that is written to "
        "disk first does not count.",
    )
    spool_above_mb: int = Field(
        64,
        ge=1,
        le=1_048_576,
        description="Instances larger than this are written to disk (TMPDIR) instead of memory, "
        "MB.",
    )
    max_instances_s: float = Field(
        0.0, ge=0, description="Limit of instances per second, on average; 0 means no limit."
    )
    max_mbit_s: float = Field(
        0.0,
        ge=0,
        description="Limit of megabits per second, both directions together; 0 means no limit.",
    )
    schedule: Schedule = Field(
        "",
        description="Quiet hours in which no instance is started, for example mon-fri 07:00-19:00 "
        "Europe/Berlin; separate several with commas.",
    )
    rate_timetable: Timetable = Field(
        "",
        description="Megabits a second by the hour, instead of BRIDGE_MAX_MBIT_S, for example "
        "08:00,20 18:00,off Europe/Berlin; sat-08:00,off for one day of the week.",
    )
    window: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Limit of instances in flight; 0 means 3 for each transfer (thread of a "
        "cluster).",
    )
    task_timeout_s: float = Field(
        300.0, gt=0, le=86_400, description="Time limit of one attempt at one instance, seconds."
    )
    attempts: int = Field(
        3, ge=1, le=100, description="Attempts at an instance before it is parked."
    )
    parked_retry: Literal["on", "off"] = Field(
        "on",
        description="Try parked instances again automatically: on or off (orthanc-bridge docs "
        "operations parked).",
    )
    parked_retries_per_hour: int = Field(
        60,
        ge=1,
        le=100_000,
        description="Limit of automatic retries of parked instances per hour. They run one after "
        "the other, and only while nothing else waits.",
    )
    poll_interval_s: float = Field(
        1.0, ge=0.05, le=3600, description="Seconds between two requests to an idle feed."
    )
    page_size: int = Field(
        1000, ge=1, le=100_000, description="Rows of the feed requested at once while catching up."
    )
    feed_overlap: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Number of sequences at the end of the feed that are read again, to notice "
        "late changes and a replaced feed.",
    )
    feed_gap_hours: float = Field(
        6.0,
        gt=0,
        le=720,
        description="How long to ask for a missing sequence, hours. Only for sources whose "
        "database can show rows late (PostgreSQL and other plugins).",
    )
    feed_gaps_max: int = Field(
        50_000,
        ge=1,
        le=1_000_000,
        description="Limit of remembered gaps (ranges of missing sequences). Beyond it the bridge "
        "drops the oldest, and /health says so.",
    )
    recount_interval_s: float = Field(
        1800.0,
        ge=0,
        le=86_400,
        description="Seconds between two comparisons of the source's own count of instances with "
        "its feed. They find and move instances that the feed did not report. 0 turns them off.",
    )
    proof: Literal["answer", "stored"] = Field(
        "answer",
        description="What proves arrival: answer (the target's answer), or stored (also the MD5 "
        "of the stored file).",
    )
    source_retention: Retention = Field(
        "keep",
        description="Whether to delete delivered instances from the source: keep, or a duration "
        "such as 24h after which they are deleted. Deletes only proved instances (implies "
        "proof=stored).",
    )
    retention_per_hour: int = Field(
        10_000, ge=0, description="Limit of deletions at the source per hour; 0 means no limit."
    )
    retention_day_share: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of the source's instances that may be deleted within a day; more needs "
        "retention --confirm. 1000 instances are always allowed; 1 means no limit.",
    )
    retention_trial_s: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="Seconds for which the bridge watches one deletion a day, with the file held, "
        "before it deletes more at the source: does the target keep its copy? 0: no trial.",
    )
    retention_risk: Annotated[str, AfterValidator(_risks)] = Field(
        "",
        description="Risks that you accept with BRIDGE_SOURCE_RETENTION, separated by commas: "
        "target-recycles, target-limits-untold, target-read-only, target-emptied, unregistered, "
        "shared-database. With BRIDGE_MIRROR_DELETIONS: target-emptied, unregistered, "
        "shared-database, source-limits-untold (orthanc-bridge docs security).",
    )
    verify_every: SpanOrOff = Field(
        "off",
        description="How often to compare all instances of both servers: off, or a duration such "
        "as 7d (orthanc-bridge docs mirror). The target reads each of its files for "
        "it.",
    )
    verify_rate: float = Field(
        10.0,
        ge=0,
        le=100_000,
        description="Limit of verified instances per second; 0 means no limit. While instances are "
        "delivered, a verification takes 3 % of the time, or compares 2.5 instances per second if "
        "that is more.",
    )
    verify_deep: Percent = Field(
        "0%",
        description="Share of instances, such as 1%, chosen at random in each verification: their "
        "files are fetched from both servers, decoded and compared.",
    )
    repair: Literal["off", "missing", "all"] = Field(
        "off",
        description="What a verification (BRIDGE_VERIFY_EVERY) repairs: off, missing (moves what "
        "the target lacks) or all. all also DELETES copies at the target that are damaged, have no "
        "file, the wrong syntax or an older version, and sends the source's instance instead.",
    )
    repair_limit: Percent = Field(
        "1%",
        description="Share of the source's instances that may be repaired, or deleted at the "
        "target, within a day; more needs check --confirm. 10 instances are always allowed.",
    )
    mirror_deletions: MirrorDeletions = Field(
        "off",
        description="off, or after:DURATION: DELETE at the target what this bridge has delivered "
        "and the source has lacked for that time. This deletes the last copy, also of "
        "what was deleted at the source by mistake (orthanc-bridge docs mirror). Not "
        "with BRIDGE_SOURCE_RETENTION.",
    )
    carry: Carry = Field(
        "",
        description="What to copy to the target besides the files, separated by commas: labels, "
        "metadata:NAME, attachments:NAME (user-defined ones, of all levels). Values "
        "that this bridge wrote follow the source; what somebody else wrote at the "
        "target stays (orthanc-bridge docs mirror). Not with BRIDGE_SOURCE_RETENTION.",
    )
    carry_every: Span = Field(
        "1d",
        description="How often to compare everything that BRIDGE_CARRY copies. Only this finds "
        "changes of labels.",
    )
    carry_max_mb: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Attachments larger than this are not copied (BRIDGE_CARRY), MB. One "
        "attachment takes up to this much memory.",
    )
    delivered_sign: Sign = Field(
        "",
        description="What the bridge sets AT THE SOURCE on an instance that is delivered and "
        "proved: label:NAME, metadata:NAME, or both (then metadata only where the "
        "source is older than 1.12 and has no labels). What somebody else wrote under "
        "that name stays (orthanc-bridge docs mirror).",
    )
    servers_are_distinct: bool = Field(
        False,
        description="Set it to true if you know that the two addresses are two servers and the "
        "bridge cannot tell (one is a copy of the other, and neither allows it to set "
        "a mark).",
    )
    command_patience_s: float = Field(
        60.0,
        ge=0,
        description="Seconds that run --once, replay and parked retry tolerate an outage before "
        "they end with exit code 10 or 11, and that run --once and replay wait for late rows "
        "before they end with 3. run itself waits without a limit.",
    )
    keep_studies_days: float = Field(
        30.0,
        ge=0,
        le=3650,
        description="Days, after the last instance of a study, for which the bridge remembers how "
        "many instances arrived (page /studies). 0: it remembers no studies.",
    )
    audit_path: Path | None = Field(
        None,
        description="Audit file (JSON Lines): one line for each instance (orthanc-bridge docs "
        "audit). Not set: no audit file.",
    )
    audit_max_mb: int = Field(
        100, ge=1, le=100_000, description="Size at which the bridge begins a new audit file, MB."
    )
    shutdown_timeout_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds that running instances may take to finish after SIGTERM.",
    )
    health_host: str = Field("127.0.0.1", description="Address of the monitoring server.")
    health_port: int = Field(
        8080,
        ge=0,
        le=65_535,
        description="Port of the monitoring server; 0 means any free port (the log names it).",
    )
    health_cert_file: File = Field(
        None,
        description="Certificate (PEM, with intermediate certificates) of the monitoring server. "
        "Set: it speaks HTTPS. The bridge reads a renewed certificate automatically.",
    )
    health_key_file: File = Field(
        None, description="Key of that certificate (PEM). Not set: the key is in the same file."
    )
    name: Name = Field(
        "",
        max_length=NAME_CHARACTERS_MAX,
        description="Name of this bridge, for people who have several: the status page, status, "
        "the metrics and the log show it.",
    )
    source_public_url: Url | None = Field(
        None,
        description="Address at which people reach the source: the status page links to its "
        "Explorer. Not set: no links.",
    )
    target_public_url: Url | None = Field(
        None,
        description="Address at which people reach the target: the status page links to its "
        "Explorer. Not set: no links.",
    )
    command_prefix: Name = Field(
        "",
        max_length=NAME_CHARACTERS_MAX,
        description="What you type before the commands that the status page and /health show, for "
        "example docker compose exec bridge.",
    )
    events: Events = Field(
        ",".join(CHOICES),
        description="Which events to send, separated by commas. Also set where to send them, such "
        "as BRIDGE_WEBHOOK_URL (orthanc-bridge docs events).",
    )
    events_fold_s: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="Seconds: parked instances within this time make one event, and a change of "
        "/health must last this long to make an event.",
    )
    digest_at: DailyTime = Field(
        "07:00",
        description="Time of the daily event digest, such as 07:00 Europe/Berlin (UTC without a "
        "time zone).",
    )
    webhook_url: Url | None = Field(
        None,
        description="Address to which events are posted, signed with BRIDGE_WEBHOOK_SECRET. Not "
        "set: no events are posted.",
    )
    webhook_ca_file: File = Field(
        None, description="CA certificates (PEM) that verify the receiver of events."
    )
    webhook_client_cert_file: File = Field(
        None, description="Client certificate (PEM) for the receiver of events."
    )
    webhook_client_key_file: File = Field(None, description="Key of that certificate (PEM).")
    traces_url: Url | None = Field(
        None,
        description="Address of an OpenTelemetry collector (OTLP over HTTP, JSON) to which a trace "
        "of each instance is sent, such as http://127.0.0.1:4318/v1/traces (orthanc-bridge docs "
        "traces). Not set: none is sent.",
    )
    stall_after_s: float = Field(
        600.0,
        gt=0,
        description="Seconds with work but without progress after which /health says stalled.",
    )
    lag_limit_s: float = Field(
        0.0,
        ge=0,
        description="Lag in seconds above which /health says lag_above_limit; 0 means no limit.",
    )
    parked_limit: int = Field(
        0,
        ge=0,
        le=MAX_SEQUENCE,
        description="Number of parked instances above which /health says parked.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log: text or json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged: debug, info, warning or error."
    )

    @field_validator(
        "shared_directory",
        "on_feed_reset",
        "on_undecodable",
        "on_wrong_label",
        "on_video",
        "parked_retry",
        "proof",
        "repair",
        "log_format",
        "log_level",
        mode="before",
    )
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        """Accept a choice in any case: INFO is info."""
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.source_url == self.target_url:
            raise ValueError("BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL are the same server")
        for side in ("source", "target", "webhook"):
            key, cert = (getattr(self, f"{side}_client_{what}_file") for what in ("key", "cert"))
            if key is not None and cert is None:
                name = f"{PREFIX}{side.upper()}_CLIENT"
                raise ValueError(f"{name}_KEY_FILE is set, {name}_CERT_FILE is not: set both")
        if self.health_key_file is not None and self.health_cert_file is None:
            raise ValueError(
                "BRIDGE_HEALTH_KEY_FILE is set, BRIDGE_HEALTH_CERT_FILE is not: set both"
            )
        if self.max_mbit_s and self.rate_timetable:
            raise ValueError(
                "BRIDGE_MAX_MBIT_S and BRIDGE_RATE_TIMETABLE are both set: set one of them"
            )
        if self.verify_every == "off" and self.mirror_deletions != "off":
            raise ValueError(
                "BRIDGE_MIRROR_DELETIONS has no effect without verifications: set "
                "BRIDGE_VERIFY_EVERY, such as BRIDGE_VERIFY_EVERY=7d"
            )
        if self.mirror_deletions != "off" and self.source_retention != "keep":
            raise ValueError(
                "BRIDGE_MIRROR_DELETIONS and BRIDGE_SOURCE_RETENTION cannot be combined: what "
                "retention deletes at the source would also be deleted at the target"
            )
        if self.carry and self.source_retention != "keep":
            raise ValueError(
                "BRIDGE_CARRY and BRIDGE_SOURCE_RETENTION cannot be combined: labels, metadata "
                "and attachments may change after retention has deleted their instance"
            )
        if self.sign.metadata and self.sign.metadata in self.carried.metadata:
            raise ValueError(
                f"BRIDGE_CARRY and BRIDGE_DELIVERED_SIGN both name the metadata "
                f"{self.sign.metadata}: what says delivered is about the source"
            )
        tls = (self.dask_tls_ca_file, self.dask_tls_cert_file, self.dask_tls_key_file)
        if self.executor.startswith("tls://") and None in tls:
            raise ValueError(
                "BRIDGE_EXECUTOR is a tls:// address: set BRIDGE_DASK_TLS_CA_FILE, "
                "BRIDGE_DASK_TLS_CERT_FILE and BRIDGE_DASK_TLS_KEY_FILE"
            )
        if any(tls) and not self.executor.startswith("tls://"):
            raise ValueError(
                "BRIDGE_DASK_TLS_... is set, but BRIDGE_EXECUTOR is not a tls:// address: the "
                "connection to the cluster would not be encrypted"
            )
        return self

    def endpoint(self, side: SideName) -> Endpoint:
        """Return where that server is and how to trust it."""
        return Endpoint(
            side=side,
            url=getattr(self, f"{side}_url"),
            ca_file=getattr(self, f"{side}_ca_file"),
            client_cert_file=getattr(self, f"{side}_client_cert_file"),
            client_key_file=getattr(self, f"{side}_client_key_file"),
            timeout_s=self.http_timeout_s,
        )

    def job(self) -> Job:
        """Return what a worker needs to know. Raises ConfigurationError for the rules file."""
        rules, generation = self.rules()
        return Job(
            source=self.endpoint(SideName.SOURCE),
            target=self.endpoint(SideName.TARGET),
            wanted_syntax=self.transfer_syntax,
            on_undecodable=self.on_undecodable,
            on_video=self.on_video,
            proof=self.proof if self.retention_s is None else "stored",
            rules=rules,
            rules_generation=generation,
            keeps_evidence=self.retention_s is not None,
            notes_sums=self.verify_every_s is not None or bool(self.sign),
            signs=bool(self.sign),
            trace_run=self._trace_run(),
            keep_studies_s=86_400.0 * self.keep_studies_days,
            task_timeout_s=self.task_timeout_s,
            spool_above_bytes=self.spool_above_mb * 1024 * 1024,
            transcode=TranscodeOptions(
                verify=self.verify,
                on_wrong_label=self.on_wrong_label,
                hash_samples=self.audit_path is not None,
            ),
        )

    def _trace_run(self) -> str:
        if self.traces_url is None:
            return ""
        # Imported here: settings are read by commands that ask no server.
        from bridge.orthanc.trace_context import THIS_RUN

        return THIS_RUN

    def receiver(self) -> Receiver | None:
        """Return where events are posted to; None for nowhere."""
        if self.webhook_url is None:
            return None
        return Receiver(
            self.webhook_url,
            f"{PREFIX}WEBHOOK_",
            ca_file=self.webhook_ca_file,
            client_cert_file=self.webhook_client_cert_file,
            client_key_file=self.webhook_client_key_file,
        )

    def health_limits(self) -> HealthLimits:
        """Return from where on /health says that something is wrong."""
        return HealthLimits(
            stall_after_s=self.stall_after_s,
            poll_interval_s=self.poll_interval_s,
            lag_limit_s=self.lag_limit_s,
            parked_limit=self.parked_limit,
            verify_every_s=self.verify_every_s,
            carries=bool(self.carried),
            signs=bool(self.sign),
            retains=self.retention_s is not None,
        )

    def names(self) -> BridgeNames:
        """Return what people call this bridge and both servers."""
        return BridgeNames(
            bridge=self.name,
            source_url=self.source_url,
            target_url=self.target_url,
            source_public_url=self.source_public_url or "",
            target_public_url=self.target_public_url or "",
            command_prefix=self.command_prefix,
        )

    def gap_limits(self, *, patience_s: float | None = None) -> GapLimits:
        """Return how many gaps of the feed are remembered, and for how long.

        ``patience_s``: how long a command waits for one.
        """
        return GapLimits(
            count=self.feed_gaps_max, age_s=3600.0 * self.feed_gap_hours, patience_s=patience_s
        )

    def rules(self) -> tuple[tuple[Rule, ...], str]:
        """Read the rules file, and tell by a word which one it is.

        Raises ConfigurationError that names the line.
        """
        if self.rules_file is None:
            return (), ""
        must_be_meant("BRIDGE_RULES_FILE", Path(self.rules_file))
        try:
            with os.fdopen(open_named(Path(self.rules_file)), "rb") as file:
                content = file.read(RULES_BYTES_MAX + 1)
            text = content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"BRIDGE_RULES_FILE cannot be read: {type(exc).__name__}.",
                advice="It must be a UTF-8 text file.",
            ) from exc
        if len(content) > RULES_BYTES_MAX:
            raise ConfigurationError(
                f"BRIDGE_RULES_FILE has more than {RULES_BYTES_MAX} bytes.",
                advice="Use patterns (* and ?) instead of long lists.",
            )
        return parse_rules(text), hashlib.sha256(content).hexdigest()[:GENERATION_DIGITS]

    def check_repairs(self) -> None:
        """Refuse repairs that would never happen. Commands do without: ``check --repair``.

        Raises ConfigurationError.
        """
        if self.repair != "off" and self.verify_every == "off":
            raise ConfigurationError(
                f"{variable_of('repair')} has no effect without verifications.",
                advice=f"Set {variable_of('verify_every')}, such as "
                f"{variable_of('verify_every')}=7d, or {variable_of('repair')}=off.",
            )

    def check_directories(self) -> None:
        """Refuse to keep files where every user may put others. Raises ConfigurationError."""
        if self.shared_directory == "accept":
            return
        for name in ("state_path", "audit_path"):
            path: Path | None = getattr(self, name)
            try:
                reason = "" if path is None else why_not_trusted(path.parent)
            except OSError:
                continue  # whoever opens it says what is wrong with it
            if reason:
                raise ConfigurationError(
                    f"{variable_of(name)} ({path}) {reason}.",
                    advice="Make the directory writable for the bridge's user only (chmod go-w), "
                    "or move the file to a directory of its own. In a container, if nobody "
                    f"else can reach the volume: {variable_of('shared_directory')}=accept.",
                )

    def allowance(self) -> Allowance:
        """Return how much may be moved, and when."""
        return Allowance(
            instances_s=self.max_instances_s,
            mbit_s=self.max_mbit_s,
            schedule=parse_schedule(self.schedule) if self.schedule else None,
            quiet_hours=self.schedule,
            timetable=parse_timetable(self.rate_timetable),
        )

    def retention_rules(self) -> RetentionRules | None:
        """Return when what may be deleted at the source; None for never."""
        if self.retention_s is None:
            return None
        return RetentionRules(
            retention_s=self.retention_s,
            per_hour=self.retention_per_hour,
            day_share=self.retention_day_share,
            trial_s=self.retention_trial_s,
            risks=self.accepted_risks,
            retention=self.source_retention,
        )

    @property
    def accepted_risks(self) -> frozenset[str]:
        """The risks of deletions that the operator accepts."""
        return frozenset(filter(None, self.retention_risk.split(",")))

    @property
    def target_may_lose(self) -> bool:
        """Whether somebody empties the target, and the operator has said so."""
        return not self.accepted_risks.isdisjoint({Risk.TARGET_EMPTIED, Risk.TARGET_RECYCLES})

    @property
    def verify_every_s(self) -> float | None:
        """How often both servers are verified, seconds; None means never."""
        return None if self.verify_every == "off" else _seconds(self.verify_every)

    @property
    def verify_share(self) -> float:
        """The share of instances whose files are compared in each verification, 0 to 1."""
        return float(self.verify_deep.removesuffix("%")) / 100

    @property
    def repair_share(self) -> float:
        """The share of instances that may be repaired or deleted in a day, 0 to 1."""
        return float(self.repair_limit.removesuffix("%")) / 100

    @property
    def mirror_deletions_after_s(self) -> float | None:
        """How long the source must lack what is deleted at the target, seconds; None: never."""
        if self.mirror_deletions == "off":
            return None
        return _seconds(self.mirror_deletions.removeprefix("after:"))

    @property
    def carried(self) -> CarriedNames:
        """What is brought to the target beside the files."""
        return carried_names(self.carry)

    @property
    def sign(self) -> DeliveredSign:
        """What is set at the source where an instance was delivered."""
        return sign_named(self.delivered_sign)

    @property
    def carry_every_s(self) -> float:
        """How often all of that is compared, seconds."""
        return _seconds(self.carry_every)

    @property
    def retention_s(self) -> float | None:
        """How old a delivery is when it may be deleted at the source, seconds; None means never."""
        value = self.source_retention
        return None if value == "keep" else float(value[:-1]) * UNITS_S[value[-1]]


def checked_url(text: str) -> str:
    """Return the address of a server as settings keep it. Raises ValueError that says why not."""
    return _base_url(text)


def variable_of(field: str) -> str:
    """Name the environment variable of a field of Settings."""
    return f"{PREFIX}{field.upper()}"


def known_variables() -> set[str]:
    """Every variable that means something, secrets and their ``_FILE`` forms included."""
    plain = {variable_of(name) for name in Settings.model_fields}
    return plain | set(SECRETS) | {f"{name}_FILE" for name in SECRETS}


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """List ``BRIDGE_*`` variables that mean nothing, each with the nearest one that does, or ""."""
    known = {name.removeprefix(PREFIX) for name in known_variables() | {ENV_FILE}}
    given = environ if environ is not None else {**read_dotenv(), **os.environ}
    unknown = sorted(
        name.removeprefix(PREFIX)
        for name in given
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in known
    )
    nearest = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    return [(PREFIX + name, PREFIX + near[0] if near else "") for name, near in nearest.items()]


def load_settings(**overrides: object) -> Settings:
    """Read and validate the settings.

    ``overrides`` are field values that take the place of the environment's (command-line
    options, tests). Raises ConfigurationError with one line for each setting that is wrong.
    """
    read_dotenv()
    try:
        settings = Settings(_env_file=env_file(), **overrides)  # type: ignore[arg-type,call-arg]
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        advice = "All settings: orthanc-bridge docs configuration."
        if any(error["type"] == "missing" for error in errors):
            advice = f"To be asked for the settings: orthanc-bridge init. {advice}"
        raise ConfigurationError(
            "; ".join(_explain(error) for error in errors) + ".",
            advice=advice,
        ) from None
    for side in SideName:
        credentials_of(side)
    poke_token()
    admin_tokens()
    notify_urls()
    if webhook_secret() is None and settings.webhook_url is not None:
        raise ConfigurationError(
            f"BRIDGE_WEBHOOK_URL is set without {WEBHOOK_SECRET}, which signs the events.",
            advice="Make a secret with: openssl rand -hex 24",
        )
    settings.rules()
    settings.check_directories()
    return settings


def _explain(error: ErrorDetails) -> str:
    location = error["loc"]
    text = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return text
    field = str(location[0])
    name = variable_of(field)
    if error["type"] == "missing":
        return f"{name} is not set: give it a value, for example {name}=http://orthanc:8042"
    seen = os.environ.get(name)
    place = place_in_dotenv(name) if seen is None else ""
    named = f"{name} {place}".rstrip()
    if seen is not None:
        told = "URL" not in name and not _is_like_an_address(seen)
        named += f" is {seen!r}:" if told else ":"
    if error["type"] != "value_error":
        text = _what_it_must_be(field)
    if _is_like_an_address(str(error["input"])):
        text = _QUOTED.sub("a part of it", text)  # whatever the check has found wrong in it
    return f"{named} {text[:1].lower()}{text[1:]}"


NUMBERS: dict[object, str] = {int: "a whole number", float: "a number"}


def _what_it_must_be(name: str) -> str:
    """Say which values a setting takes, with an example.

    In place of pydantic's sentences, which speak of an "input" and of parsing it. A setting of any
    other type has a validator that says it.
    """
    field = Settings.model_fields[name]
    kind = field.annotation
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"must be {', '.join(others)} or {last}"
    longest = max((getattr(limit, "max_length", 0) for limit in field.metadata), default=0)
    if longest:
        return f"must be at most {longest} characters long"
    default = field.get_default(call_default_factory=True)
    example = f"for example {variable_of(name)}={_written(default)}"
    if kind is bool:
        return f"must be true or false, {example}"
    return f"must be {NUMBERS[kind]}{_range_of(field)}, {example}"


def _range_of(field: FieldInfo) -> str:
    """Describe the bounds of a number."""
    limits = {
        word: getattr(limit, word)
        for limit in field.metadata
        for word in ("ge", "gt", "le", "lt")
        if hasattr(limit, word)
    }
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    told = [f"{words[word]} {_written(limit)}" for word, limit in limits.items()]
    return f", {' and '.join(told)}" if told else ""


def _written(value: object) -> str:
    """Write a value as a person writes it into a setting."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value)

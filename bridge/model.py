"""The values that travel between the rooms: frozen, small, picklable.

This file must not know: sockets, files, clocks, logging, settings.
Nothing here carries patient data or a secret: identifiers, UIDs, sizes and times only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase


class SideName(StrEnum):
    """Which of the two servers."""

    SOURCE = "source"
    TARGET = "target"


class SideProblem(StrEnum):
    """What is wrong with a server, as seen from here. Machine readable: part of /health."""

    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    TLS = "tls"
    LOGIN_REFUSED = "login_refused"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    REDIRECTED = "redirected"
    BODY_LIMIT = "body_limit"
    STORAGE_FULL = "storage_full"
    SERVER_ERROR = "server_error"
    NOT_ORTHANC = "not_orthanc"


class Reason(StrEnum):
    """Why an instance is parked or skipped. Machine readable: part of the contract."""

    UNDECODABLE = "undecodable"
    UNSUPPORTED_SYNTAX = "unsupported_syntax"
    WRONG_SYNTAX_LABEL = "wrong_syntax_label"
    NOT_DICOM = "not_dicom"
    TOO_LARGE = "too_large"
    VIDEO = "video"
    VERIFICATION_FAILED = "verification_failed"
    REJECTED_BY_TARGET = "rejected_by_target"
    FILTERED_OUT = "filtered_out"
    IDENTITY_CHANGED = "identity_changed"
    PROOF_MISMATCH = "proof_mismatch"
    SERVER_REFUSES_INSTANCE = "server_refuses_instance"
    TARGET_DIED = "target_died"
    SOURCE_DIED = "source_died"
    TIMED_OUT = "timed_out"
    WORKER_DIED = "worker_died"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"
    GONE = "gone"
    CAME_BACK = "came_back"
    RULE = "rule"
    DRY_RUN = "dry_run"


NEVER_PARKED = frozenset({Reason.GONE, Reason.RULE, Reason.DRY_RUN})
"""Reasons to skip an instance; no parked instance has one of them."""


class Action(StrEnum):
    """What was done to the bytes of an instance."""

    UNCHANGED = "unchanged"
    """Already in the wanted syntax: bytes identical, never parsed."""
    FORWARDED = "forwarded"
    """Not in the wanted syntax, sent as it is because a policy says so."""
    RELABELLED = "relabelled"
    """Rewritten in the wanted syntax; there were no compressed pixels."""
    TRANSCODED = "transcoded"
    """Pixels decoded (and, for a compressed target syntax, encoded again)."""


class ResourceKind(StrEnum):
    """The levels of Orthanc's hierarchy, as their routes name them."""

    PATIENT = "patients"
    STUDY = "studies"
    SERIES = "series"
    INSTANCE = "instances"


@dataclass(frozen=True, slots=True)
class CarriedNames:
    """What is brought to the target beside the files (BRIDGE_CARRY)."""

    labels: bool = False
    metadata: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is anything to bring."""
        return self.labels or bool(self.metadata or self.attachments)


@dataclass(frozen=True, slots=True)
class DeliveredSign:
    """What is set at the source where an instance was delivered (BRIDGE_DELIVERED_SIGN).

    ``label``: where the source has labels. ``metadata``: elsewhere, or everywhere without a label.
    """

    label: str = ""
    metadata: str = ""

    def __bool__(self) -> bool:
        """Tell whether anything is set."""
        return bool(self.label or self.metadata)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is and how to trust it. Credentials are looked up where they are used.

    ``url`` has no trailing slash and no user information. The ``*_file`` values are paths.
    """

    side: SideName
    url: str
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where events are posted to, and how to trust it. ``deadline_s``: for the whole exchange.

    ``prefix``: how the names of its settings begin.
    """

    url: str
    prefix: str
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    deadline_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the source's ``/changes``. ``date`` is UTC, ``YYYYMMDDTHHMMSS``, or "".

    ``resource_id`` is "" where what the row says is no identifier of Orthanc's.
    """

    sequence: int
    change_type: str
    resource_id: str
    date: str


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of ``/changes``, unfiltered by us.

    ``last`` is the answer's ``Last``: the last row's sequence when there are rows, and the
    server's own counter when there are none (which is how a feed that went backwards shows).
    """

    changes: tuple[Change, ...]
    done: bool
    last: int


@dataclass(frozen=True, slots=True)
class Described:
    """What a server tells of an instance with that of many others.

    ``metadata``: Orthanc's. ``size_bytes``: of its file, before any compression by the storage
    area; None where that is not told.
    """

    metadata: Mapping[str, str]
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What ``/system`` tells that matters here."""

    version: str
    api_version: int
    has_extended_changes: bool
    name: str = ""
    plugins_enabled: bool = False
    database_backend: str | None = None
    database_version: int | None = None
    capabilities: tuple[str, ...] = ()
    overwrite_instances: bool | None = None
    maximum_storage_bytes: int | None = None
    maximum_patient_count: int | None = None
    maximum_storage_mode: str | None = None
    ingest_transcoding: str | None = None
    read_only: bool | None = None
    storage_compression: bool | None = None
    user_metadata: Mapping[str, int] = field(default_factory=dict)
    """The numbers of metadata by the names that its configuration gives them; from 1.12 on."""

    @property
    def recycles(self) -> bool | None:
        """Tell whether it deletes old patients when it is full; None where it does not say."""
        limits = self.maximum_storage_bytes, self.maximum_patient_count
        if any(limits) and self.maximum_storage_mode != "Reject":
            return True
        return None if None in limits else False


class SourceDoubt(StrEnum):
    """Why deletions at the source are not followed at the target."""

    RECYCLES = "recycles"
    UNTOLD = "limits_untold"
    SHARED = "shared_database"


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The target's answer to ``POST /instances``. ``study_id``: Orthanc's, "" where not told."""

    instance_id: str
    status: str
    study_id: str = ""


@dataclass(frozen=True, slots=True)
class TranscodeOptions:
    """How strict the transcoder is.

    ``verify``: ``off``, ``all`` or ``sample:N`` (one instance in N, chosen by its identifier so
    that a repeated attempt decides the same way).
    """

    verify: str = "off"
    hold_bytes_max: int = 64 * 1024 * 1024
    """Native pixel data up to this size is decoded completely before the first byte is sent."""
    on_wrong_label: str = "park"
    """``decode``: believe the code stream of a JPEG where its label contradicts it."""
    hash_samples: bool = False
    """Also compute the SHA-256 of the decoded samples (``Transcoded.samples_sha256``)."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know beside the instance: the same for every task of a run.

    ``keeps_evidence``: the MD5 on both sides is wanted, to delete from the source later.
    ``keep_studies_s``: the study of each instance is wanted, and remembered for so long; 0: not.
    ``notes_sums``: the MD5 of what is fetched and sent is wanted, to verify both servers later.
    ``signs``: what was delivered is to be signed at the source.
    ``trace_run``: requests tell which trace they belong to, made with this (orthanc/trace_context);
    "": they do not.
    """

    source: Endpoint
    target: Endpoint
    wanted_syntax: str
    on_undecodable: str = "park"
    on_video: str = "forward"
    proof: str = "answer"
    keeps_evidence: bool = False
    notes_sums: bool = False
    signs: bool = False
    trace_run: str = ""
    keep_studies_s: float = 0.0
    rules: tuple[Rule, ...] = ()
    rules_generation: str = ""
    """The first digits of the SHA-256 of the rules file; "" without one."""
    task_timeout_s: float = 300.0
    spool_above_bytes: int = 64 * 1024 * 1024
    transcode: TranscodeOptions = field(default_factory=TranscodeOptions)

    @property
    def has_urgent(self) -> bool:
        """Whether a rule makes anything urgent."""
        return any(rule.urgent for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Move:
    """One instance to bring to the target.

    ``sequence`` is its row in the source's feed, or None when it was found another way (a
    snapshot). ``changed_at`` is the row's date as the feed gave it, or "".
    """

    instance_id: str
    sequence: int | None = None
    changed_at: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What travels to a worker: identifiers and settings, never image bytes, never a secret.

    ``number`` tells two tasks for the same instance apart. ``again``: this bridge has delivered the
    instance before, so that it may have come back from the target.
    """

    move: Move
    job: Job
    number: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Wall-clock seconds of each stage of one attempt."""

    fetch_s: float = 0.0
    transcode_s: float = 0.0
    deliver_s: float = 0.0
    prove_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All stages together, seconds."""
        return self.fetch_s + self.transcode_s + self.deliver_s + self.prove_s


@dataclass(frozen=True, slots=True)
class Study:
    """Of which study an instance is. ``orthanc_id``: the same on both servers; "" if not known.

    ``uid``: its Study Instance UID. Where that is none, its file tells ""; on record is the Orthanc
    ID in its place, by which people find it.
    """

    uid: str
    orthanc_id: str


@dataclass(frozen=True, slots=True)
class StudyState:
    """What a server says of a study that it holds.

    ``stable``: nothing has come to it for as long as the server waits for more (its StableAge).
    ``last_update``: when something came last, as the server writes it; "" where it does not tell.
    """

    stable: bool
    last_update: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The target holds the instance and said so (G8)."""

    status: str
    action: Action
    source_syntax: str
    target_syntax: str
    sop_instance_uid: str
    source_bytes: int
    target_bytes: int
    stages: StageTimes
    decoder: str = ""
    fallbacks: tuple[str, ...] = ()
    source_md5: str = ""
    target_md5: str = ""
    sent_md5: str = ""
    """Of what was sent (Job.notes_sums); ``target_md5`` is what the target told."""
    source_file: str = ""
    target_file: str = ""
    """The names of both files in their storage areas (Job.keeps_evidence), "" where not told."""
    differing: bool = False
    samples_sha256: str = ""
    """Of the decoded samples, when TranscodeOptions asks for it and there was decoding."""
    trusted: str = ""
    """Where the code stream was believed and not its label (BRIDGE_ON_WRONG_LABEL); "" nowhere."""
    study_id: str = ""
    """Orthanc's, as the target told it; the same on both servers."""
    study: Study | None = None
    """As the file told it (Job.keep_studies_s)."""

    @property
    def already_there(self) -> bool:
        """True when the target had the instance before this attempt."""
        return self.status == "AlreadyStored"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing to deliver: deleted at the source meanwhile, or excluded by a rule.

    ``file_read``: the source has given its file. What is deleted, or excluded by its metadata,
    tells nothing of the source's disk. ``study``: as in Delivered. ``file``: the name of the
    source's file, as in Delivered.
    """

    reason: Reason
    message: str = ""
    source_syntax: str = ""
    file_read: bool = False
    study: Study | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class InstanceFailed:
    """This instance cannot be delivered, and it is the instance's fault.

    ``final``: another attempt would end in the same way, because the bytes stay the same.
    ``study``: as in Delivered.
    """

    reason: Reason
    message: str
    final: bool = False
    source_syntax: str = ""
    sop_instance_uid: str = ""
    study: Study | None = None


@dataclass(frozen=True, slots=True)
class SideFailed:
    """A server is unavailable or refuses us: nothing is wrong with the instance (G4).

    ``specific``: the server answered this request with an error and may serve others (HTTP 500),
    so the instance may be the cause. ``begun``: the server had begun to work on the request when
    it failed, so the request may have brought it down. ``gone``: it did not answer right after it.
    """

    side: SideName
    problem: SideProblem
    message: str
    advice: str = ""
    specific: bool = False
    begun: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class ExecutorFailed:
    """The attempt was lost with its worker or its pool. It does not count as an attempt.

    ``specific``: smaller instances may pass, as on a disk that is full.
    """

    message: str
    advice: str = ""
    specific: bool = False


Outcome = Delivered | Skipped | InstanceFailed | SideFailed | ExecutorFailed


class RuleAction(StrEnum):
    """What a rule does with an instance."""

    TRANSCODE = "transcode"
    FORWARD = "forward"
    SKIP = "skip"


FIELDS = ("syntax", "sop_class", "modality", "remote_aet", "called_aet", "remote_ip")
"""What a rule can look at, beside attributes of the data set and the size."""
SIZE_FACT = "bytes"


def attribute_name(tag: int) -> str:
    """Return the name of the fact that tells the value of an attribute."""
    return f"{tag:08X}"


Facts = Mapping[str, str]
"""What is known of an instance, by field. A field that is missing is not known."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: every condition must hold; ``to`` is a syntax UID where the action has one.

    ``conditions``: the name of a fact and the patterns of which one must match (``*`` and ``?``
    allowed). Facts about attributes are named by the tag, 8 hexadecimal digits; one of their values
    must match. ``larger_than_bytes``, ``smaller_than_bytes``: of the file at the source.
    ``urgent``: what it decides for goes before everything else that waits.
    """

    line: int
    action: RuleAction
    to: str
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    larger_than_bytes: int | None = None
    smaller_than_bytes: int | None = None
    urgent: bool = False

    def matches(self, facts: Facts) -> bool | None:
        """Whether the rule applies; None when that depends on a fact that is not known."""
        held = [self._holds(name, patterns, facts) for name, patterns in self.conditions]
        if self.looks_at_size:
            held.append(self._size_holds(facts))
        if False in held:
            return False
        return None if None in held else True

    @property
    def looks_at_size(self) -> bool:
        """Whether it has a condition about the size of the file."""
        return self.larger_than_bytes is not None or self.smaller_than_bytes is not None

    def first_not_held(self, facts: Facts) -> tuple[str, tuple[str, ...]] | None:
        """Return the first condition that does not hold; None where the rule applies.

        Where all that are known hold, the first one that is not known.
        """
        held = {
            (name, patterns): self._holds(name, patterns, facts)
            for name, patterns in self.conditions
        }
        if self.looks_at_size:
            held[SIZE_FACT, ()] = self._size_holds(facts)
        for wanted in (False, None):
            for condition, holds in held.items():
                if holds is wanted:
                    return condition
        return None

    @staticmethod
    def _holds(name: str, patterns: tuple[str, ...], facts: Facts) -> bool | None:
        if name not in facts:
            return None
        values = {facts[name]} if name in FIELDS else {facts[name], *facts[name].split("\\")}
        return any(fnmatchcase(value, pattern) for value in values for pattern in patterns)

    def _size_holds(self, facts: Facts) -> bool | None:
        if SIZE_FACT not in facts:
            return None
        size = int(facts[SIZE_FACT])
        larger = self.larger_than_bytes is None or size > self.larger_than_bytes
        return larger and (self.smaller_than_bytes is None or size < self.smaller_than_bytes)


class AnswerKind(StrEnum):
    """What kind of answer a server gave when it did not do what was asked."""

    SILENCE = "no answer"
    """No connection, no answer in time, a connection that broke: nothing is told of the request."""
    SETTING = "login, rights, address"
    """401, 403, 404 of another path, a redirect: what is set here or there is wrong."""
    LIMIT = "limit or trouble"
    """408, 411, 413, 429, 502, 503, 504, 507, a database in trouble, a page for people: a smaller
    one, or the same one later, may pass."""
    ERROR = "error"
    """500 and any other error: the instance may be the cause."""
    NOT_OURS = "not about the instance"
    """A good status with an empty file, or with a body that says nothing of the instance."""


_SILENT = frozenset({SideProblem.UNREACHABLE, SideProblem.TIMED_OUT, SideProblem.TLS})
_SETTINGS = frozenset(
    {
        SideProblem.LOGIN_REFUSED,
        SideProblem.FORBIDDEN,
        SideProblem.NOT_FOUND,
        SideProblem.REDIRECTED,
    }
)


def answer_of(failure: SideFailed) -> AnswerKind:
    """Tell what kind of answer a failure was."""
    if failure.problem in _SILENT:
        return AnswerKind.SILENCE
    if failure.problem in _SETTINGS:
        return AnswerKind.SETTING
    if not failure.specific:
        return AnswerKind.LIMIT
    return AnswerKind.NOT_OURS if failure.problem is SideProblem.NOT_ORTHANC else AnswerKind.ERROR


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap on record: the sequences ``first`` to ``last``.

    ``noted_at``: since when it is known, epoch seconds. ``counted``: rows that are gone from it
    vanished after we began to follow the feed, so that they count as missing.
    """

    first: int
    last: int
    noted_at: float
    counted: bool = True


@dataclass(frozen=True, slots=True)
class CounterLag:
    """The counter of a feed stayed at ``counter`` while a row at or above ``position`` was there.

    It stays so until the next change. Rows go with their resources: the same counter without the
    row is no sign of another feed, as long as nothing above ``position`` was read.
    """

    counter: int
    position: int

    def explains(self, counter: int, *, position: int) -> bool:
        """Tell whether a counter below ``position`` is this one."""
        return counter == self.counter and position <= self.position


@dataclass(frozen=True, slots=True)
class OpenGaps:
    """How many gaps there are, how many sequences are in them, and since when the oldest is known.

    ``oldest_at``: epoch seconds; None without any.
    """

    gaps: int = 0
    sequences: int = 0
    oldest_at: float | None = None


NO_GAPS = OpenGaps()

REMEMBERED = 64
"""How many of the last rows of the feed are remembered, to know the feed again by."""


# The dates of a feed's rows.


def epoch_of(date: str) -> float | None:
    """Turn a feed's date (``YYYYMMDDTHHMMSS``, UTC) into epoch seconds; None when it is none."""
    try:
        return datetime.strptime(date, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


LOG_STUCK_S = 5.0
"""A log that has not taken a line for so long is failing."""


@dataclass(frozen=True, slots=True)
class LogState:
    """Whether the log can be written. ``stuck_s``: for how long the oldest line has been tried.

    ``problem``: what the system said; "" where it said nothing, since nobody reads. ``lost``:
    lines since this process began; ``losing``: some were lost and no line says so yet.
    """

    stuck_s: float = 0.0
    problem: str = ""
    waiting: int = 0
    lost: int = 0
    losing: bool = False

    @property
    def failing(self) -> bool:
        """Whether somebody should look after it."""
        return self.losing or self.stuck_s >= LOG_STUCK_S

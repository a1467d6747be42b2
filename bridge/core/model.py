"""The values that travel between the parts: frozen, small, picklable.

This file must not know: sockets, files, clocks, logging, settings.
Nothing here carries patient data or a secret: identifiers, UIDs, sizes and times only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.core.rules import Rule


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
    RULE = "rule"
    DRY_RUN = "dry_run"


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
class Change:
    """One row of the source's ``/changes``. ``date`` is UTC, ``YYYYMMDDTHHMMSS``."""

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
class ServerInfo:
    """What ``/system`` tells that matters here."""

    version: str
    api_version: int
    has_extended_changes: bool
    name: str = ""
    plugins_enabled: bool = False
    database_backend: str | None = None
    overwrite_instances: bool | None = None
    maximum_storage_bytes: int | None = None
    maximum_patient_count: int | None = None
    maximum_storage_mode: str | None = None
    ingest_transcoding: str | None = None
    read_only: bool | None = None
    storage_compression: bool | None = None


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
    hash_samples: bool = False
    """Also compute the SHA-256 of the decoded samples (``Transcoded.samples_sha256``)."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know beside the instance: the same for every task of a run.

    ``keeps_evidence``: the MD5 on both sides is wanted, to delete from the source later.
    """

    source: Endpoint
    target: Endpoint
    wanted_syntax: str
    on_undecodable: str = "park"
    on_video: str = "forward"
    proof: str = "answer"
    keeps_evidence: bool = False
    rules: tuple[Rule, ...] = ()
    task_timeout_s: float = 300.0
    spool_above_bytes: int = 64 * 1024 * 1024
    transcode: TranscodeOptions = field(default_factory=TranscodeOptions)


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

    ``number`` tells two tasks for the same instance apart.
    """

    move: Move
    job: Job
    number: int = 0


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
    differing: bool = False
    samples_sha256: str = ""
    """Of the decoded samples, when TranscodeOptions asks for it and there was decoding."""
    study_id: str = ""
    """Orthanc's, as the target told it; the same on both servers."""

    @property
    def already_there(self) -> bool:
        """True when the target had the instance before this attempt."""
        return self.status == "AlreadyStored"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing to deliver: deleted at the source meanwhile, or excluded by a rule."""

    reason: Reason
    message: str = ""
    source_syntax: str = ""


@dataclass(frozen=True, slots=True)
class InstanceFailed:
    """This instance cannot be delivered, and it is the instance's fault.

    ``final`` means that another attempt cannot end otherwise (the bytes are what they are).
    """

    reason: Reason
    message: str
    final: bool = False
    source_syntax: str = ""
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class SideFailed:
    """A server is unavailable or refuses us: nothing is wrong with the instance (G4).

    ``specific`` is True when the server answered this request with an error while it may well
    serve others (HTTP 500): it may yet turn out to be the instance's fault. ``begun``: the
    server had begun to work on the request when it failed, so that it may have died of it.
    """

    side: SideName
    problem: SideProblem
    message: str
    advice: str = ""
    specific: bool = False
    begun: bool = False


@dataclass(frozen=True, slots=True)
class ExecutorFailed:
    """The attempt was lost with the machinery around it (a pool restarted); costs no attempt.

    ``specific``: smaller instances may well pass, as on a disk that is full.
    """

    message: str
    advice: str = ""
    specific: bool = False


Outcome = Delivered | Skipped | InstanceFailed | SideFailed | ExecutorFailed

"""Settings: environment variables ``BRIDGE_*``, and ``.env`` when there is one.

Validated once, at start. A bad value ends the command with exit code 2 and a message that names
the variable, what was seen and what to do. Secrets are not here: see ``bridge.credentials``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.core.errors import ConfigurationError
from bridge.core.health import HealthLimits
from bridge.core.model import Endpoint, Job, SideName, TranscodeOptions
from bridge.core.pacing import Allowance
from bridge.core.rules import Rule, parse_rules
from bridge.core.schedule import parse_schedule
from bridge.core.syntaxes import target_syntax_uid
from bridge.credentials import POKE_TOKEN, credentials_of, poke_token
from bridge.values import (
    UNITS_S,
    WORKERS_MAX,
    Executor,
    File,
    Retention,
    Schedule,
    Start,
    Url,
    Verify,
    default_workers,
)

PREFIX = "BRIDGE_"
DOTENV_PATH = Path(".env")

SECRETS = (
    *(
        f"{PREFIX}{side}_{what}"
        for side in ("SOURCE", "TARGET")
        for what in ("USERNAME", "PASSWORD", "TOKEN")
    ),
    POKE_TOKEN,
)
"""Looked up by ``bridge.credentials``; each also as ``..._FILE``."""


class Settings(BaseSettings):
    """Every setting that is not a secret. The description of each is its documentation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=DOTENV_PATH,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    source_url: Url = Field(description="Base URL of the first Orthanc; a path prefix is allowed.")
    target_url: Url = Field(description="Base URL of the second Orthanc; a path prefix is allowed.")
    source_ca_file: File = Field(None, description="CA certificates (PEM) to trust the source by.")
    source_client_cert_file: File = Field(None, description="Client certificate (PEM), source.")
    source_client_key_file: File = Field(None, description="Key of that certificate (PEM).")
    target_ca_file: File = Field(None, description="CA certificates (PEM) to trust the target by.")
    target_client_cert_file: File = Field(None, description="Client certificate (PEM), target.")
    target_client_key_file: File = Field(None, description="Key of that certificate (PEM).")
    http_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Longest silence of a server during a request, seconds."
    )
    transfer_syntax: Annotated[str, BeforeValidator(lambda v: target_syntax_uid(str(v)))] = Field(
        "ExplicitVRLittleEndian",
        validate_default=True,
        description="Syntax at the target: DICOM keyword or UID, uncompressed or lossless.",
    )
    state_path: Path = Field(Path("state/bridge.sqlite3"), description="The ledger (SQLite).")
    start: Start = Field(
        "beginning",
        description="Where to start without a checkpoint: beginning, now, snapshot (list what is "
        "there, then follow) or a sequence.",
    )
    on_feed_reset: Literal["stop", "snapshot"] = Field(
        "stop", description="When the source's feed is another one: stop (exit 13) or snapshot."
    )
    on_undecodable: Literal["park", "forward"] = Field(
        "park", description="Corrupt or unsupported pixel data: park, or forward as it is."
    )
    on_video: Literal["forward", "park"] = Field(
        "forward", description="Video and referenced pixel data: forward as it is, or park."
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
        description="Worker processes; default: two more than CPUs.",
    )
    executor: Executor = Field(
        "local",
        description="Where workers run: local, or the Dask scheduler at tcp://HOST:PORT or "
        "tls://HOST:PORT (docs/cluster.md).",
    )
    dask_tls_ca_file: File = Field(
        None, description="CA certificates (PEM) to trust the Dask scheduler by; for tls://."
    )
    dask_tls_cert_file: File = Field(
        None, description="Certificate (PEM) that shows the bridge to the Dask scheduler."
    )
    dask_tls_key_file: File = Field(None, description="Key of that certificate (PEM).")
    worker_memory_mb: int = Field(
        2048, ge=256, description="Address space of one worker process, MB; enforced."
    )
    spool_above_mb: int = Field(
        64, ge=1, description="Larger instances are spooled to disk (TMPDIR) instead of memory, MB."
    )
    max_instances_s: float = Field(
        0.0, ge=0, description="Instances moved a second at most, on average; 0 means no limit."
    )
    max_mbit_s: float = Field(
        0.0,
        ge=0,
        description="Megabits a second at most, both directions together; 0 means no limit.",
    )
    schedule: Schedule = Field(
        "",
        description="Quiet hours in which nothing is moved, for example mon-fri 07:00-19:00 "
        "Europe/Berlin; several are separated by commas.",
    )
    window: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Instances in flight at most; 0 means 3 for each worker (thread of a cluster).",
    )
    task_timeout_s: float = Field(
        300.0, gt=0, le=86_400, description="One attempt at one instance, seconds."
    )
    attempts: int = Field(
        3, ge=1, le=100, description="Attempts at an instance before it is parked."
    )
    poll_interval_s: float = Field(
        1.0, ge=0.05, le=3600, description="Time between two looks at an idle feed, seconds."
    )
    page_size: int = Field(
        1000, ge=1, le=100_000, description="Rows asked for at once while catching up."
    )
    feed_overlap: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Sequences read again at the end of the feed, so that changes that became "
        "visible late and a changed history are noticed.",
    )
    proof: Literal["answer", "stored"] = Field(
        "answer",
        description="What proves arrival: the target's answer, or also the MD5 it then holds.",
    )
    source_retention: Retention = Field(
        "keep",
        description="What to do with delivered instances at the source: keep, or delete them after "
        "a duration such as 24h. Only what is proved is deleted (implies proof=stored).",
    )
    command_patience_s: float = Field(
        60.0,
        ge=0,
        description="How long run --once, replay and parked retry bear an outage, seconds, before "
        "they end with exit code 10 or 11. run itself waits for ever.",
    )
    audit_path: Path | None = Field(
        None,
        description="Proof for the record: a JSON Lines file that gets a line for each instance "
        "(docs/audit.md). Not set: none is written.",
    )
    audit_max_mb: int = Field(
        100, ge=1, le=100_000, description="Size at which the audit file is put aside, MB."
    )
    shutdown_timeout_s: float = Field(
        30.0, ge=0, le=3600, description="How long running instances may finish after SIGTERM."
    )
    health_host: str = Field("127.0.0.1", description="Address of the monitoring server.")
    health_port: int = Field(
        8080, ge=0, le=65_535, description="Its port; 0 means any free port, printed."
    )
    stall_after_s: float = Field(
        600.0, gt=0, description="Work but no progress for this long makes /health say stalled."
    )
    lag_limit_s: float = Field(
        0.0, ge=0, description="Lag that makes /health say lag_above_limit; 0 means no limit."
    )
    parked_limit: int = Field(
        0, ge=0, description="More parked instances than this make /health say parked."
    )
    log_format: Literal["text", "json"] = Field("text", description="Logs: text or json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Logs: debug, info, warning or error."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.source_url == self.target_url:
            raise ValueError("BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL are the same server")
        for side in ("source", "target"):
            key, cert = (getattr(self, f"{side}_client_{what}_file") for what in ("key", "cert"))
            if key is not None and cert is None:
                name = f"{PREFIX}{side.upper()}_CLIENT"
                raise ValueError(f"{name}_KEY_FILE is set, {name}_CERT_FILE is not: set both")
        tls = (self.dask_tls_ca_file, self.dask_tls_cert_file, self.dask_tls_key_file)
        if self.executor.startswith("tls://") and None in tls:
            raise ValueError(
                "BRIDGE_EXECUTOR is a tls:// address: set BRIDGE_DASK_TLS_CA_FILE, "
                "BRIDGE_DASK_TLS_CERT_FILE and BRIDGE_DASK_TLS_KEY_FILE"
            )
        if any(tls) and not self.executor.startswith("tls://"):
            raise ValueError(
                "BRIDGE_DASK_TLS_... is set, but BRIDGE_EXECUTOR is no tls:// address: a cluster "
                "would be spoken to without encryption"
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
        """Return what a worker needs to know."""
        return Job(
            source=self.endpoint(SideName.SOURCE),
            target=self.endpoint(SideName.TARGET),
            wanted_syntax=self.transfer_syntax,
            on_undecodable=self.on_undecodable,
            on_video=self.on_video,
            proof=self.proof if self.retention_s is None else "stored",
            rules=self.rules(),
            keeps_evidence=self.retention_s is not None,
            task_timeout_s=self.task_timeout_s,
            spool_above_bytes=self.spool_above_mb * 1024 * 1024,
            transcode=TranscodeOptions(
                verify=self.verify, hash_samples=self.audit_path is not None
            ),
        )

    def health_limits(self) -> HealthLimits:
        """Return from where on /health says that something is wrong."""
        return HealthLimits(
            stall_after_s=self.stall_after_s,
            poll_interval_s=self.poll_interval_s,
            lag_limit_s=self.lag_limit_s,
            parked_limit=self.parked_limit,
        )

    def rules(self) -> tuple[Rule, ...]:
        """Read the rules file. Raises ConfigurationError that names the line."""
        if self.rules_file is None:
            return ()
        try:
            text = Path(self.rules_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"BRIDGE_RULES_FILE cannot be read: {type(exc).__name__}.",
                advice="It must be a UTF-8 text file.",
            ) from exc
        return parse_rules(text)

    def allowance(self) -> Allowance:
        """Return how much may be moved, and when."""
        return Allowance(
            instances_s=self.max_instances_s,
            mbit_s=self.max_mbit_s,
            schedule=parse_schedule(self.schedule) if self.schedule else None,
            quiet_hours=self.schedule,
        )

    @property
    def retention_s(self) -> float | None:
        """How old a delivery is when the source may let go of it, seconds; None means never."""
        value = self.source_retention
        return None if value == "keep" else float(value[:-1]) * UNITS_S[value[-1]]


def variable_of(field: str) -> str:
    """Name the environment variable of a field of Settings."""
    return f"{PREFIX}{field.upper()}"


def known_variables() -> set[str]:
    """Every variable that means something, secrets and their ``_FILE`` forms included."""
    plain = {variable_of(name) for name in Settings.model_fields}
    return plain | set(SECRETS) | {f"{name}_FILE" for name in SECRETS}


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """List ``BRIDGE_*`` variables that mean nothing, each with the nearest one that does, or ""."""
    known = {name.removeprefix(PREFIX) for name in known_variables()}
    given = environ if environ is not None else {**dotenv_values(DOTENV_PATH), **os.environ}
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
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as exc:
        raise ConfigurationError(
            "; ".join(_explain(error) for error in exc.errors(include_url=False)) + ".",
            advice="All settings are described in docs/configuration.md and .env.example.",
        ) from None
    except (UnicodeDecodeError, OSError) as exc:
        raise ConfigurationError(
            f"The file {DOTENV_PATH} cannot be read: {type(exc).__name__}.",
            advice="Make it readable for the user that runs the bridge, in UTF-8.",
        ) from None  # the cause would carry the file's bytes
    for side in SideName:
        credentials_of(side)
    poke_token()
    settings.rules()
    return settings


def _explain(error: ErrorDetails) -> str:
    location = error["loc"]
    text = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return text
    name = variable_of(str(location[0]))
    if error["type"] == "missing":
        return f"{name} is not set: give it a value, for example {name}=http://orthanc:8042"
    seen = os.environ.get(name)
    found = "" if seen is None else f" is {seen!r}:" if "URL" not in name else ":"
    return f"{name}{found} {text[:1].lower()}{text[1:]}"

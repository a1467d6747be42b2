"""This machine: state file, disk, worker processes, decoders."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bridge.config import Settings
from bridge.dicom.codecs import DECODERS
from bridge.dicom.selftest import decode_sample
from bridge.dicom.syntaxes import Family
from bridge.doctor.diagnosis import ERROR, OK, WARNING, Diagnosis
from bridge.errors import EXIT_BUG, EXIT_CONFIGURATION, EXIT_STATE, InstanceError
from bridge.ledger.lock import there_may_be
from bridge.ledger.store import Ledger
from bridge.model import InstanceFailed, Reason
from bridge.versions import decoder_versions
from bridge.worker.pool import OrderedPool

FREE_BYTES_MIN = 1024**3
WORKER_START_S = 60.0
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where semaphores live, not a temporary file)


def check_state(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the state file can be used. Raises StateError."""
    path = settings.state_path
    if there_may_be(path):
        with Ledger(path, create=False) as ledger:
            checkpoint = ledger.checkpoint()
            parked = sum(ledger.parked_by_reason().values())
        what = f"checkpoint {checkpoint}, {parked} parked"
        yield Diagnosis(OK, "state", f"{path} can be used ({what})")
    else:
        yield Diagnosis(OK, "state", f"{path} will be created by run")
    yield from _directory("state", _existing(path.parent), "BRIDGE_STATE_PATH")


def check_spool(settings: Settings) -> Iterator[Diagnosis]:
    """Whether large instances can be spooled."""
    needed = settings.workers * settings.spool_above_mb * 1024 * 1024
    yield from _directory(
        "spool", Path(tempfile.gettempdir()), "TMPDIR", needed_bytes=max(FREE_BYTES_MIN, needed)
    )


def check_audit(settings: Settings) -> Iterator[Diagnosis]:
    """Whether the audit file can be written, if there is to be one."""
    if settings.audit_path is None:
        return
    path = settings.audit_path
    if path.exists() and not os.access(path, os.W_OK):
        text = f"{path} is not writable"
        yield Diagnosis(ERROR, "audit", text, "Change BRIDGE_AUDIT_PATH.", EXIT_CONFIGURATION)
        return
    yield from _directory("audit", _existing(path.parent), "BRIDGE_AUDIT_PATH")


def check_workers(settings: Settings) -> Iterator[Diagnosis]:
    """Whether worker processes can be started as ``run`` does, within their memory."""
    try:
        multiprocessing.get_context("spawn").Semaphore()
    except OSError as exc:
        yield Diagnosis(
            ERROR,
            "workers",
            f"no worker can be started: semaphores cannot be created ({exc.strerror})",
            f"Give the container a writable {SHARED_MEMORY} (a tmpfs).",
            EXIT_CONFIGURATION,
        )
        return
    problem = _start_one(settings.worker_memory_mb * 1024 * 1024)
    if problem:
        yield Diagnosis(
            ERROR,
            "workers",
            f"no worker process can be started: {problem}",
            "Raise BRIDGE_WORKER_MEMORY_MB, or check the limits of this user (ulimit -a).",
            EXIT_CONFIGURATION,
        )
        return
    text = f"worker processes can be started; run uses {settings.workers}"
    yield Diagnosis(OK, "workers", text)
    cpus = len(os.sched_getaffinity(0))
    if settings.workers > 2 * cpus:
        yield Diagnosis(
            WARNING,
            "workers",
            f"{settings.workers} workers share {cpus} CPUs",
            "Lower BRIDGE_WORKERS: more workers than CPUs help only while they wait for servers.",
        )


def _start_one(memory_bytes: int) -> str:
    """Start a worker that decodes a sample; returns what went wrong, or ""."""
    with OrderedPool(
        _decode_sample,
        workers=1,
        memory_bytes=memory_bytes,
        timeout_s=WORKER_START_S,
        lost_max=0,
    ) as pool:
        ((_, end),) = pool.results([Family.J2K])
    if isinstance(end, InstanceFailed) and end.reason is Reason.TIMED_OUT:
        return f"not ready after {WORKER_START_S:g} s"
    return end if isinstance(end, str) else end.message


def _decode_sample(family: Family) -> str:
    with suppress(InstanceError):  # it started; what the decoder lacks is the decoders' check
        decode_sample(family)
    return ""


def check_decoders() -> Iterator[Diagnosis]:
    """Whether every decoder decodes its built-in sample."""
    for family, decoders in DECODERS.items():
        names = ", ".join(f"{d.name} ({decoder_versions(d.name)})" for d in decoders)
        try:
            decode_sample(family)
        except InstanceError as exc:
            yield Diagnosis(
                ERROR, "decoders", f"{family}: {exc.message}", "Reinstall orthanc-bridge.", EXIT_BUG
            )
        else:
            yield Diagnosis(OK, "decoders", f"{family}: {names}")


def _existing(directory: Path) -> Path:
    """The directory, or the nearest above it that exists."""
    return next(d for d in (directory, *directory.absolute().parents) if d.exists())


def _directory(
    subject: str, directory: Path, setting: str, *, needed_bytes: int = FREE_BYTES_MIN
) -> Iterator[Diagnosis]:
    free = shutil.disk_usage(directory).free
    text = f"{free // 1024**2} MB free in {directory}"
    if not os.access(directory, os.W_OK):
        text = f"{directory} is not writable"
        yield Diagnosis(ERROR, subject, text, f"Change {setting}.", EXIT_STATE)
    elif free < needed_bytes:
        yield Diagnosis(WARNING, subject, text, f"Free space there, or move it with {setting}.")
    else:
        yield Diagnosis(OK, subject, text)

"""A delivery into a file: it proves that an instance can be delivered before an old copy goes.

The same task as a move (worker/transfer.py), to another target: what it would send is written to a
file of ours, brought to the disk and summed, so that it can be sent later, also by another process.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bridge.dicom.orthanc_id import orthanc_id_of
from bridge.model import Outcome, StoreAnswer, Task
from bridge.orthanc import StoredFile
from bridge.own_files import open_own
from bridge.worker.payload import Chunk
from bridge.worker.transfer import moved

PART = ".part"
"""What the name of a file ends with while it is not whole."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """``path``: the file that is to be made. It is there, and whole, when the task is delivered."""

    task: Task
    path: Path


def prepare(preparation: Preparation) -> Outcome:
    """Fetch and transcode one instance, and write what would be sent. Never raises.

    ``Delivered.source_md5`` and ``sent_md5`` are the sums of what was fetched and of the file.
    """
    task = preparation.task
    job = replace(
        task.job, proof="answer", keeps_evidence=False, notes_sums=True, keep_studies_s=0.0
    )
    return moved(replace(task, job=job), into=FileTarget(preparation.path, task.move.instance_id))


class FileTarget:
    """A target that is a file, for one instance."""

    def __init__(self, path: Path, instance_id: str) -> None:
        self._path = path
        self._instance_id = instance_id
        self._md5 = ""
        self._bytes = 0

    def store(
        self,
        body: bytes | Iterable[Chunk],
        *,
        body_bytes: int | None,  # noqa: ARG002 (it is counted)
        deadline_s: float | None,  # noqa: ARG002 (the executor ends what takes too long)
    ) -> StoreAnswer:
        """Write the file: whole under its name, or not at all. Raises OSError, InstanceError.

        The answer's identifier is that of what was written, where it is certain.
        """
        part = self._path.with_name(self._path.name + PART)
        digest = hashlib.md5(usedforsecurity=False)
        number = open_own(part, os.O_RDWR | os.O_TRUNC)
        try:
            with os.fdopen(number, "r+b") as file:
                for chunk in (body,) if isinstance(body, bytes) else body:
                    file.write(chunk)
                    digest.update(chunk)
                file.flush()
                os.fsync(file.fileno())
                self._bytes = file.tell()
                found = _identifier(file.fileno())
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        part.rename(self._path)
        sync_directory(self._path.parent)
        self._md5 = digest.hexdigest()
        return StoreAnswer(found or self._instance_id, "Success")

    def stored_md5(self, instance_id: str) -> str:  # noqa: ARG002 (there is one)
        """Return the MD5 of what was written."""
        return self._md5

    def stored_file(self, instance_id: str) -> StoredFile:  # noqa: ARG002 (there is one)
        """Describe what was written."""
        return StoredFile(self._path.name, self._md5, self._bytes)

    def peers(self) -> dict[str, str]:
        """Return none: a file has no peers."""
        return {}


def _identifier(file: int) -> str:
    mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    try:
        return orthanc_id_of(memoryview(mapped))
    finally:
        # Views of it may live on in a traceback; the mapping goes with the last of them.
        with suppress(BufferError):
            mapped.close()


def sync_directory(directory: Path) -> None:
    """Bring the names in a directory to the disk. Raises OSError."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

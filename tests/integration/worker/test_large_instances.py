"""G7 for any size: 4 GB through a worker of 512 MB, and what it does bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge_process import process_environment

MEMORY_BYTES = 512 * 1024 * 1024
WHOLE_BYTES = 4 * 1024**3 - 16 * 1024 * 1024
"""Native pixel data has 2^32 - 2 bytes at most (PS3.5 section 7.1.1)."""

WORKER = """
import os, sys
from contextlib import contextmanager
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from bridge.worker import payload, template, transfer
from bridge.model import Endpoint, Job, Move, SideName, StoreAnswer, Task
from bridge.orthanc.bodies import InstanceBody
from tests.dicom_samples import file_bytes, small_ct_dataset

pixels, memory, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dataset = small_ct_dataset(rows=1024, columns=1024)
size = 1024 * 1024 * 2
frames = pixels // size
dataset.NumberOfFrames = frames
whole = file_bytes(dataset)
at = whole.rindex(bytes.fromhex("e07f1000") + b"OW")
head = whole[: at + 8] + (frames * size).to_bytes(4, "little")
ID = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
Spooled = payload.tempfile.SpooledTemporaryFile

class Sparse(Spooled):
    # What is zero takes no room on the disk: the test is about memory.
    def write(self, data):
        if self._rolled and not bytes(data[:4096]).strip(bytes(1)) and len(data) == size:
            self._file.seek(len(data), 1)
            return len(data)
        return super().write(data)
    def flush(self):
        if self._rolled:
            self._file.truncate(self._file.tell())
        super().flush()

payload.tempfile.SpooledTemporaryFile = Sparse

class Source:
    endpoint = Endpoint(SideName.SOURCE, "http://s")
    @contextmanager
    def open_instance(self, instance_id, *, deadline_s):
        def chunks():
            yield head
            zeros = bytes(size)
            for _ in range(frames):
                yield zeros
        yield InstanceBody(len(head) + frames * size, chunks())

class Target:
    endpoint = Endpoint(SideName.TARGET, "http://t")
    taken = 0
    def store(self, body, *, body_bytes, deadline_s):
        for piece in [body] if isinstance(body, bytes) else body:
            self.taken += len(piece)
        assert self.taken == body_bytes
        return StoreAnswer(ID, "Success")

source, target = Source(), Target()
transfer.process_client = lambda endpoint: source if endpoint.side is SideName.SOURCE else target
template.prepare_worker(memory, os.getppid())
syntax = ImplicitVRLittleEndian if how == "relabelled" else ExplicitVRLittleEndian
job = Job(source.endpoint, target.endpoint, str(syntax), task_timeout_s=600.0)
outcome = transfer.move(Task(Move(ID, 1), job))
print(type(outcome).__name__, getattr(outcome, "action", outcome))
print(target.taken)
if how == "eats":
    try:
        print(len([bytearray(16 << 20) for _ in range(1000)]))
    except MemoryError:
        print("MemoryError")
"""


def work(pixels: int, how: str, tmp_path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(pixels), str(MEMORY_BYTES), how],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env=process_environment({"TMPDIR": str(tmp_path)}),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["unchanged", "relabelled"])
def test_four_gigabytes_through_a_worker_of_half_of_one(how: str, tmp_path: Path) -> None:
    kind, sent = work(WHOLE_BYTES, how, tmp_path)
    assert kind == f"Delivered {how}"
    assert int(sent) > WHOLE_BYTES - 4 * 1024 * 1024


def test_what_is_asked_for_is_bounded_all_the_same(tmp_path: Path) -> None:
    assert work(4 * 1024 * 1024, "eats", tmp_path)[-1] == "MemoryError"


LIMITED = """
import mmap, tempfile
import numpy
from bridge.worker.template import bound_memory

large = 400 << 20
file = tempfile.TemporaryFile()
file.truncate(4 << 30)
bound_memory(300 << 20)
print(len(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
for ask in (
    lambda: bytes(large),
    lambda: numpy.empty(large, "u1"),
    lambda: mmap.mmap(-1, large, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    lambda: mmap.mmap(file.fileno(), large, access=mmap.ACCESS_COPY),
):
    try:
        ask()
    except (MemoryError, OSError):
        print("refused")
    else:
        print("given")
"""


def test_memory_counts_when_it_is_asked_for_however_it_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        capture_output=True,
        text=True,
        check=True,
        env=process_environment({"TMPDIR": str(tmp_path)}),
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.split() == [str(4 << 30), "refused", "refused", "refused", "refused"]

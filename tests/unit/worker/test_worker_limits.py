"""A worker leaves no core file, whatever limit it was started with: memory holds patient data."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.bridge_process import REPOSITORY

CORE_BYTES = 4096
WORKER = f"""
import os, resource
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
wanted = {CORE_BYTES} if hard == resource.RLIM_INFINITY else max(hard, {CORE_BYTES})
resource.setrlimit(resource.RLIMIT_CORE, (wanted, wanted))
from bridge.worker.template import prepare_worker
before = resource.getrlimit(resource.RLIMIT_CORE)
prepare_worker(1 << 32, os.getppid())
print(*before, *resource.getrlimit(resource.RLIMIT_CORE))
"""


def _may_raise() -> bool:
    """Whether a process here can have a limit above 0: where `ulimit -c` is 0 only root can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(
            resource.RLIMIT_CORE, (soft, max(hard, CORE_BYTES) if hard >= 0 else hard)
        )
    except (ValueError, OSError):
        return False
    return True


def test_a_worker_turns_core_files_off_where_they_were_on() -> None:
    if not _may_raise():
        pytest.skip("ulimit -c is 0 here and cannot be raised: there is nothing to turn off")
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    before_soft, _, soft, hard = map(int, done.stdout.split())
    assert before_soft >= CORE_BYTES, "else this test proves nothing"
    assert (soft, hard) == (0, 0)

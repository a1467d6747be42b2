"""An executor that only looks: what a replay would do, from Orthanc's metadata."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bridge.core.errors import InstanceError, InstanceGone, SideError
from bridge.core.model import InstanceFailed, Job, Outcome, Reason, Skipped, Task
from bridge.sides import SideClient, failure_of

THREADS = 4


class RehearsalExecutor:
    """Asks the source for each instance's syntax and moves nothing."""

    def __init__(self, done: Callable[[Task, Outcome], None], job: Job) -> None:
        self._done = done
        self._job = job
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="rehearsal")

    def submit(self, task: Task) -> None:
        """Look at an instance; the outcome is Skipped(DRY_RUN) with what would be done."""
        self._threads.submit(self._look, task)

    def close(self) -> None:
        """End at once."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _look(self, task: Task) -> None:
        self._done(task, self._outcome(task))

    def _outcome(self, task: Task) -> Outcome:
        try:
            syntax = self._client().instance_metadata(task.move.instance_id).get("TransferSyntax")
        except InstanceGone as exc:
            return Skipped(Reason.GONE, exc.message)
        except InstanceError as exc:
            return InstanceFailed(exc.reason, exc.message, exc.final)
        except SideError as exc:
            return failure_of(exc)
        wanted = task.job.wanted_syntax
        what = "sent unchanged" if syntax == wanted else f"brought into {wanted}"
        return Skipped(Reason.DRY_RUN, f"would be {what} ({syntax or 'unknown'})", syntax or "")

    def _client(self) -> SideClient:
        if not hasattr(self._local, "client"):
            self._local.client = SideClient(self._job.source)
        client: SideClient = self._local.client
        return client

"""An executor that only looks: what a replay would do, from Orthanc's metadata."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bridge.core.crew import Crew
from bridge.core.errors import InstanceError, InstanceGone, SideError
from bridge.core.model import InstanceFailed, Job, Outcome, Reason, Skipped, Task
from bridge.core.syntaxes import syntax_of
from bridge.lookers import inspector
from bridge.orthanc import InspectionClient
from bridge.prospects import Deed, prospect
from bridge.sides import failure_of
from bridge.workers import outcome_of

THREADS = 4

WORDS = {
    Deed.UNCHANGED: "sent unchanged",
    Deed.TRANSCODE: "transcoded",
    Deed.FORWARD: "forwarded as it is",
    Deed.SKIP: "skipped",
    Deed.PARK: "parked",
}


class RehearsalExecutor:
    """Asks the source for each instance's syntax and moves nothing."""

    def __init__(self, done: Callable[[Task, Outcome], None], job: Job) -> None:
        self._done = done
        self._job = job
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="rehearsal")

    def submit(self, task: Task) -> None:
        """Look at an instance; the outcome is Skipped(DRY_RUN) with what would be done."""
        future = self._threads.submit(self._outcome, task)
        future.add_done_callback(lambda ended: self._deliver(task, ended))

    def crew(self) -> Crew:
        """Describe those who look."""
        return Crew(threads=THREADS, workers=THREADS)

    def close(self) -> None:
        """End at once."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, task: Task, ended: Future[Outcome]) -> None:
        if not ended.cancelled():
            self._done(task, outcome_of(task, ended))

    def _outcome(self, task: Task) -> Outcome:
        try:
            found = prospect(self._client(), task.move.instance_id, task.job)
        except InstanceGone as exc:
            return Skipped(Reason.GONE, exc.message)
        except InstanceError as exc:
            return InstanceFailed(exc.reason, exc.message, exc.final)
        except SideError as exc:
            return failure_of(exc)
        ways = " -> ".join(
            syntax_of(uid).keyword for uid in (found.source_syntax, found.target_syntax) if uid
        )
        why = f", {found.why}" if found.why else ""
        text = f"would be {WORDS[found.deed]} ({ways}{why})"
        return Skipped(Reason.DRY_RUN, text, found.source_syntax)

    def _client(self) -> InspectionClient:
        if not hasattr(self._local, "client"):
            self._local.client = inspector(self._job.source)
        client: InspectionClient = self._local.client
        return client

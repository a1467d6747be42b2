"""An executor that only looks: what a replay would do, from Orthanc's metadata."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bridge.checks.ask_both_servers import inspector
from bridge.checks.expected import expected_handling
from bridge.decision import Treatment
from bridge.dicom.syntaxes import syntax_of
from bridge.errors import InstanceError, InstanceGone, SideError, failure_of
from bridge.events import Workforce
from bridge.model import InstanceFailed, Job, Outcome, Reason, Skipped, Task
from bridge.orthanc import OrthancClient
from bridge.worker.pool import failure_of_raised

THREADS = 4

WORDS = {
    Treatment.UNCHANGED: "sent unchanged",
    Treatment.TRANSCODE: "transcoded",
    Treatment.FORWARD: "forwarded as it is",
    Treatment.SKIP: "skipped",
    Treatment.PARK: "parked",
}


class DryRunExecutor:
    """Asks the source for each instance's syntax and moves nothing."""

    def __init__(
        self, done: Callable[[Task, Outcome], None], job: Job, would: Counter[str]
    ) -> None:
        """``would``: count there what would become of each instance."""
        self._done = done
        self._job = job
        self._would = would
        self._counting = threading.Lock()
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="rehearsal")

    def submit(self, task: Task) -> None:
        """Look at an instance; the outcome is Skipped(DRY_RUN) with what would be done."""
        future = self._threads.submit(self._outcome, task)
        future.add_done_callback(lambda ended: self._deliver(task, ended))

    def workforce(self) -> Workforce:
        """Describe those who look."""
        return Workforce(threads=THREADS, workers=THREADS)

    def close(self) -> None:
        """End at once."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, task: Task, ended: Future[Outcome]) -> None:
        if not ended.cancelled():
            raised = ended.exception()
            failed = raised and failure_of_raised(type(raised).__name__)
            self._done(task, failed or ended.result())

    def _outcome(self, task: Task) -> Outcome:
        try:
            found = expected_handling(self._client(), task.move.instance_id, task.job)
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
        word = WORDS[found.treatment]
        with self._counting:
            self._would[word] += 1
        text = f"would be {word} ({ways}{why})"
        return Skipped(Reason.DRY_RUN, text, found.source_syntax)

    def _client(self) -> OrthancClient:
        if not hasattr(self._local, "client"):
            self._local.client = inspector(self._job.source)
        client: OrthancClient = self._local.client
        return client

"""The real machinery, but its workers run ``poisoned_move``."""

from __future__ import annotations

from collections.abc import Callable

from bridge.config import Settings
from bridge.model import Outcome, Task
from bridge.wiring import ClosableExecutor, RealMachinery
from bridge.worker.pool import LocalExecutor
from tests.poison import poisoned_move


class PoisonMachinery(RealMachinery):
    """Sockets, threads and clocks as ever."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._workers = settings.workers
        self._memory_bytes = settings.worker_memory_mb * 1024 * 1024

    def executor(self, done: Callable[[Task, Outcome], None]) -> ClosableExecutor:
        """Make local worker processes with the test's function."""
        return LocalExecutor(
            done,
            workers=self._workers,
            memory_bytes=self._memory_bytes,
            function=poisoned_move,
        )

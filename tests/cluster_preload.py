"""``dask worker --preload tests.cluster_preload``: its processes run ``misbehave``."""

from __future__ import annotations

from bridge.cluster import remote
from tests.worker_functions import misbehave


def dask_setup(worker: remote.DaskWorker) -> None:
    """Start the worker's pool with the test's function."""
    remote.open_pool(worker.state.nthreads, misbehave)

"""``dask worker --preload tests.cluster_preload``: its processes run what TEST_FUNCTION names."""

from __future__ import annotations

import importlib
import os

from bridge.worker.dask import remote


def dask_setup(worker: remote.DaskWorker) -> None:
    """Start the worker's pool with the test's function."""
    module, _, name = os.environ["TEST_FUNCTION"].partition(":")
    remote.open_pool(worker.state.nthreads, getattr(importlib.import_module(module), name))

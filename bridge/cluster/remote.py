"""The name by which workers of every version are asked; moved to bridge/worker/dask/remote.py."""

from bridge.worker.dask.remote import dask_setup, introduce, run

__all__ = ["dask_setup", "introduce", "run"]

"""Workers of a cluster know the bridge's functions by a name that no version changes."""

from __future__ import annotations

from importlib import import_module

import pytest


def test_the_name_of_every_version_and_the_module_are_one() -> None:
    pytest.importorskip("distributed")
    named, remote = (
        import_module(name) for name in ("bridge.cluster.remote", "bridge.worker.dask.remote")
    )
    for function in ("introduce", "run", "dask_setup"):
        assert getattr(named, function) is getattr(remote, function)


def test_an_older_worker_is_asked_by_the_name_that_it_knows() -> None:
    pytest.importorskip("distributed")
    assert import_module("bridge.worker.dask.scheduler").REMOTE == "bridge.cluster.remote"

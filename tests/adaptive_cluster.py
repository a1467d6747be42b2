"""A Dask cluster that scales itself, as a process: ``python -m tests.adaptive_cluster LOW HIGH``.

Prints the scheduler's address and stays until its input ends. docs/cluster.md names the same
target duration.
"""

from __future__ import annotations

import sys

from distributed import LocalCluster

TARGET_DURATION = "250ms"
LEAVE_AFTER = 4
"""Looks, half a second apart, in which a worker was not needed."""


def main() -> None:
    low, high = map(int, sys.argv[1:])
    with LocalCluster(
        n_workers=low,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        preload=["tests.cluster_preload"],
    ) as cluster:
        cluster.adapt(
            minimum=low,
            maximum=high,
            interval="500ms",
            target_duration=TARGET_DURATION,
            wait_count=LEAVE_AFTER,
        )
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()

"""What ``doctor`` finds: each check tells what it saw and what to do about it.

servers.py    the two Orthancs: what they are, what we may, what can lose data
retention.py  what could make the target's copy the only one, or none
machine.py    this machine: state file, disk, worker processes, decoders
cluster.py    the Dask cluster, if workers run on one
diagnosis.py  one diagnosis
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bridge.config import Settings, load_settings, unknown_variables
from bridge.doctor.cluster import check_cluster
from bridge.doctor.diagnosis import NOTE, OK, WARNING, Diagnosis, error_of
from bridge.doctor.machine import (
    check_audit,
    check_decoders,
    check_spool,
    check_state,
    check_workers,
)
from bridge.doctor.retention import check_mirror_deletions, check_retention, check_two_servers
from bridge.doctor.servers import check_clocks, check_source, check_target
from bridge.errors import BridgeError, ConfigurationError, SideError

__all__ = ["NOTE", "OK", "WARNING", "Diagnosis", "diagnose"]

CHECKS = (
    check_two_servers,  # first: the exit code is that of the first error
    check_source,
    check_target,
    check_clocks,
    check_state,
    check_spool,
    check_audit,
    check_workers,
    check_cluster,
    check_retention,
    check_mirror_deletions,
)


def diagnose() -> list[Diagnosis]:
    """Check everything that can be checked; without valid settings, only those and decoders."""
    found = list(_unknown_settings())
    try:
        settings = load_settings()
    except ConfigurationError as exc:
        found.append(error_of("settings", exc))
    else:
        found.append(Diagnosis(OK, "settings", "valid"))
        for check in CHECKS:
            found.extend(_guarded(check, settings))
    found.extend(check_decoders())
    return found


def _guarded(
    check: Callable[[Settings], Iterator[Diagnosis]], settings: Settings
) -> list[Diagnosis]:
    """Run a check to its end or to the error that ends it: others may still find something."""
    found: list[Diagnosis] = []
    try:
        for diagnosis in check(settings):
            found.append(diagnosis)
    except SideError as exc:
        found.append(error_of(exc.side, exc))
    except ConfigurationError as exc:
        found.append(error_of("settings", exc))
    except BridgeError as exc:
        found.append(error_of("state", exc))
    return found


def _unknown_settings() -> Iterator[Diagnosis]:
    try:
        unknown = unknown_variables()
    except ConfigurationError:
        return  # .env cannot be read: told with the settings
    for name, meant in unknown:
        advice = f"Did you mean {meant}?" if meant else "Remove it."
        yield Diagnosis(WARNING, "settings", f"{name} is not a setting and has no effect", advice)

"""Servers for tests: real ones (marked `orthanc`) and fake ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import settings

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import EXECUTABLE_VARIABLE, OrthancServer, find_orthanc
from bridge.errors import ConfigurationError
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient, RetryPolicy
from tests.absent import absent
from tests.bridge_process import running
from tests.fake_orthanc import FakeOrthanc
from tests.fault_proxy import FaultProxy
from tests.shared_samples import FOLDERS

# A busy machine is no failure: what takes long is a matter for the benchmarks.
settings.register_profile("bridge", deadline=None)
settings.load_profile("bridge")

IMPATIENT = RetryPolicy(waits=False)

RAM_DISK = Path("/dev/shm")  # noqa: S108 (a RAM disk, where there is one)
RAM_DISK_BYTES_MIN = 4 * 1024**3


def ram_disk() -> Path | None:
    """Where files of tests may lie that need not survive anything, if there is room."""
    try:
        told = os.statvfs(RAM_DISK)
    except OSError:
        return None
    roomy = told.f_bavail * told.f_frsize >= RAM_DISK_BYTES_MIN
    executes = not told.f_flag & os.ST_NOEXEC  # tests make programs of their own
    return RAM_DISK if roomy and executes and os.access(RAM_DISK, os.W_OK) else None


# Ledgers and Orthancs write durably: on a disk many tests only wait for that. pytest reads it.
if (found := ram_disk()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(found))


LONGEST = (
    "tests/simulation/test_simulation.py",
    "tests/integration/retention/",
    "tests/integration/pipeline/test_faults_crashes.py",
    "tests/integration/mirror/test_mirror_real.py",
    "tests/integration/test_tutorial.py",
    "tests/integration/worker/dask/test_cluster_workers.py",
)
"""Many of these wait for half a minute: begun last, they keep the whole suite waiting."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each process begin with some of the longest tests. (Each takes a part of the list.)"""
    count = int(getattr(config, "workerinput", {}).get("workercount", 1))
    if count > 1:
        items[:] = longest_first(items, count)


def longest_first(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    """Sort tests so that each of ``count`` equal parts begins with its share of the longest."""
    longest = [item for item in items if item.nodeid.startswith(LONGEST)]
    others = iter([item for item in items if not item.nodeid.startswith(LONGEST)])
    ends = [len(items) * part // count for part in range(count + 1)]
    found: list[pytest.Item] = []
    for part in range(count):
        found += longest[part::count]
        found += islice(others, max(0, ends[part + 1] - len(found)))
    return [*found, *others]


def require_orthanc(name: str = "") -> Path:
    """Find the executable; without it fail where tests must run (CI=true), else skip.

    $ORTHANC_EXECUTABLE_SOURCE and _TARGET go before $ORTHANC_EXECUTABLE for servers of that name:
    two versions, as in `make test-matrix`.
    """
    try:
        return Path(os.environ.get(f"{EXECUTABLE_VARIABLE}_{name.upper()}") or find_orthanc())
    except ConfigurationError as exc:
        absent(str(exc))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked ``corpus``, ``cases`` or ``traces`` needs that folder beside the repository."""
    for name, folder in FOLDERS.items():
        if item.get_closest_marker(name) and not folder.is_dir():
            absent(f"the folder shared/{name} is not beside the repository")


@pytest.fixture(autouse=True)
def bridge_logger_as_it_was() -> Iterator[None]:
    """Some tests set up the bridge's logging in this process; the next must not find it."""
    logger = logging.getLogger("orthanc_bridge")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    of_root, root_level = list(logging.root.handlers), logging.root.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    for added in [handler for handler in logging.root.handlers if handler not in of_root]:
        if added.__class__.__module__ == "bridge.log":
            logging.root.removeHandler(added)
    logging.root.setLevel(root_level)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_bridge_is_left() -> Iterator[None]:
    """A bridge that goes on after its test works for nobody, until the last test has ended."""
    before = set(running)
    yield
    for process in (left := running - before):
        process.__exit__()
    assert not left, "the test has started a bridge and has not ended it"


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[..., OrthancServer]]:
    """Start a real server: ``orthanc(name, config=..., username=...)``. Ends with the test."""
    require_orthanc()
    with ExitStack() as stack:

        def start(name: str = "orthanc", **arguments: object) -> OrthancServer:
            executable = require_orthanc(name)
            server = OrthancServer(name, tmp_path / name, executable=executable, **arguments)  # type: ignore[arg-type]
            return stack.enter_context(server)

        yield start


@pytest.fixture
def fake_orthanc() -> Iterator[Callable[..., FakeOrthanc]]:
    """Start a fake server: ``fake_orthanc(extended_changes=True, ...)``. Ends with the test."""
    with ExitStack() as stack:

        def start(**arguments: object) -> FakeOrthanc:
            return stack.enter_context(FakeOrthanc(**arguments))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """Put a fault proxy in front of a port on loopback."""
    with ExitStack() as stack:

        def start(server_port: int) -> FaultProxy:
            return stack.enter_context(FaultProxy(server_port))

        yield start


@pytest.fixture
def client_of() -> Iterator[Callable[..., OrthancClient]]:
    """Make a client: ``client_of(url, side, username=..., ...)``. It retries without waiting."""
    with ExitStack() as stack:

        def make(
            url: str,
            side: SideName = SideName.SOURCE,
            *,
            username: str | None = None,
            password: str | None = None,
            token: str | None = None,
            timeout_s: float = 10.0,
            retries: RetryPolicy = IMPATIENT,
        ) -> OrthancClient:
            endpoint = Endpoint(side, url, timeout_s=timeout_s)
            credentials = Credentials(username, password, token)
            return stack.enter_context(OrthancClient(endpoint, credentials, retries=retries))

        yield make

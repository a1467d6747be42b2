"""``orthanc-bridge demo``: two real Orthancs, the samples, the bridge, a comparison of each.

The bridge itself is handed in (``transfer``, ``serve``): the demo starts servers, loads, judges.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bridge.credentials import Credentials
from bridge.demo.compare_instance import compare_instance
from bridge.demo.instances import Sample, sample_names, sample_set
from bridge.demo.orthanc_server import OrthancServer
from bridge.demo.result_table import (
    DELIVERED,
    REFUSED_BY_SOURCE,
    Row,
    all_right,
    print_rows,
    print_rows_as_json,
    summary,
)
from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError, InstanceError
from bridge.model import Delivered, Endpoint, Move, Outcome, SideName, Skipped
from bridge.orthanc import OrthancClient

DEADLINE_S = 60.0
"""For one instance between the demo itself and one of its servers."""

Announce = Callable[[str], None]

Transfer = Callable[[str, str, Path], Sequence[tuple[Move, Outcome]]]
"""Runs the bridge until everything in the source's feed is settled: (source URL, target URL,
state path) to every outcome, of which the last one of an instance counts."""

Show = Callable[[str, int, int | None], None]
"""Is told the phase, what is done of it, and how much it is."""

Showing = Callable[[], AbstractContextManager[Show]]
"""Shows on a terminal how far it is, until the block ends."""

Serve = Callable[[str, str, Path, Announce], None]
"""Runs the bridge and its monitoring server (source URL, target URL, state path, announce),
announces that server's address, and returns when interrupted."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The samples that the source holds by their Orthanc ID, and those that it would not take."""

    held: Mapping[str, Sample]
    refused: tuple[Sample, ...]


LOOK_AROUND = """
Everything keeps running. Look around:
  source       {source}/app/explorer.html
  target       {target}/app/explorer.html
Send one more instance and find it at the target, decoded:
  curl --data-binary @FILE.dcm {source}/instances"""


def run_demo(
    *,
    keep: bool,
    json_output: bool,
    directory: Path | None,
    announce: Announce,
    transfer: Transfer,
    serve: Serve | None = None,
    showing: Showing = lambda: nullcontext(lambda _phase, _done, _total: None),
    names: Iterable[str] | None = None,
) -> int:
    """Show the whole job on real servers; return the exit code, 0 only if everything is right.

    Servers and ledger live in ``directory``, or in a temporary one that is removed. The result
    goes to stdout, ``announce`` gets progress and addresses (stderr). With ``keep`` everything
    runs on through ``serve`` after the result. ``names`` limits the samples.

    Raises ConfigurationError when ``directory`` is not empty, or without an Orthanc executable or
    the images of the pydicom wheel; SideError or sandbox.ServerFailed when a server fails.
    """
    if keep and serve is None:
        raise ValueError("keep needs serve")
    if directory is not None and directory.is_dir() and any(directory.iterdir()):
        raise ConfigurationError(
            f"The directory {directory} is not empty.",
            advice="Give the demo a new one: it starts from two empty servers.",
        )
    started = time.monotonic()
    chosen = None if names is None else frozenset(names)
    with ExitStack() as stack:
        base = directory or Path(stack.enter_context(TemporaryDirectory(prefix="bridge-demo-")))
        announce("Starting two Orthanc servers.")
        source = stack.enter_context(OrthancServer("source", base / "source"))
        target = stack.enter_context(OrthancServer("target", base / "target"))
        state_path = base / "bridge.sqlite3"
        count = len(sample_names()) if chosen is None else len(chosen)
        with quiet_pydicom(), showing() as show:
            loaded = _load(source.url, sample_set(chosen), show, count)
        announce(f"Loaded {len(loaded.held)} instances into {source.url}; the bridge starts.")
        transfer_started = time.monotonic()
        outcomes = transfer(source.url, target.url, state_path)
        transfer_s = time.monotonic() - transfer_started
        announce(f"The bridge took {transfer_s:.1f} s; comparing every pixel.")
        with quiet_pydicom(), showing() as show:
            rows = _judge(target.url, loaded, outcomes, show)
        took_s = time.monotonic() - started
        if json_output:
            print_rows_as_json(rows)
            announce(summary(rows, took_s))
        else:
            print_rows(rows, took_s)
        if keep and serve is not None:
            announce(LOOK_AROUND.format(source=source.url, target=target.url))
            serve(source.url, target.url, state_path, announce)
    if keep:
        announce("Stopped. The servers and all their files are gone.")
    return EXIT_DONE if all_right(rows) else EXIT_INCOMPLETE


def _load(source_url: str, samples: Iterable[Sample], show: Show, count: int) -> _Loaded:
    held: dict[str, Sample] = {}
    refused = []
    with _client(SideName.SOURCE, source_url) as client:
        for number, sample in enumerate(samples):
            show("loading", number + 1, count)
            try:
                answer = client.store(sample.data, deadline_s=DEADLINE_S)
            except InstanceError:
                refused.append(sample)
                continue
            if answer.status == "Success":
                held[answer.instance_id] = sample
            else:
                refused.append(sample)
    return _Loaded(held, tuple(refused))


def _judge(
    target_url: str, loaded: _Loaded, outcomes: Sequence[tuple[Move, Outcome]], show: Show
) -> list[Row]:
    last = {move.instance_id: outcome for move, outcome in outcomes}
    with _client(SideName.TARGET, target_url) as client:
        rows = []
        for instance_id, sample in loaded.held.items():
            rows.append(_judge_one(client, instance_id, sample, last.get(instance_id)))
            show("comparing", len(rows), len(loaded.held))
    rows += [
        Row(sample.name, REFUSED_BY_SOURCE, sample.syntax, len(sample.data))
        for sample in loaded.refused
    ]
    return rows


def _judge_one(
    client: OrthancClient, instance_id: str, sample: Sample, outcome: Outcome | None
) -> Row:
    """Judge by what the target holds, not by what the bridge says about it."""
    row = Row(sample.name, _state(outcome), sample.syntax, len(sample.data))
    if not isinstance(outcome, Delivered):
        return row
    delivered = bytearray()
    try:
        client.fetch_instance(instance_id, delivered.extend, deadline_s=DEADLINE_S)
    except InstanceError:
        return replace(row, problems=("delivered, but the target does not hold it",))
    compared = compare_instance(sample, bytes(delivered))
    return replace(
        row,
        after=compared.syntax,
        bytes_after=len(delivered),
        stages=outcome.stages,
        decoder=outcome.decoder,
        pixels_equal=compared.pixels_equal,
        compared_with=compared.how,
        largest_difference=compared.largest_difference,
        problems=compared.problems,
    )


def _state(outcome: Outcome | None) -> str:
    """Return ``delivered``, or in a few words why not."""
    if outcome is None:
        return "never moved"
    if isinstance(outcome, Delivered):
        return DELIVERED
    if isinstance(outcome, Skipped):
        return f"skipped: {outcome.reason}"
    return f"failed: {getattr(outcome, 'reason', None) or type(outcome).__name__}"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings: it comments on oddities of the real files, quoting values.

    It also logs each. Our log leaves the text of a library out, so the line would say nothing.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _client(side: SideName, url: str) -> OrthancClient:
    return OrthancClient(Endpoint(side, url), Credentials())

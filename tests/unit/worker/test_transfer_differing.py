"""A target that has another file under the same ID is reported for what it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bridge.events import Settled
from bridge.log import LOGGER
from bridge.model import Delivered, Endpoint, Job, Move, SideName, Task
from bridge.monitoring.logs import LogObserver
from bridge.worker.transfer import move, process_client
from tests.dicom_samples import file_bytes, small_ct_dataset

if TYPE_CHECKING:
    from tests.fake_orthanc import FakeOrthanc

NATIVE = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("same", [True, False])
def test_already_there_with_the_same_or_with_other_bytes(
    same: bool, fake_orthanc: Callable[..., FakeOrthanc], caplog: pytest.LogCaptureFixture
) -> None:
    process_client.cache_clear()
    source, target = fake_orthanc(), fake_orthanc()
    dataset = small_ct_dataset()
    target.put(file_bytes(dataset))
    if not same:
        dataset.SeriesDescription = "sent again after a correction"
    job = Job(
        Endpoint(SideName.SOURCE, source.url),
        Endpoint(SideName.TARGET, target.url),
        wanted_syntax=NATIVE,
    )
    task = Task(Move(source.put(file_bytes(dataset)), 7), job)
    outcome = move(task)
    assert isinstance(outcome, Delivered)
    assert outcome.already_there
    assert outcome.differing is not same
    LOGGER.addHandler(caplog.handler)
    before = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    try:
        LogObserver().on_event(Settled(task.move, outcome, 1))
    finally:
        LOGGER.setLevel(before)
        LOGGER.removeHandler(caplog.handler)
    line = caplog.records[-1]
    assert line.levelno == (logging.INFO if same else logging.WARNING)
    assert ("OTHER BYTES" in line.getMessage()) is not same

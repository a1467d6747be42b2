"""What the demo says while it works."""

from __future__ import annotations

import logging
import warnings

import pytest
from pydicom.misc import warn_and_log

from bridge.demo.run_demo import quiet_pydicom


def test_what_pydicom_finds_odd_is_neither_warned_of_nor_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet_pydicom():
            warn_and_log("an odd value")
    assert caplog.records == []
    assert logger.level == level

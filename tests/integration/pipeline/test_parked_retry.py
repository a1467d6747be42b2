"""A parked instance arrives by itself once the target's filter is gone, between real servers."""

from __future__ import annotations

import json
import signal
import sqlite3

import pytest

from tests.dicom_samples import small_series
from tests.integration.conftest import Pair

pytestmark = pytest.mark.orthanc


def let_hours_pass(pair: Pair, hours: float) -> None:
    """Make what is parked older than it is."""
    db = sqlite3.connect(pair.state_path)
    db.execute("UPDATE parked SET tried_at = tried_at - ?", (3600.0 * hours,))
    db.execute("DELETE FROM meta WHERE key = 'parked_retry_from'")
    db.commit()
    db.close()


def test_it_is_delivered_after_its_interval_and_not_before(pair: Pair) -> None:
    sent = [pair.send(data) for data in small_series(3)]
    pair.filter_out(everything=True)
    assert pair.run("run", "--once").exit_code == 3
    assert pair.parked() == {"filtered_out": 3}
    pair.filter_out(everything=False)
    assert pair.run("run", "--once").exit_code == 3, "it is too soon"
    assert pair.held() == set()

    pair.filter_out(everything=True)
    let_hours_pass(pair, 2)
    assert pair.run("run", "--once").exit_code == 3
    listed = json.loads(pair.run("parked", "list", "--json").stdout)
    assert [one["retries"] for one in listed] == [1, 1, 1]
    assert all(one["next_retry"] == "time" for one in listed)

    pair.filter_out(everything=False)
    let_hours_pass(pair, 5)
    bridge = pair.start("run", PARKED_RETRIES_PER_HOUR="3600")
    bridge.wait_logged("parked_retried", 3)
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0
    assert pair.held() == set(sent)
    assert pair.parked() == {}

"""Every command that notes studies knows up to when the last process has forgotten some."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bridge.ledger.store import FORGOTTEN_KEY, Ledger
from tests.dicom_samples import small_ct
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair

DAY_S = 86_400.0


@pytest.mark.parametrize("arguments", [("run", "--once"), ("replay", "--from", "1")])
def test_the_time_off_makes_no_study_old(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The clock may have been wrong at the start. Planted, seen to fail: not asked."""
    source, target = fake_orthanc(), fake_orthanc()
    with closing(FakePair(source.url, target.url, tmp_path / "home")) as pair:
        source.put(small_ct())
        assert pair.run("run", "--once").exit_code == 0
        then = time.time() - 1000 * DAY_S
        with Ledger(pair.state_path, create=False) as ledger:
            known = ledger.studies_forgotten_before()
            assert known is not None
            ledger.set_meta(FORGOTTEN_KEY, repr(then))
        source.put(small_ct())
        assert pair.run(*arguments).exit_code == 0
        with Ledger(pair.state_path, create=False) as ledger:
            now_known = ledger.studies_forgotten_before()
        assert now_known is not None
        assert then < now_known < then + DAY_S

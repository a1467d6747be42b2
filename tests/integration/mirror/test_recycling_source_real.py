"""A real source that recycles, and deletions that are to follow: the last copies stay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.verifications import last_verification, source_doubt
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.integration.conftest import ORTHANC, Pair

pytestmark = pytest.mark.orthanc

MIRRORING = {"VERIFY_EVERY": "1s", "VERIFY_RATE": "0", "MIRROR_DELETIONS": "after:0s"}
SENT = 6


def patient(number: int) -> bytes:
    """The only instance of a patient: 512 KB."""
    dataset = small_ct_dataset(rows=512, columns=512, seed=number)
    dataset.PatientID = f"P{number}"
    return file_bytes(dataset)


@pytest.mark.parametrize("limit", [{"MaximumPatientCount": 2}, {"MaximumStorageSize": 1}])
def test_what_a_source_has_recycled_stays_at_the_target(
    orthanc: Callable[..., OrthancServer], tmp_path: Path, limit: dict[str, int]
) -> None:
    """Also what somebody deletes there: nobody could tell it from what was recycled."""
    with ExitStack() as stack:
        source = orthanc("source", config=ORTHANC | limit)
        pair = Pair(source, orthanc("target", config=ORTHANC), tmp_path, stack)
        bridge = pair.start("run", **MIRRORING)
        sent = []
        for number in range(SENT):
            sent.append(pair.send(patient(number)))
            wait_until(lambda: sent[-1] in pair.held(), "it is delivered")
        left = set(pair.source.list_instances(0, 100))
        assert 0 < len(left) < SENT, "the source has recycled"
        assert pair.source.delete_instance(sent[-1])

        def lacking() -> int:
            with pair.ledger() as ledger:
                return ledger.lacking_count()

        def begun_at() -> float:
            with pair.ledger() as ledger:
                last = last_verification(ledger)
                return 0.0 if last is None else last.begun_at

        def is_after(before: float) -> bool:
            return begun_at() > before

        gone = SENT - len(left) + 1
        with pair.ledger() as ledger:
            tells = source_doubt(ledger) == "recycles"  # Orthanc 1.12 and newer
        if not tells:
            wait_until(lambda: lacking() == gone, "verifications know what the source lacks")
        for _ in range(3):
            wait_until(partial(is_after, begun_at()), "another one")
        assert pair.held() == set(sent)
        assert not bridge.logged("target_deletes")
        bridge.wait_health(
            lambda h: "deletions_refused" in {reason["code"] for reason in h["reasons"]},
            "it says so",
        )
        # The next start says so, too, and deletes nothing either.
        bridge.kill()
        bridge = pair.start("run", **MIRRORING)
        bridge.wait_logged("deletions_refused")
        wait_until(partial(is_after, begun_at()), "a verification after the restart")
        assert pair.held() == set(sent)

"""Studies of a real bridge between two real Orthancs: in JSON and on the command line."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom import dcmread

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, small_ct_dataset, small_series
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc


def test_each_study_tells_what_arrived_and_what_is_parked(pair: Pair) -> None:
    files = [*small_series(5), undecodable_ct()]
    *whole, bad = [pair.send(data) for data in files]
    seen = Counter(str(dcmread(io.BytesIO(data)).StudyInstanceUID) for data in files)
    lacking_uid = str(dcmread(io.BytesIO(files[-1])).StudyInstanceUID)
    bridge = pair.start("run")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is settled")
    with httpx.Client(base_url=bridge.url, trust_env=False) as client:
        told = client.get("/api/studies").json()
        assert {one["uid"]: one["seen"] for one in told["studies"]} == seen
        # The same on both servers, whether the target told it or the file.
        for one in told["studies"]:
            assert pair.source.lookup(one["uid"]) == [("Study", one["orthanc_id"])]
        (lacking,) = client.get("/api/studies?incomplete=1").json()["studies"]
        assert (lacking["delivered"], lacking["parked"]) == (lacking["seen"] - 1, 1)
        one = client.get("/api/studies", params={"search": lacking["orthanc_id"]}).json()
        assert [parked["instance"] for parked in one["parked"]] == [bad]
    uid = lacking["uid"]
    assert uid == lacking_uid
    shown = pair.run("studies", "show", uid, "--json")
    assert shown.exit_code == 3
    assert [one["instance"] for one in json.loads(shown.stdout)["parked_instances"]] == [bad]
    listed = pair.run("parked", "list", "--study", uid, "--json")
    assert [one["instance"] for one in json.loads(listed.stdout)] == [bad]
    assert pair.run("parked", "list", "--study", "1.2.3", "--json").stdout.strip() == "[]"
    done = pair.run("parked", "retry", "--study", uid, ON_UNDECODABLE="forward")
    assert done.exit_code == 0, done.stderr
    shown = pair.run("studies", "show", uid)
    assert shown.exit_code == 0, shown.stdout
    assert pair.run("studies", "list", "--incomplete").stdout == "No study lacks instances.\n"
    assert {*whole, bad} == pair.held()


def test_an_instance_that_is_sent_again_has_arrived(
    orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    overwrites = {"OverwriteInstances": True}
    source, target = (orthanc(name, config=overwrites) for name in ("source", "target"))
    with ExitStack() as stack:
        pair = Pair(source, target, tmp_path, stack)
        files = small_series(3)
        sent = {pair.send(data) for data in files}
        bridge = pair.start("run")
        wait_until(lambda: pair.held() == sent, "all has arrived")
        bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is settled")
        pair.send(files[1])
        bridge.wait_logged("instance_skipped", reason="came_back")
        bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "that, too")
        (study,) = bridge.get("/api/studies")[1]["studies"]
        assert (study["seen"], study["delivered"], study["skipped"]) == (3, 3, 0)


def test_a_study_without_a_valid_uid_is_listed_by_its_identifier(pair: Pair) -> None:
    dataset = small_ct_dataset()
    with pydicom.config.disable_value_validation():
        dataset.StudyInstanceUID = "Doe^Jane"
        sent = pair.send(file_bytes(dataset))
    assert pair.run("run", "--once").exit_code == 0
    (listed,) = json.loads(pair.run("studies", "list", "--json").stdout)
    assert listed["uid"] == listed["orthanc_id"]
    assert pair.source.instances_of_study(listed["orthanc_id"]) == [sent]
    shown = pair.run("studies", "show", listed["uid"])
    assert shown.exit_code == 0
    assert "Doe" not in shown.stdout

"""Ways into a real Orthanc that hospitals use: C-STORE, DICOMweb, many at once, any name."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from bridge.model import Reason
from tests.absent import absent
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, identity_of, small_ct, small_ct_dataset, small_series
from tests.integration.conftest import Between, post

pytestmark = pytest.mark.orthanc

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def test_many_patients_at_once_with_a_small_stable_age(between: Between) -> None:
    """Rows of other types come between, and after the last instance."""
    busy = {"StableAge": 1}
    bench, *_servers = between(source=busy, target=busy)
    bridge = bench.start("run")
    files = [
        [small_ct(patient_id=f"P{writer}-{number // 2}") for number in range(20)]
        for writer in range(6)
    ]
    sent: list[str] = []
    writers = [
        threading.Thread(
            target=lambda mine=mine: sent.extend(post(bench.source.endpoint.url, d) for d in mine)
        )
        for mine in files
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(sent) == 120
    bench.await_all(sent, timeout_s=60)
    wait_until(
        lambda: "StablePatient" in str(bench.source.changes(0, 100_000)), "patients are stable"
    )
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)


NAMES = {
    "ISO_IR 100": "Øksendål-Ü1",
    "ISO_IR 144": "Щука-7",
    "ISO_IR 192": "小東-ŻÓŁĆ",
    "\\ISO 2022 IR 87": "山田-3",
}


def test_identifiers_that_are_not_ascii(between: Between) -> None:
    bench, *_servers = between()
    sent = {}
    for charset, name in NAMES.items():
        dataset = small_ct_dataset(patient_id=name)
        dataset.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
        dataset.AccessionNumber = name[:16]
        data = file_bytes(dataset)
        sent[bench.send(data)] = data
    assert len(sent) == len(NAMES)
    done = bench.run("run", "--once", PROOF="stored")
    assert done.exit_code == 0, done.stderr
    assert {instance_id: bench.file(instance_id) for instance_id in sent} == sent
    assert not any(name in done.stderr for name in NAMES.values())


def test_servers_that_read_an_identifier_differently(between: Between) -> None:
    """Bytes without a character set, and another DefaultEncoding: another ID, and said why."""
    bench, *_servers = between(
        source={"DefaultEncoding": "Latin1"}, target={"DefaultEncoding": "Cyrillic"}
    )
    dataset = small_ct_dataset(patient_id="Øksendål")
    data = file_bytes(dataset)
    assert "Øksendål".encode("latin-1") in data
    bad = bench.send(data)
    good = bench.send(small_ct())
    done = bench.run("run", "--once", "--json")
    assert good in bench.held()
    assert done.exit_code == 3
    assert bench.parked()[bad].reason is Reason.IDENTITY_CHANGED
    assert "DefaultEncoding" in bench.parked()[bad].message


DICOM_FILES = {
    "-xw": "693_J2KI.dcm",
    "-xr": "MR_small_RLE.dcm",
    "-xv": "MR_small_jp2klossless.dcm",
}
"""By the option with which storescu proposes its syntax."""


def test_what_a_modality_sends_by_dicom(between: Between) -> None:
    storescu = shutil.which("storescu") or absent("no storescu (Debian: apt-get install dcmtk)")
    bench, source, _target = between(source={"DicomAlwaysAllowStore": True})
    bridge = bench.start("run")
    studies = {}
    for proposal, name in DICOM_FILES.items():
        path = str(get_testdata_file(name, download=False))
        address = ["127.0.0.1", str(source.dicom_port), path]
        command = [storescu, "--required", "-aet", "MODALITY", proposal, *address]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        studies[identity_of(Path(path).read_bytes()).orthanc_id] = path
    assert set(bench.source.list_instances(0, 100)) == set(studies)
    bench.await_all(studies)
    bench.await_settled(bridge)
    bench.assert_delivered_once(studies)
    for instance_id, path in studies.items():
        before, after = dcmread(path), dcmread(io.BytesIO(bench.file(instance_id)))
        assert not after.file_meta.TransferSyntaxUID.is_encapsulated
        assert (after.pixel_array == before.pixel_array).all()
        assert bench.source.instance_metadata(instance_id)["RemoteAET"] == "MODALITY"


def test_what_arrives_by_dicomweb(between: Between) -> None:
    if not DICOMWEB.exists():
        absent(f"{DICOMWEB.name} is not here (Debian: apt-get install orthanc-dicomweb)")
    if os.environ.get("ORTHANC_EXECUTABLE") or os.environ.get("ORTHANC_EXECUTABLE_SOURCE"):
        pytest.skip("the plugin belongs to Debian's own Orthanc, not to the one that was named")
    bench, source, _target = between(source={"Plugins": [str(DICOMWEB)]})
    files = small_series(5)
    parts = b"".join(
        b"--part\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in files
    )
    answer = httpx.post(
        f"{source.url}/dicom-web/studies",
        content=parts + b"--part--",
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=part'},
    )
    answer.raise_for_status()
    sent = {identity_of(data).orthanc_id: data for data in files}
    assert set(bench.source.list_instances(0, 100)) == set(sent)
    done = bench.run("run", "--once", PROOF="stored")
    assert done.exit_code == 0, done.stderr
    assert {instance_id: bench.file(instance_id) for instance_id in sent} == sent
    bench.assert_delivered_once(sent)

"""The identifier that Orthanc computes, from the file alone."""

from __future__ import annotations

import hashlib

import pydicom.config
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from bridge.dicom.facts import HEAD_BYTES
from bridge.dicom.orthanc_id import orthanc_id_of, study_of_file
from bridge.model import Study
from tests.dicom_samples import file_bytes, identity_of, small_ct, small_ct_dataset


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
@pytest.mark.parametrize("patient", ["", "P", "PAT-1 ", "a" * 64])
def test_it_is_the_one_that_orthanc_computes(syntax: UID, patient: str) -> None:
    dataset = small_ct_dataset()
    dataset.PatientID = patient
    dataset.file_meta.TransferSyntaxUID = syntax
    data = file_bytes(dataset)
    assert orthanc_id_of(memoryview(data)) == identity_of(data).orthanc_id


def test_what_is_not_certain_is_not_told() -> None:
    dataset = small_ct_dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientID = "P\u00e4"
    assert orthanc_id_of(memoryview(file_bytes(dataset))) == ""
    del dataset.PatientID
    del dataset.StudyInstanceUID
    assert orthanc_id_of(memoryview(file_bytes(dataset))) == ""


@pytest.mark.parametrize(("characters", "known"), [(1024, True), (1026, False)])
def test_a_value_that_no_identifier_has_is_not_certain(characters: int, *, known: bool) -> None:
    dataset = small_ct_dataset()
    dataset.PatientID = "P" * 64
    data = file_bytes(dataset)
    short = b"\x10\x00\x20\x00LO\x40\x00" + b"P" * 64
    assert data.count(short) == 1
    long = b"\x10\x00\x20\x00LO" + characters.to_bytes(2, "little") + b"P" * characters
    assert bool(orthanc_id_of(memoryview(data.replace(short, long)))) is known


def test_the_study_is_told_by_the_head_of_the_file() -> None:
    dataset = small_ct_dataset()
    dataset.PatientID = "P"
    dataset.StudyInstanceUID = "1.2.3"
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        dataset.file_meta.TransferSyntaxUID = syntax
        found = study_of_file(memoryview(file_bytes(dataset)))
        assert found is not None
        digest = hashlib.sha1(b"P|1.2.3", usedforsecurity=False).hexdigest()
        assert found.uid == "1.2.3"
        assert found.orthanc_id.replace("-", "") == digest
    whole = file_bytes(dataset)
    assert study_of_file(memoryview(whole)) == found


def test_a_study_that_is_not_certain_is_not_told() -> None:
    dataset = small_ct_dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientID = "P\u00e4"
    dataset.StudyInstanceUID = "1.2.3"
    assert study_of_file(memoryview(file_bytes(dataset))) == Study("1.2.3", "")
    # Whatever else stands there may be a name: it would be kept and shown.
    with pydicom.config.disable_value_validation():
        dataset.StudyInstanceUID = "Doe^John"
        assert study_of_file(memoryview(file_bytes(dataset))) == Study("", "")
        dataset.PatientID = "P"
        digest = hashlib.sha1(b"P|Doe^John", usedforsecurity=False).hexdigest()
        found = study_of_file(memoryview(file_bytes(dataset)))
        assert found is not None
        assert (found.uid, found.orthanc_id.replace("-", "")) == ("", digest)
    del dataset.StudyInstanceUID
    assert study_of_file(memoryview(file_bytes(dataset))) is None
    dataset.StudyInstanceUID = "1.2.3"
    dataset.PatientName = "x"
    dataset.add_new(0x00190010, "LO", "long")
    dataset.add_new(0x00191001, "OB", bytes(HEAD_BYTES))
    assert study_of_file(memoryview(file_bytes(dataset))) is None, "no more than the head is read"


@given(st.integers(0, 2_000), st.binary(max_size=20))
def test_any_damage_is_an_identifier_or_nothing(at: int, damage: bytes) -> None:
    data = small_ct()
    orthanc_id_of(memoryview(data[:at] + damage + data[at + len(damage) :]))
    orthanc_id_of(memoryview(data[:at]))
    study_of_file(memoryview(data[:at] + damage + data[at + len(damage) :]))
    study_of_file(memoryview(data[:at]))
    study_of_file(memoryview(damage))
    orthanc_id_of(memoryview(damage))

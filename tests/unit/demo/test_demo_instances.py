"""The demo's instances: which syntaxes, and are they what they say they are."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames, parse_basic_offsets

from bridge.demo import images
from bridge.demo import pydicom_wheel as wheel
from bridge.demo.build_file import build
from bridge.demo.instances import Sample, sample_names, sample_set
from bridge.demo.pydicom_wheel import separate_instance, wheel_bytes
from bridge.demo.recipes import RECIPES
from bridge.dicom.syntaxes import SYNTAXES, Kind
from bridge.errors import ConfigurationError

NO_ENCODER = {"JPEGSpectralSelectionNonHierarchical68", "JPEGFullProgressionNonHierarchical1012"}
SAMPLES = {sample.name: sample for sample in sample_set()}


def dataset_of(name: str) -> Dataset:
    return dcmread(BytesIO(SAMPLES[name].data))


def orthanc_id(sample: Sample) -> str:
    dataset = dcmread(BytesIO(sample.data), stop_before_pixels=True)
    keys = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    text = "|".join(str(dataset.get(key, "")) for key in keys)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def test_every_syntax_that_can_be_decoded_and_encoded_appears() -> None:
    decodable = {s.uid for s in SYNTAXES.values() if s.kind in (Kind.NATIVE, Kind.ENCAPSULATED)}
    missing = decodable - {sample.syntax for sample in SAMPLES.values()}
    assert {SYNTAXES[uid].keyword for uid in missing} == NO_ENCODER


def test_label_of_each_file_is_the_syntax_of_the_sample() -> None:
    for sample in SAMPLES.values():
        meta = dcmread(BytesIO(sample.data), stop_before_pixels=True).file_meta
        assert meta.TransferSyntaxUID == sample.syntax, sample.name


def test_every_sample_is_an_orthanc_instance_of_its_own() -> None:
    assert len({orthanc_id(sample) for sample in SAMPLES.values()}) == len(SAMPLES)


@pytest.mark.slow
def test_encoded_samples_are_the_same_bytes_every_time() -> None:
    again = {recipe.name: build(recipe).data for recipe in RECIPES}
    assert [name for name, data in again.items() if SAMPLES[name].data != data] == []


def test_encoded_samples_carry_made_up_identities_only() -> None:
    for recipe in RECIPES:
        dataset = dataset_of(recipe.name)
        assert dataset.PatientID == "DEMO", recipe.name
        names = {str(e.value) for e in dataset.iterall() if e.VR == "PN"}
        assert names == {"DEMO^ORTHANC-BRIDGE"}, recipe.name
        assert not any(e.keyword.startswith("Institution") for e in dataset), recipe.name


def test_names_filter_keeps_the_order_and_refuses_unknown_names() -> None:
    chosen = [s.name for s in sample_set(["mr12-rle", "CT_small"])]
    assert chosen == ["CT_small", "mr12-rle"]
    assert [s.name for s in sample_set()] == list(sample_names())
    with pytest.raises(ConfigurationError, match="no-such-sample"):
        list(sample_set(["no-such-sample"]))


def test_a_pydicom_without_its_images_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wheel, "TEST_FILES", tmp_path)
    wheel_bytes.cache_clear()  # the samples above filled it
    with pytest.raises(ConfigurationError, match="no test file CT_small"):
        wheel_bytes("CT_small.dcm")


def test_separate_instance_changes_the_uid_and_nothing_else() -> None:
    before = wheel_bytes("MR_small_RLE.dcm")
    after = separate_instance(before, "a key")
    uids = [dcmread(BytesIO(data)).SOPInstanceUID for data in (before, after)]
    assert uids[0] != uids[1]
    assert len(before) == len(after)
    assert after.replace(uids[1].encode(), uids[0].encode()) == before
    assert uids[1].is_valid


def test_shapes_and_depths_that_the_set_promises() -> None:
    described = {
        (d.BitsAllocated, d.BitsStored, d.PixelRepresentation, d.PhotometricInterpretation)
        for d in map(dataset_of, SAMPLES)
        if "PixelData" in d
    }
    assert {(1, 1, 0, "MONOCHROME2"), (8, 8, 0, "PALETTE COLOR"), (16, 12, 0, "MONOCHROME2"),
            (16, 16, 1, "MONOCHROME2"), (16, 16, 0, "MONOCHROME2"), (32, 32, 0, "MONOCHROME2"),
            (8, 8, 0, "YBR_RCT"), (8, 8, 0, "YBR_ICT"), (8, 8, 0, "YBR_FULL_422"),
            (8, 8, 0, "YBR_FULL"), (32, 32, 0, "RGB")} <= described  # fmt: skip


def test_fragment_layouts_that_the_set_promises() -> None:
    empty = dataset_of("ct-frames-jpegls")
    assert parse_basic_offsets(empty.PixelData) == []
    assert empty.NumberOfFrames == 3
    extended = dataset_of("ct-frames-j2k")
    assert len(extended.ExtendedOffsetTable) == 3 * 8
    fragmented = dataset_of("rgb-frames-j2k")
    assert len(parse_basic_offsets(fragmented.PixelData)) == 3
    assert fragmented.PixelData.count(b"\xfe\xff\x00\xe0") >= 1 + 9


def test_icons_are_native_in_one_and_encapsulated_in_another() -> None:
    for name, encapsulated in (("mr8-lossless-icon", True), ("mr8-rle-icon", False)):
        item = dataset_of(name).IconImageSequence[0]
        assert item["PixelData"].is_undefined_length is encapsulated
        assert SAMPLES[name].icon is not None


def test_lossy_samples_are_marked_and_near_their_originals() -> None:
    near = (
        ("mr12-jpegls-near", imagecodecs.jpegls_decode, 2),
        ("mr12-j2k-lossy", imagecodecs.jpeg2k_decode, 20),
        ("mr12-jpeg-extended", imagecodecs.jpeg8_decode, 20),
    )
    original = images.mr_12bit().samples[0, ..., 0].astype(int)
    for name, decode, furthest in near:
        dataset = dataset_of(name)
        assert dataset.LossyImageCompression == "01"
        codestream = next(generate_frames(dataset.PixelData, number_of_frames=1))
        difference = np.abs(decode(codestream).astype(int) - original)
        assert 0 < difference.max() <= furthest, name


def test_htj2k_rpcl_has_the_progression_and_markers_that_its_syntax_requires() -> None:
    frame = next(generate_frames(dataset_of("mr8-htj2k-rpcl").PixelData, number_of_frames=1))
    cod = frame.index(b"\xff\x52")
    assert frame[cod + 5] == 2  # RPCL
    assert b"\xff\x55" in frame[: cod + 200]  # TLM


@pytest.mark.parametrize("name", ["report-jpeg-lossless", "plan-j2k"])
def test_compressed_label_without_pixel_data(name: str) -> None:
    dataset = dataset_of(name)
    assert "PixelData" not in dataset
    assert SYNTAXES[str(dataset.file_meta.TransferSyntaxUID)].encapsulated

"""The truth agrees with decoders that had no part in it, and comes from where it says."""

from __future__ import annotations

import ast
import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

import bridge.demo
from bridge.demo import images
from bridge.demo.expected_samples import Candidate, expected_samples
from bridge.demo.instances import Sample, sample_names, sample_set
from bridge.demo.native_reference import little_endian, native_samples
from bridge.dicom.syntaxes import SYNTAXES
from tests.shared_samples import CORPUS

FORBIDDEN = ("bridge.dicom.transcode", "bridge.dicom.codecs", "bridge.dicom.decoders")


def sample_of(name: str) -> Sample:
    return next(sample_set([name]))


def candidate_of(name: str) -> Candidate:
    return expected_samples(sample_of(name)).candidates[0]


def test_the_demo_judges_without_the_code_it_judges() -> None:
    imported = set()
    for path in Path(bridge.demo.__path__[0]).glob("*.py"):
        if path.name == "try_folder.py":
            continue  # `try` runs the transcoder; the judges that it asks are in the other files
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported |= {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    assert "bridge.orthanc" in imported
    assert not {name for name in imported if name.startswith(FORBIDDEN)}


@pytest.mark.slow
def test_exact_unless_the_encoding_is_lossy() -> None:
    lossy = set()
    for sample in sample_set():
        for candidate in expected_samples(sample).candidates:
            if candidate.tolerance:
                lossy.add(SYNTAXES[sample.syntax].family.value)
                assert not SYNTAXES[sample.syntax].lossless, sample.name
                assert candidate.tolerance <= 3, sample.name
                assert candidate.how in {
                    "T.81 reference decoder", "imagecodecs' OpenJPEG", "OpenJPH",
                }, sample.name  # fmt: skip
    assert lossy == {"jpeg-dct", "j2k", "htj2k", "jpeg-xl"}


def test_lossless_samples_of_ours_are_compared_with_the_original() -> None:
    assert candidate_of("ct512-j2k").how == "the original"
    assert np.array_equal(candidate_of("ct512-j2k").samples, images.ct_large().samples)
    assert np.array_equal(candidate_of("rgb-frames-j2k").samples, images.colour_frames().samples)
    assert candidate_of("rgb-frames-j2k").photometric == "RGB"
    assert np.array_equal(candidate_of("seg1-frame-deflated").samples, images.segments().samples)


def test_files_with_an_uncompressed_twin_are_compared_with_it() -> None:
    for name in ("MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"):
        candidate = candidate_of(name)
        assert candidate.how == "MR_small.dcm uncompressed"
        assert np.array_equal(candidate.samples, images.mr_small().samples)


PYDICOM_DECODES = [
    name
    for name in sample_names()
    if SYNTAXES[sample_of(name).syntax].family.value in {"rle", "j2k", "htj2k", "none"}
    and "PixelData" in dcmread(DicomBytesIO(sample_of(name).data))
]


@pytest.mark.parametrize("name", PYDICOM_DECODES)
def test_pydicom_decodes_the_same(name: str) -> None:
    dataset = dcmread(DicomBytesIO(sample_of(name).data))
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        pytest.skip("pydicom enlarges the chrominance, we compare what is stored")
    candidate = candidate_of(name)
    dataset.pixel_array_options(raw=True)
    difference = np.abs(
        dataset.pixel_array.reshape(candidate.samples.shape).astype(int)
        - candidate.samples.astype(int)
    )
    assert difference.max() <= candidate.tolerance


def test_big_endian_words_and_bytes() -> None:
    assert little_endian(b"\x01\x02\x03\x04", "OW", 16) == b"\x02\x01\x04\x03"
    assert little_endian(b"\x01\x02\x03\x04", "OW", 32) == b"\x04\x03\x02\x01"
    assert little_endian(b"\x01\x02\x03\x04", "OW", 8) == b"\x02\x01\x04\x03"
    assert little_endian(b"\x01\x02\x03\x04", "OB", 8) == b"\x01\x02\x03\x04"


def test_planes_are_read_as_pixels() -> None:
    dataset = dcmread(DicomBytesIO(sample_of("examples_rgb_color").data))
    dataset.Rows, dataset.Columns, dataset.PlanarConfiguration = 1, 2, 1
    assert native_samples(b"rRgGbB", dataset).reshape(2, 3).tolist() == [[*b"rgb"], [*b"RGB"]]


@pytest.mark.corpus
@pytest.mark.corpus
def test_truth_of_wheel_files_is_what_the_corpus_expects() -> None:
    with (CORPUS / "expected.tsv").open(encoding="utf-8") as file:
        expected = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
    agreed = 0
    for sample in sample_set():
        row = expected.get(f"pydicom__{sample.name}.dcm", {})
        if row.get("expect") not in {"exact", "majority"}:
            continue
        candidates = expected_samples(sample).candidates
        if any(c.tolerance for c in candidates):
            continue  # a difference of 1 is allowed, and changes the digest
        digests = {hashlib.sha256(c.samples.tobytes()).hexdigest() for c in candidates}
        assert row["pixels_sha256"] in digests, sample.name
        agreed += 1
    assert agreed >= 12

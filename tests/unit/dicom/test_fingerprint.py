"""The sum of an image is the same in every syntax, and another when one sample differs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from bridge.dicom.fingerprint import BLOCK_BYTES, Fingerprint, fingerprint
from bridge.dicom.syntaxes import OFFERED_TARGETS
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import TranscodeOptions
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset

OPTIONS = TranscodeOptions(hash_samples=True)


def wheel_files() -> list[Path]:
    root = Path(pydicom.data.__file__).parent / "test_files"
    return sorted(p for p in root.glob("*.dcm") if p.stat().st_size < 1_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("path", wheel_files(), ids=lambda path: path.name)
def test_transcoding_does_not_change_the_fingerprint(path: Path) -> None:
    data = path.read_bytes()
    try:
        before = fingerprint(data)
    except InstanceError:
        return  # what cannot be decoded has no fingerprint, and is parked
    for uid in OFFERED_TARGETS:
        try:
            done = transcode(data, wanted_syntax=uid, options=OPTIONS)
            result = b"".join(done.body)
        except InstanceError:
            continue
        after = fingerprint(result)
        assert after.same_image(before), uid
        if done.samples_sha256:
            assert done.samples_sha256 == after.samples_sha256 == before.samples_sha256, uid


def test_one_bit_makes_another_image() -> None:
    dataset = small_ct_dataset(rows=64, columns=64)
    before = fingerprint(file_bytes(dataset))
    pixels = bytearray(dataset.PixelData)
    pixels[77] ^= 1
    dataset.PixelData = bytes(pixels)
    assert not fingerprint(file_bytes(dataset)).same_image(before)


def test_byte_order_does_not_count() -> None:
    dataset = small_ct_dataset()
    before = fingerprint(file_bytes(dataset))
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert fingerprint(file_bytes(dataset)).same_image(before)


def test_shape_frames_and_meaning_count() -> None:
    one = fingerprint(small_ct(rows=16, columns=32))
    for other in (
        replace(one, shape=(32, 16, 1)),
        replace(one, frames=2),
        replace(one, photometric="MONOCHROME1"),
    ):
        assert not one.same_image(other)


def test_signed_samples_with_and_without_their_sign_in_unused_bits_are_the_same() -> None:
    dataset = small_ct_dataset()
    dataset.PixelRepresentation = 1
    values = np.array([-1, -2048, 0, 2047] * 64, dtype="<i2")
    dataset.PixelData = values.tobytes()
    wide = fingerprint(file_bytes(dataset))
    dataset.PixelData = (values & 0x0FFF).tobytes()
    narrow = fingerprint(file_bytes(dataset))
    assert wide.same_image(narrow)
    assert wide.samples_sha256 != narrow.samples_sha256


def test_float_pixels_are_summed_as_bytes_in_little_endian() -> None:
    dataset = small_ct_dataset()
    del dataset.PixelData
    dataset.BitsAllocated = 32
    values = np.linspace(0, 1, 256, dtype="<f4")
    dataset.FloatPixelData = values.tobytes()
    before = fingerprint(file_bytes(dataset))
    assert before.samples_sha256
    dataset.FloatPixelData = values.astype(">f4").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert fingerprint(file_bytes(dataset)).same_image(before)


def test_an_object_without_pixels_has_an_empty_one() -> None:
    dataset = small_ct_dataset()
    del dataset.PixelData
    assert fingerprint(file_bytes(dataset)) == Fingerprint()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.3.4"])
def test_video_and_the_unknown_are_refused(syntax: str) -> None:
    native, wanted = b"1.2.840.10008.1.2.1\0", syntax.encode()
    data = small_ct()
    at = data.index(native)
    wanted += b"\0" * (len(wanted) & 1)
    changed = data[: at - 2] + len(wanted).to_bytes(2, "little") + wanted + data[at + 20 :]
    with pytest.raises(InstanceError):
        fingerprint(changed)


@pytest.mark.parametrize("surplus", [-4, 0, 4])
@pytest.mark.parametrize(("keyword", "size"), [("FloatPixelData", 4), ("DoubleFloatPixelData", 8)])
def test_every_block_of_float_pixels_counts(keyword: str, size: int, surplus: int) -> None:
    """The first, the middle and the last byte of three blocks, in both byte orders."""
    dataset = small_ct_dataset()
    del dataset.PixelData
    dataset.BitsAllocated = size * 8
    count = (3 * BLOCK_BYTES + surplus * 2) // size
    values = np.arange(count, dtype=f"<u{size}")

    def of(changed: int | None, syntax: UID) -> Fingerprint:
        made = values.copy()
        if changed is not None:
            made[changed] ^= 1
        raw = made.byteswap() if syntax == ExplicitVRBigEndian else made
        setattr(dataset, keyword, raw.tobytes())
        dataset.file_meta.TransferSyntaxUID = syntax
        return fingerprint(file_bytes(dataset))

    one = of(None, ExplicitVRLittleEndian)
    assert one.samples_sha256 == hashlib.sha256(values.tobytes()).hexdigest()
    assert of(None, ExplicitVRBigEndian).same_image(one)
    for at in (0, count // 2, -1):
        assert not of(at, ExplicitVRLittleEndian).same_image(one)


@pytest.mark.parametrize("odd", [0, 1])
def test_bytes_that_no_description_fits_are_summed_as_they_lie(odd: int) -> None:
    """Of odd length: with the byte that pads them when they are written again (PS3.5 7.1.1)."""
    dataset = small_ct_dataset(rows=5, columns=3)
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.Rows = 0
    value = bytes(range(1, 15 + odd))
    dataset.PixelData = value
    dataset["PixelData"].VR = "OB"
    data = file_bytes(dataset)
    padded = value + b"\0" * (len(value) & 1)
    assert fingerprint(data).samples_sha256 == hashlib.sha256(padded).hexdigest()
    # A file that was written without the byte.
    if len(value) & 1:
        at = data.rindex(value)
        cut = data[: at - 4] + len(value).to_bytes(4, "little") + value
        assert fingerprint(cut) == fingerprint(data)

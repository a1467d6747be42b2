"""Files made to get a wrong pixel, a changed element or a hang out of the transcoder."""

from __future__ import annotations

import tracemalloc
import zlib
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset

from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import Reason, TranscodeOptions
from tests.transcode_cases import (
    DEFLATED,
    DEFLATED_FRAME,
    ENCODE,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    J2K_LOSSY,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    JPEG_SV1,
    JPEG_XL,
    RLE,
    Array,
    Image,
    compressed_file,
    dataset,
    item,
    native_bytes,
    native_file,
    read,
    relabelled,
    run,
    samples,
    save,
)

GREY = Image(rows=40, columns=36, allocated=8, stored=8)
SIGNED = Image(rows=40, columns=36, stored=12, signed=True)


def even(stream: bytes | bytearray) -> bytes:
    return bytes(stream) + b"\0" * (len(stream) & 1)


def native_of(ds: Dataset, array: Array) -> bytes:
    ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    return save(ds, EXPLICIT)


# --- samples that are not in the lowest bits (PS3.5 8.1.1, 8.1.2) ---


def test_samples_in_the_high_bits_are_not_given_a_sign() -> None:
    array = np.full((40, 36), 0x0900, "<u2")
    array[0, 0] = 0x0010

    body, _ = run(native_of(dataset(SIGNED, HighBit=15), array), J2K)

    assert read(run(body)[0]).PixelData == array.tobytes()


def test_an_overlay_in_unused_bits_is_not_drawn_by_a_sign() -> None:
    ds = dataset(SIGNED)
    ds.add_new(0x60000010, "US", 40)
    ds.add_new(0x60000011, "US", 36)
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", 12)
    array = SIGNED.array()[0].view("<u2") & 0x0FFF

    body, _ = run(native_of(ds, array), J2K)

    assert read(run(body)[0]).PixelData == array.tobytes()


# --- native pixel data of another length than announced ---


@pytest.mark.parametrize("wanted", [J2K, RLE, JPEG_LS])
def test_zeros_after_the_last_native_frame_are_padding(wanted: str) -> None:
    ds = dataset(SIGNED)
    array = SIGNED.array()[0]

    body, _ = run(native_of(ds, np.concatenate([array.reshape(-1), np.zeros(64, "<i2")])), wanted)

    assert np.array_equal(samples(run(body)[0])[0], array)


@pytest.mark.parametrize("surplus", [b"\1\0", b"\0" * 40 * 36 * 2], ids=["data", "a whole frame"])
def test_what_is_no_padding_after_the_last_native_frame_is_refused(surplus: bytes) -> None:
    values = np.frombuffer(native_bytes(SIGNED, SIGNED.array()) + surplus, "<i2")

    with pytest.raises(InstanceError, match="bytes of pixels, 2880 expected"):
        run(native_of(dataset(SIGNED), values), J2K)


# --- frames that are cut short but have an end marker ---


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("syntax", [JPEG_SV1, JPEG_BASELINE])
@pytest.mark.parametrize("signed", [False, True])
def test_a_jpeg_cut_short_before_its_end_marker_is_refused(
    kept: float, syntax: str, signed: bool
) -> None:
    image = Image(rows=64, columns=64, allocated=8, stored=8)
    array = image.array()[0]
    lossless: dict[str, Any] = (
        {"lossless": True, "predictor": 1} if syntax == JPEG_SV1 else {"level": 90}
    )
    stream = bytes(imagecodecs.jpeg8_encode(array, **lossless))
    cut = even(stream[: int(len(stream) * kept)] + b"\xff\xd9")

    with pytest.raises(InstanceError, match="cut short"):
        run(compressed_file(image, syntax, [cut], PixelRepresentation=int(signed)))


@pytest.mark.parametrize("fill", [b"", b"\xff\xff"])
def test_a_jpeg_that_ends_in_grey_is_delivered(fill: bytes) -> None:
    flat = np.full((40, 36), 128, "u1")
    streams = {
        JPEG_BASELINE: imagecodecs.jpeg8_encode(flat, 90),
        JPEG_SV1: imagecodecs.jpeg8_encode(flat, lossless=True, predictor=1),
    }

    for syntax, stream in streams.items():
        filled = bytes(stream[:-2]) + fill + bytes(stream[-2:])
        body, _ = run(compressed_file(GREY, syntax, [even(filled)]))
        assert read(body).PixelData == flat.tobytes()


# --- more code streams than frames ---


@pytest.mark.parametrize("second", [1, 2])
def test_a_table_that_leaves_out_a_code_stream_is_not_believed(second: int) -> None:
    streams = [even(ENCODE[JPEG_LS](GREY, GREY.array(seed)[0])) for seed in (1, 2, 3)]
    offset = sum(8 + len(stream) for stream in streams[:second])
    value = item(pack("<2I", 0, offset)) + b"".join(item(stream) for stream in streams)

    with pytest.raises(InstanceError, match="3 fragments cannot be assigned to 2 frames"):
        run(compressed_file(GREY, JPEG_LS, [], pixel_data=value, NumberOfFrames=2))


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_SV1, JPEG_BASELINE, J2K, HTJ2K])
def test_two_code_streams_in_one_fragment_are_refused(syntax: str) -> None:
    def encode(seed: int) -> bytes:
        array = GREY.array(seed)[0]
        if syntax == JPEG_BASELINE:
            return bytes(imagecodecs.jpeg8_encode(array, 90))
        return ENCODE[syntax](GREY, array)

    value = item(b"") + item(even(encode(1) + encode(2)))

    with pytest.raises(InstanceError, match="another code stream follows"):
        run(compressed_file(GREY, syntax, [], pixel_data=value))


def test_deflated_frames_after_the_announced_one_are_not_dropped() -> None:
    streams = [ENCODE[DEFLATED_FRAME](GREY, GREY.array(seed)[0]) for seed in (1, 2)]
    value = item(b"") + b"".join(item(stream) for stream in streams)

    with pytest.raises(InstanceError) as caught:
        run(compressed_file(GREY, DEFLATED_FRAME, [], pixel_data=value))

    assert caught.value.reason is Reason.UNDECODABLE


def test_a_second_pixel_data_element_is_not_dropped() -> None:
    one, two = (
        compressed_file(GREY, JPEG_LS, [even(ENCODE[JPEG_LS](GREY, GREY.array(seed)[0]))])
        for seed in (1, 2)
    )

    with pytest.raises(InstanceError, match="twice"):
        run(one + two[two.index(b"\xe0\x7f\x10\x00") :])


# --- decoders ---


@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (1, 1), (1, 3)])
@pytest.mark.parametrize("samples_per_pixel", [1, 3])
@pytest.mark.parametrize("target", [J2K, HTJ2K])
def test_one_row_or_one_column(shape: tuple[int, int], samples_per_pixel: int, target: str) -> None:
    rows, columns = shape
    colour = "RGB" if samples_per_pixel == 3 else "MONOCHROME2"
    image = Image(
        rows=rows,
        columns=columns,
        samples=samples_per_pixel,
        allocated=8,
        stored=8,
        photometric=colour,
    )
    array = np.random.default_rng(1).integers(
        0, 256, (rows, columns, samples_per_pixel)[: 3 if samples_per_pixel == 3 else 2], "u1"
    )
    ds = dataset(image)
    ds.PixelData, ds["PixelData"].VR = even(array.tobytes()), "OB"

    body, _ = run(save(ds, EXPLICIT), target)

    assert np.array_equal(samples(run(body)[0])[0].reshape(array.shape), array)


def test_a_lossy_row() -> None:
    image = Image(rows=1, columns=50, allocated=8, stored=8)
    row = np.arange(50, dtype="u1").reshape(1, 50)
    stream = even(imagecodecs.jpeg2k_encode(row, level=30, codecformat="j2k", reversible=False))

    body, _ = run(compressed_file(image, J2K_LOSSY, [stream]))

    assert read(body).PixelData == imagecodecs.jpeg2k_decode(stream).tobytes()


def with_point_transform(stream: bytes, bits: int) -> bytes:
    """Say that samples were shifted right before they were coded (ISO 10918-1 H.1.2.1)."""
    scan = stream.index(b"\xff\xda")
    at = scan + 1 + int.from_bytes(stream[scan + 2 : scan + 4])
    return stream[:at] + bytes([bits]) + stream[at + 1 :]


def test_a_point_transform_is_undone_and_verified() -> None:
    image = Image(rows=40, columns=36, stored=12)
    coded = GREY.array()[0]
    plain = bytes(imagecodecs.jpeg8_encode(coded, lossless=True, predictor=1))
    precision = plain.index(b"\xff\xc3") + 4
    wide = plain[:precision] + bytes([12]) + plain[precision + 1 :]

    body, done = run(
        compressed_file(image, JPEG_LOSSLESS, [even(with_point_transform(wide, 4))]), verify="all"
    )

    assert samples(body)[0].tolist() == (coded.astype("<u2") << 4).tolist()
    assert (done.verified, done.evidence.checker) == (True, "jpegsof3")
    assert read(body).LossyImageCompression == "01"


# --- bounded time and memory ---


def test_an_rle_segment_is_not_expanded_beyond_its_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    decode = imagecodecs.packbits_decode

    def watched(*arguments: Any, **options: Any) -> bytes:
        expanded = bytes(decode(*arguments, **options))
        seen.append(len(expanded))
        return expanded

    monkeypatch.setattr(imagecodecs, "packbits_decode", watched)
    frame = pack("<16I", 1, 64, *[0] * 14) + b"\x81\xff" * 100_000

    with pytest.raises(InstanceError) as caught:
        run(compressed_file(GREY, RLE, [frame]))

    assert caught.value.reason is Reason.UNDECODABLE
    assert all(size < 100_000 for size in seen)


def test_a_jpeg_xl_header_is_read_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("libjxl was asked")

    large = np.zeros((3000, 5000), "u1")
    stream = even(imagecodecs.jpegxl_encode(large, lossless=True, effort=1))
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", refuse)

    with pytest.raises(InstanceError, match="3000 rows, 5000 columns"):
        run(compressed_file(GREY, JPEG_XL, [stream]))


def test_empty_elements_of_tag_zero_are_damage_and_cost_no_time() -> None:
    source = native_file(GREY, IMPLICIT) + bytes(8 * 150_000) + b"\1" * (1 << 20)

    with pytest.raises(InstanceError) as caught:
        run(source)

    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize(("depth", "fits"), [(64, True), (65, False)])
def test_sequences_are_counted_once_each(undefined: bool, depth: int, fits: bool) -> None:
    content = pack("<HH2sH", 0x0009, 0x1001, b"US", 2) + b"\1\0"
    for _ in range(depth):
        if undefined:
            head = pack("<HH2sHI", 0x0009, 0x1002, b"SQ", 0, 0xFFFFFFFF)
            head += pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            end = pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
            content = head + content + end
        else:
            content = pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
            content = pack("<HH2sHI", 0x0009, 0x1002, b"SQ", 0, len(content)) + content
    source = native_file(GREY)
    at = source.index(b"\x10\x00\x10\x00PN")

    if fits:
        body, _ = run(source[:at] + content + source[at:], IMPLICIT)
        assert read(body).PatientID == "T1"
    else:
        with pytest.raises(InstanceError, match="more than 64 deep"):
            run(source[:at] + content + source[at:], IMPLICIT)


def test_an_inflated_data_set_is_held_once() -> None:
    native = native_file(GREY)
    start = native.index(b"\x08\x00\x16\x00UI")
    size = 32 << 20
    engine = zlib.compressobj(wbits=-15)
    packed = engine.compress(native[start:] + pack("<HH2sHI", 0x7FE1, 0x1010, b"OB", 0, size))
    packed += engine.compress(bytes(size)) + engine.flush()
    source = relabelled(native[:start], DEFLATED) + packed

    tracemalloc.start()
    try:
        transcode(source, wanted_syntax=EXPLICIT, options=TranscodeOptions())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < peak < 1.5 * size


# --- values ---


def test_what_only_the_dictionary_calls_a_sequence_keeps_its_value() -> None:
    ds = dataset(GREY)
    ds.add_new(0x00710010, "LO", "AGFA-AG_HPState")
    ds.add_new(0x00711018, "UN", b"NOT A SEQUENCE, REALLY")
    ds.PixelData, ds["PixelData"].VR = native_bytes(GREY, GREY.array()), "OW"

    body, _ = run(save(ds, IMPLICIT))

    assert pack("<HH2sHI", 0x0071, 0x1018, b"UN", 0, 22) + b"NOT A SEQUENCE, REALLY" in body


@pytest.mark.parametrize("lossy", [True, False])
def test_jpeg_xl_that_is_coded_in_xyb_is_marked_lossy(lossy: bool) -> None:
    array = np.stack([GREY.array()[0]] * 3, axis=-1)
    image = Image(rows=40, columns=36, samples=3, allocated=8, stored=8, photometric="RGB")
    options: dict[str, Any] = {"level": 80, "lossless": False} if lossy else {"lossless": True}
    stream = even(imagecodecs.jpegxl_encode(array, **options))

    ds = read(run(compressed_file(image, "1.2.840.10008.1.2.4.112", [stream]))[0])

    assert ds.get("LossyImageCompression") == ("01" if lossy else None)
    assert ds.get("LossyImageCompressionMethod") == ("ISO_18181_1" if lossy else None)

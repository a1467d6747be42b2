"""Every cell of the colour table, with samples that are known by construction.

What is expected is written here by hand, from PS3.5 8.2 and PS3.3 C.7.6.3.1.2, not taken from the
table of the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest

from bridge.dicom.codestream import StreamInfo, inspect
from bridge.dicom.colour import (
    COMPONENTS,
    TABLE,
    Claim,
    cell_of,
    claim_of,
    decoded_photometric,
)
from bridge.dicom.description import Description
from bridge.dicom.fingerprint import fingerprint
from bridge.dicom.syntaxes import SYNTAXES, Family
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.jpeg_2000 import joined
from tests.jpeg_dct import JFIF, Flat, adobe_segment, blocks, encode_flat
from tests.jpeg_lossless import Lossless, encode
from tests.jpeg_ls import separate_scans
from tests.transcode_cases import (
    DEFLATED_FRAME,
    ENCODE,
    EXPLICIT,
    HTJ2K,
    J2K,
    JPEG_BASELINE,
    JPEG_LS,
    JPEG_SV1,
    JPEG_XL,
    RAW,
    RLE,
    Array,
    Image,
    compressed_file,
    dataset,
    read,
    run,
    samples,
    save,
)
from tests.unit.dicom.test_transcode_jp2 import SYCC, boxed

RGB, FULL, FULL_422 = "RGB", "YBR_FULL", "YBR_FULL_422"
LABELS = [name for name, count in COMPONENTS.items() if count == 3]
OTHERS = ["MONOCHROME2", "PALETTE COLOR", "ARGB", "CMYK", "", "NONSENSE"]
LETTERS = (82, 71, 66, 65)
XL_LOSSY = "1.2.840.10008.1.2.4.112"

rng = np.random.default_rng(3)
IMAGE = Image(rows=40, columns=48, samples=3, allocated=8, stored=8, photometric=RGB)
ARRAY = IMAGE.array()[0]
PLANES = [np.ascontiguousarray(ARRAY[..., i]) for i in range(3)]
VALUES = [rng.integers(0, 256, (5, 6)).astype("u1") for _ in range(3)]
FLAT = np.stack([blocks(v) for v in VALUES], axis=-1)
HALVED = np.stack([FLAT[..., 0], np.full((40, 48), 90, "u1"), np.full((40, 48), 201, "u1")], -1)


def even(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) & 1)


def dct(**how: Any) -> bytes:
    return encode_flat(VALUES, 40, 48, Flat(**how))


def subsampled_dct(**how: Any) -> bytes:
    chroma = [np.full((5, 3), value, "u1") for value in (90, 201)]
    return encode_flat([VALUES[0], *chroma], 40, 48, Flat(sampling=(0x21, 0x11, 0x11), **how))


def lossless(**how: Any) -> bytes:
    return encode(ARRAY, Lossless(precision=8, **how))


def jpeg_ls(extra: bytes = b"", **how: Any) -> bytes:
    stream = separate_scans(PLANES, 8, **how)
    return stream[:2] + extra + stream[2:]


def wavelet(*, high: bool, transform: bool) -> bytes:
    if not transform:
        return joined(PLANES, [(1, 1)] * 3, high=high)
    if high:
        return bytes(imagecodecs.htj2k_encode(ARRAY, reversible=True, rgb=True))
    return bytes(imagecodecs.jpeg2k_encode(ARRAY, 0, codecformat="j2k", reversible=True, mct=True))


def xyb() -> tuple[bytes, Array]:
    black = np.zeros((40, 48, 3), "u1")
    return bytes(imagecodecs.jpegxl_encode(black, lossless=False, level=90)), black


PLAIN = {RGB: RGB, FULL: FULL, FULL_422: FULL}
SAID_RGB, SAID_YBR = {RGB: RGB}, {FULL: FULL, FULL_422: FULL}
MCT = {RGB: RGB, "YBR_RCT": RGB, "YBR_ICT": RGB}
XL = {RGB: RGB, "YBR_RCT": RGB, "YBR_ICT": RGB}

Row = tuple[str, str, bytes, Array, Claim, dict[str, str]]
ROWS: list[Row] = [
    ("rle", RLE, ENCODE[RLE](IMAGE, ARRAY), ARRAY, Claim.NOTHING, PLAIN),
    ("raw", RAW, ENCODE[RAW](IMAGE, ARRAY), ARRAY, Claim.NOTHING, {RGB: RGB, FULL: FULL}),
    ("deflate", DEFLATED_FRAME, ENCODE[DEFLATED_FRAME](IMAGE, ARRAY), ARRAY, Claim.NOTHING,
     {RGB: RGB, FULL: FULL}),
    ("dct", JPEG_BASELINE, dct(), FLAT, Claim.NOTHING, PLAIN),
    ("dct, other identifiers", JPEG_BASELINE, dct(identifiers=(0, 1, 2)), FLAT, Claim.NOTHING,
     PLAIN),
    ("dct, JFIF", JPEG_BASELINE, dct(markers=JFIF), FLAT, Claim.YCBCR, SAID_YBR),
    ("dct, Adobe 1", JPEG_BASELINE, dct(markers=adobe_segment(1)), FLAT, Claim.YCBCR, SAID_YBR),
    ("dct, JFIF, Adobe 1", JPEG_BASELINE, dct(markers=JFIF + adobe_segment(1)), FLAT, Claim.YCBCR,
     SAID_YBR),
    ("dct, 4:2:2", JPEG_BASELINE, subsampled_dct(), HALVED, Claim.YCBCR, SAID_YBR),
    ("dct, 4:2:2, JFIF", JPEG_BASELINE, subsampled_dct(markers=JFIF), HALVED, Claim.YCBCR,
     SAID_YBR),
    ("dct, Adobe 0", JPEG_BASELINE, dct(markers=adobe_segment(0)), FLAT, Claim.RGB, SAID_RGB),
    ("dct, R G B", JPEG_BASELINE, dct(identifiers=LETTERS), FLAT, Claim.RGB, SAID_RGB),
    ("dct, R G B, Adobe 0", JPEG_BASELINE, dct(identifiers=LETTERS, markers=adobe_segment(0)),
     FLAT, Claim.RGB, SAID_RGB),
    ("dct, 4:2:2, Adobe 0", JPEG_BASELINE, subsampled_dct(markers=adobe_segment(0)), HALVED,
     Claim.RGB, SAID_RGB),
    ("dct, JFIF, Adobe 0", JPEG_BASELINE, dct(markers=JFIF + adobe_segment(0)), FLAT,
     Claim.CONFLICT, {}),
    ("dct, JFIF, R G B", JPEG_BASELINE, dct(markers=JFIF, identifiers=LETTERS), FLAT,
     Claim.CONFLICT, {}),
    ("dct, Adobe 1, R G B", JPEG_BASELINE, dct(markers=adobe_segment(1), identifiers=LETTERS),
     FLAT, Claim.CONFLICT, {}),
    ("dct, Adobe 2", JPEG_BASELINE, dct(markers=adobe_segment(2)), FLAT, Claim.CONFLICT, {}),
    ("lossless", JPEG_SV1, lossless(), ARRAY, Claim.NOTHING, PLAIN),
    ("lossless, JFIF", JPEG_SV1, lossless(extra=JFIF), ARRAY, Claim.NOTHING, PLAIN),
    ("lossless, Adobe 0", JPEG_SV1, lossless(adobe=0), ARRAY, Claim.RGB, SAID_RGB),
    ("lossless, R G B", JPEG_SV1, lossless(identifiers=LETTERS), ARRAY, Claim.RGB, SAID_RGB),
    ("lossless, Adobe 1", JPEG_SV1, lossless(adobe=1), ARRAY, Claim.YCBCR, SAID_YBR),
    ("lossless, Adobe 2", JPEG_SV1, lossless(adobe=2), ARRAY, Claim.CONFLICT, {}),
    ("lossless, Adobe 1, R G B", JPEG_SV1, lossless(adobe=1, identifiers=LETTERS), ARRAY,
     Claim.CONFLICT, {}),
    ("jpeg-ls", JPEG_LS, jpeg_ls(), ARRAY, Claim.NOTHING, PLAIN),
    ("jpeg-ls, R G B", JPEG_LS, jpeg_ls(identifiers=LETTERS), ARRAY, Claim.RGB, SAID_RGB),
    ("jpeg-ls, Adobe 1", JPEG_LS, jpeg_ls(adobe_segment(1)), ARRAY, Claim.YCBCR, SAID_YBR),
    ("j2k", J2K, wavelet(high=False, transform=False), ARRAY, Claim.NOTHING, PLAIN),
    ("j2k, transform", J2K, wavelet(high=False, transform=True), ARRAY, Claim.TRANSFORMED, MCT),
    ("j2k, sYCC", J2K, boxed(wavelet(high=False, transform=False), IMAGE, SYCC), ARRAY,
     Claim.YCBCR, SAID_YBR),
    ("j2k, transform, sYCC", J2K, boxed(wavelet(high=False, transform=True), IMAGE, SYCC), ARRAY,
     Claim.CONFLICT, {}),
    ("htj2k", HTJ2K, wavelet(high=True, transform=False), ARRAY, Claim.NOTHING, PLAIN),
    ("htj2k, transform", HTJ2K, wavelet(high=True, transform=True), ARRAY, Claim.TRANSFORMED, MCT),
    ("jpeg-xl", JPEG_XL, ENCODE[JPEG_XL](IMAGE, ARRAY), ARRAY, Claim.RGB, XL),
    ("jpeg-xl, XYB", XL_LOSSY, *xyb(), Claim.TRANSFORMED, {**XL, "XYB": RGB}),
]  # fmt: skip
CELLS = [
    pytest.param(*row[1:4], row[5].get(label, ""), label, id=f"{row[0]}, {label or 'no label'}")
    for row in ROWS
    for label in (*LABELS, *OTHERS)
]


def rle_of(array: Array) -> bytes:
    """RLE of 8-bit samples, any number of them a pixel (PS3.5 G.5)."""
    planes = [array] if array.ndim == 2 else list(np.moveaxis(array, -1, 0))
    segments = [even(bytes(imagecodecs.packbits_encode(plane.tobytes()))) for plane in planes]
    offsets = [64 + sum(map(len, segments[:i])) for i in range(len(segments))]
    header = pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def file_of(streams: Sequence[bytes], syntax: str, label: str) -> bytes:
    image = replace(IMAGE, photometric=label, frames=len(streams))
    return compressed_file(image, syntax, [even(s) for s in streams])


@pytest.mark.parametrize(("syntax", "stream", "array", "written", "label"), CELLS)
def test_a_cell(syntax: str, stream: bytes, array: Array, written: str, label: str) -> None:
    source = file_of([stream], syntax, label)
    if not written:
        for verify in ("off", "all"):
            with pytest.raises(InstanceError) as caught:
                run(source, verify=verify)
            assert caught.value.reason is Reason.UNDECODABLE
        return
    body, _ = run(source, verify="all")
    assert read(body).PhotometricInterpretation == written
    assert read(body).PlanarConfiguration == 0
    assert np.array_equal(samples(body)[0], array)
    assert fingerprint(source).same_image(fingerprint(body))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_what_a_stream_says_is_read(row: Row) -> None:
    _, syntax, stream, _, said, _ = row
    family = SYNTAXES[syntax].family
    bare = family in (Family.RAW, Family.DEFLATE)
    assert claim_of(StreamInfo(family) if bare else inspect(stream, family)) is said


def test_every_family_label_and_statement_has_a_cell() -> None:
    for family in Family:
        for label in LABELS:
            for said in Claim:
                assert cell_of(family, label, said) is not None
    assert all(cell.why for cell in TABLE)


@pytest.mark.parametrize(
    ("name", "label", "written"),
    [
        ("dct, JFIF", RGB, FULL),
        ("dct, Adobe 1", RGB, FULL),
        ("dct, 4:2:2", RGB, FULL),
        ("dct, Adobe 0", FULL_422, RGB),
        ("dct, R G B", FULL, RGB),
        ("dct, JFIF", FULL, FULL),
        ("dct, JFIF, Adobe 0", RGB, ""),
        ("dct, JFIF", "YBR_RCT", ""),
        ("lossless, Adobe 1", RGB, ""),
        ("lossless, R G B", FULL, ""),
        ("jpeg-ls, R G B", FULL, ""),
        ("j2k", "YBR_RCT", ""),
        ("j2k, transform", FULL, ""),
        ("jpeg-xl", FULL, ""),
    ],
)
def test_a_jpeg_may_be_trusted_against_its_label(name: str, label: str, written: str) -> None:
    _, syntax, stream, array, _, _ = next(row for row in ROWS if row[0] == name)
    source = file_of([stream], syntax, label)
    if not written:
        with pytest.raises(InstanceError):
            run(source, on_wrong_label="decode")
        return
    body, done = run(source, on_wrong_label="decode")
    assert read(body).PhotometricInterpretation == written
    assert np.array_equal(samples(body)[0], array)
    told = "" if written == label else f"{written} samples labelled {label}"
    assert done.evidence.trusted == told
    assert fingerprint(source, trusts_stream=True).same_image(fingerprint(body))


@pytest.mark.parametrize("hold_bytes_max", [0, 1 << 20])
@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize(
    ("usual", "other", "label"),
    [
        ("j2k", "j2k, transform", RGB),
        ("j2k, transform", "j2k", "YBR_RCT"),
        ("htj2k, transform", "htj2k", RGB),
        ("dct, JFIF", "dct, Adobe 0", FULL),
        ("dct", "dct, JFIF", FULL),
        ("lossless", "lossless, Adobe 0", RGB),
        ("jpeg-ls", "jpeg-ls, R G B", RGB),
    ],
)
def test_frames_of_different_colour_are_refused(
    usual: str, other: str, label: str, odd: int, hold_bytes_max: int
) -> None:
    """First, middle and last: one label cannot be right for all of them with certainty."""
    by_name = {row[0]: row for row in ROWS}
    streams = [by_name[other if i == odd else usual][2] for i in range(3)]

    with pytest.raises(InstanceError) as caught:
        run(file_of(streams, by_name[usual][1], label), hold_bytes_max=hold_bytes_max)

    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("high", [False, True])
@pytest.mark.parametrize("label", [RGB, FULL, FULL_422, "YBR_RCT", "YBR_ICT"])
@pytest.mark.parametrize(
    "sampling",
    [
        [(1, 1), (2, 2), (2, 2)],
        [(1, 1), (2, 1), (2, 1)],
        [(1, 1), (1, 2), (1, 2)],
        [(1, 1), (3, 3), (3, 3)],
        [(1, 1), (4, 1), (4, 1)],
        [(1, 1), (1, 1), (2, 2)],
        [(1, 1), (2, 2), (1, 1)],
        [(2, 2), (1, 1), (1, 1)],
        [(2, 2), (2, 2), (2, 2)],
    ],
    ids=str,
)
def test_subsampled_jpeg_2000_is_parked(
    sampling: list[tuple[int, int]], label: str, high: bool
) -> None:
    down, across = sampling[0]
    planes = [np.ones((48 * down // y, 48 * across // x), "u1") for x, y in sampling]
    image = replace(IMAGE, rows=48 * down, columns=48 * across, photometric=label)
    stream = joined(planes, sampling, high=high)
    for verify in ("off", "all"):
        with pytest.raises(InstanceError) as caught:
            run(compressed_file(image, HTJ2K if high else J2K, [even(stream)]), verify=verify)
        assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("high", [False, True])
def test_one_component_on_a_coarse_grid_is_parked(high: bool) -> None:
    stream = joined([np.ones((48, 48), "u1")], [(2, 2)], high=high)
    for side in (48, 96):
        image = Image(rows=side, columns=side, allocated=8, stored=8)
        with pytest.raises(InstanceError):
            run(compressed_file(image, HTJ2K if high else J2K, [even(stream)]))


# --- another number of samples than the label means ---


@pytest.mark.parametrize("label", [*LABELS, "ARGB", "CMYK"])
@pytest.mark.parametrize("syntax", [RLE, JPEG_SV1, JPEG_LS, J2K, HTJ2K, JPEG_XL])
def test_a_colour_label_with_one_sample_is_refused(syntax: str, label: str) -> None:
    image = Image(rows=40, columns=48, allocated=8, stored=8)
    stream = ENCODE[syntax](image, image.array()[0])
    with pytest.raises(InstanceError, match="1 samples a pixel"):
        run(compressed_file(replace(image, photometric=label), syntax, [even(stream)]))


@pytest.mark.parametrize("label", ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", ""])
@pytest.mark.parametrize("syntax", [RLE, JPEG_SV1, JPEG_LS, J2K, HTJ2K])
def test_a_label_for_one_sample_stays(syntax: str, label: str) -> None:
    image = Image(rows=40, columns=48, allocated=8, stored=8, photometric=label)
    stream = ENCODE[syntax](image, image.array()[0])
    body, _ = run(compressed_file(image, syntax, [even(stream)]))
    assert (read(body).PhotometricInterpretation or "") == label
    assert np.array_equal(samples_or_bytes(body), image.array()[0])


def samples_or_bytes(body: bytes) -> Array:
    ds = read(body)
    return np.frombuffer(ds.PixelData, "u1")[: ds.Rows * ds.Columns].reshape(ds.Rows, ds.Columns)


@pytest.mark.parametrize(("coded", "announced"), [(3, 1), (1, 3), (4, 3), (3, 4)])
@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, J2K, HTJ2K, RAW])
def test_another_number_of_components_is_refused(syntax: str, coded: int, announced: int) -> None:
    names = {1: "MONOCHROME2", 3: RGB, 4: "ARGB"}
    made = Image(rows=40, columns=48, samples=coded, allocated=8, stored=8)
    array = made.array()[0]
    stream = rle_of(array) if syntax == RLE else ENCODE[syntax](made, array)
    told = replace(made, samples=announced, photometric=names[announced])
    with pytest.raises(InstanceError):
        run(compressed_file(told, syntax, [even(stream)]))


@pytest.mark.parametrize("label", ["ARGB", "CMYK"])
def test_four_samples_are_carried_where_nothing_is_transformed(label: str) -> None:
    image = replace(IMAGE, samples=4, photometric=label)
    array = image.array()[0]
    for syntax, stream in ((RLE, rle_of(array)), (RAW, array.tobytes())):
        body, _ = run(compressed_file(image, syntax, [stream]))
        assert read(body).PhotometricInterpretation == label
        assert read(body).PixelData == array.tobytes()
    four = encode_flat([*VALUES, VALUES[0]], 40, 48, Flat(markers=adobe_segment(2)))
    with pytest.raises(InstanceError, match="four components"):
        run(compressed_file(image, JPEG_BASELINE, [even(four)]))
    transformed = bytes(imagecodecs.jpeg2k_encode(array, 0, codecformat="j2k", mct=True))
    if inspect(transformed, Family.J2K).transformed:
        with pytest.raises(InstanceError, match="component transform on 4 samples"):
            run(compressed_file(image, J2K, [even(transformed)]))


# --- what we encode, and native pixel data ---

TARGETS = ["RLELossless", "JPEG2000Lossless", "HTJ2KLossless", "JPEGLSLossless", "JPEGLosslessSV1"]


def native(label: str) -> bytes:
    ds = dataset(replace(IMAGE, photometric=label))
    ds.PixelData, ds["PixelData"].VR = ARRAY.tobytes(), "OB"
    return save(ds, EXPLICIT)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("label", LABELS)
def test_native_labels_hold_or_are_not_copied(target: str, label: str) -> None:
    if label not in (RGB, FULL):
        with pytest.raises(InstanceError, match=r"cannot be right|subsampled|bytes of pixels"):
            run(native(label), target)
        return
    packed, _ = run(native(label), target)
    body, _ = run(packed, verify="all")
    assert read(body).PhotometricInterpretation == label
    assert np.array_equal(samples(body)[0], ARRAY)


@pytest.mark.parametrize("label", LABELS)
def test_native_to_native_changes_no_label(label: str) -> None:
    assert read(run(native(label), "ImplicitVRLittleEndian")[0]).PhotometricInterpretation == label


def test_a_grey_jpeg_xl_in_xyb_is_delivered() -> None:
    """Lossy JPEG XL is in XYB also where there is one sample a pixel."""
    image = Image(rows=40, columns=48, allocated=8, stored=8)
    stream = bytes(imagecodecs.jpegxl_encode(np.zeros((40, 48), "u1"), lossless=False, level=90))
    assert inspect(stream, Family.JPEG_XL).transformed

    ds = read(run(compressed_file(image, XL_LOSSY, [even(stream)]))[0])

    assert (ds.PhotometricInterpretation, ds.LossyImageCompression) == ("MONOCHROME2", "01")
    assert ds.PixelData == bytes(40 * 48)


PHOTOMETRIC = {
    1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    3: (
        "RGB", "HSV", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT",
        "YBR_RCT", "XYB",
    ),
    4: ("ARGB", "CMYK"),
}  # fmt: skip
"""PS3.3 C.7.6.3.1.2, retired ones too."""


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("name", [name for names in PHOTOMETRIC.values() for name in names])
def test_a_label_means_a_number_of_samples(name: str, samples: int) -> None:
    assert {n: count for count, names in PHOTOMETRIC.items() for n in names} == COMPONENTS
    d = Description(
        rows=4, columns=4, samples=samples, photometric=name, planar=0, allocated=8, stored=8,
        signed=False, frames=1, lossy="",
    )  # fmt: skip
    if COMPONENTS[name] != samples:
        with pytest.raises(InstanceError, match=f"{samples} samples a pixel"):
            decoded_photometric(d, StreamInfo(Family.NONE))
    elif samples != 3:
        assert decoded_photometric(d, StreamInfo(Family.NONE)) == name

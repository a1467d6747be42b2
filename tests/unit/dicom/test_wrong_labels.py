"""A JPEG under the label of another JPEG syntax: parked, or decoded as the code stream says."""

from __future__ import annotations

from struct import pack

import imagecodecs
import numpy as np
import pytest
from pydicom.sequence import Sequence

from bridge.dicom.facts import facts_of_file
from bridge.dicom.fingerprint import fingerprint
from bridge.dicom.syntaxes import SYNTAXES, Family
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.jpeg_dct import Flat, blocks, encode_flat
from tests.jpeg_lossless import Lossless, encode
from tests.jpeg_ls import separate_scans
from tests.transcode_cases import (
    ENCODE,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    JPEG_SV1,
    JPEG_XL,
    RLE,
    Image,
    compressed_file,
    dataset,
    item,
    native_file,
    read,
    relabelled,
    run,
    samples,
)

EXTENDED, LS_NEAR = "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"
IMAGE = Image(rows=24, columns=16, allocated=8, stored=8)
VALUES = np.random.default_rng(1).integers(0, 256, (3, 2)).astype("u1")
ARRAY = blocks(VALUES)
NEAR = np.asarray(imagecodecs.jpegls_decode(separate_scans([ARRAY], 8, near=(2,))))

STREAMS = {
    "jpeg-dct": (encode_flat([VALUES], 24, 16, Flat()), ARRAY, "ISO_10918_1"),
    "jpeg-lossless": (encode(ARRAY, Lossless(precision=8)), ARRAY, None),
    "jpeg-ls": (separate_scans([ARRAY], 8), ARRAY, None),
    "jpeg-ls, NEAR 2": (separate_scans([ARRAY], 8, near=(2,)), NEAR, "ISO_14495_1"),
    "jpeg-lossless, Pt 1": (
        encode(ARRAY, Lossless(precision=8, point_transforms=(1,))), ARRAY >> 1 << 1,
        "ISO_10918_1",
    ),
}  # fmt: skip
LABELS = [JPEG_BASELINE, EXTENDED, JPEG_LOSSLESS, JPEG_SV1, JPEG_LS, LS_NEAR]


def even(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) & 1)


def pairs() -> list[tuple[str, str]]:
    return [
        (name, label)
        for name in STREAMS
        for label in LABELS
        if SYNTAXES[label].family.value != name.split(",")[0]
    ]


@pytest.mark.parametrize(("name", "label"), pairs())
@pytest.mark.parametrize("target", [EXPLICIT, RLE])
def test_a_jpeg_under_the_label_of_another_one(name: str, label: str, target: str) -> None:
    stream, array, method = STREAMS[name]
    source = compressed_file(IMAGE, label, [even(stream)])

    for verify in ("off", "all"):
        with pytest.raises(InstanceError) as caught:
            run(source, target, verify=verify)
        assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL
    body, done = run(source, target, verify="all", on_wrong_label="decode")

    native = body if target == EXPLICIT else run(body)[0]
    assert np.array_equal(samples(native)[0], array)
    assert read(body).get("LossyImageCompression") == ("01" if method else None)
    assert read(body).get("LossyImageCompressionMethod") == method
    family = name.split(",", maxsplit=1)[0]
    assert done.evidence.trusted == f"{family} under {SYNTAXES[label].keyword}"
    assert done.source_syntax == label
    assert fingerprint(source, trusts_stream=True).same_image(fingerprint(native))
    with pytest.raises(InstanceError):
        fingerprint(source)


def test_a_right_label_is_not_said_to_be_wrong() -> None:
    stream, _, _ = STREAMS["jpeg-ls"]
    _, done = run(compressed_file(IMAGE, JPEG_LS, [even(stream)]), on_wrong_label="decode")
    assert done.evidence.trusted == ""


OTHER_FAMILIES = [
    (JPEG_LS, J2K), (J2K, JPEG_LS), (J2K, HTJ2K), (HTJ2K, J2K), (RLE, JPEG_SV1),
    (JPEG_SV1, RLE), (JPEG_XL, JPEG_LS), (JPEG_LS, JPEG_XL),
]  # fmt: skip


@pytest.mark.parametrize(("written", "label"), OTHER_FAMILIES)
def test_nothing_outside_the_jpeg_family_is_trusted(written: str, label: str) -> None:
    image = Image(rows=40, columns=48, allocated=8, stored=8)
    stream = ENCODE[written](image, image.array()[0])
    source = compressed_file(image, label, [even(stream)])
    for how in ("park", "decode"):
        with pytest.raises(InstanceError):
            run(source, on_wrong_label=how)


@pytest.mark.parametrize("hold_bytes_max", [0, 1 << 20])
@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize("other", ["jpeg-dct", "jpeg-ls"])
def test_frames_of_different_processes_are_not_trusted(
    other: str, odd: int, hold_bytes_max: int
) -> None:
    streams = [even(STREAMS[other if i == odd else "jpeg-lossless"][0]) for i in range(3)]
    image = Image(rows=24, columns=16, allocated=8, stored=8, frames=3)
    for label in (JPEG_SV1, JPEG_BASELINE):
        source = compressed_file(image, label, streams)
        with pytest.raises(InstanceError):
            run(source, on_wrong_label="decode", hold_bytes_max=hold_bytes_max)


def test_what_else_contradicts_is_parked_all_the_same() -> None:
    stream, _, _ = STREAMS["jpeg-dct"]
    wide = Image(rows=24, columns=18, allocated=8, stored=8)
    with pytest.raises(InstanceError, match="columns"):
        run(compressed_file(wide, JPEG_SV1, [even(stream)]), on_wrong_label="decode")


def test_an_icon_is_trusted_too_and_said_so() -> None:
    icon = dataset(IMAGE)
    icon.PixelData = item(b"") + item(even(STREAMS["jpeg-dct"][0]))
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    source = compressed_file(
        IMAGE, JPEG_LS, [even(STREAMS["jpeg-ls"][0])], IconImageSequence=Sequence([icon])
    )

    body, done = run(source, on_wrong_label="decode")

    assert read(body).IconImageSequence[0].PixelData == ARRAY.tobytes()
    assert done.evidence.trusted == "icon: jpeg-dct under JPEGLSLossless"


@pytest.mark.parametrize("label", [JPEG_BASELINE, EXPLICIT])
def test_a_rule_sees_what_is_in_a_file_whose_label_is_wrong(label: str) -> None:
    """An implicit data set under an explicit label: a rule by modality can forward it."""
    facts = facts_of_file(memoryview(relabelled(native_file(IMAGE, IMPLICIT), label)))
    assert facts["modality"] == "OT"
    assert facts["syntax"] == label


def test_every_family_of_jpeg_shares_its_first_bytes() -> None:
    """That is why a label within the family can be believed to be the only mistake."""
    starts = {stream[:3] for stream, _, _ in STREAMS.values()}
    assert starts == {pack(">BBB", 0xFF, 0xD8, 0xFF)}
    assert Family.JPEG_DCT.value in STREAMS

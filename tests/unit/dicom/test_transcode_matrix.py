"""Every codec with every layout it can carry: encoded by the tests, decoded by the product."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.model import Action
from tests.transcode_cases import (
    DEFLATED,
    DEFLATED_FRAME,
    ENCODE,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG_LS,
    JPEG_SV1,
    JPEG_XL,
    RAW,
    RLE,
    Image,
    encoded_file,
    native_file,
    read,
    run,
    samples,
    save,
)

IMAGES = {
    "u8": Image(allocated=8, stored=8),
    "u8 odd length": Image(rows=3, columns=3, allocated=8, stored=8),
    "u12": Image(stored=12),
    "u10": Image(stored=10),
    "u16": Image(stored=16),
    "s16": Image(stored=16, signed=True),
    "s12": Image(stored=12, signed=True),
    "s8": Image(allocated=8, stored=8, signed=True),
    "3 frames": Image(stored=12, frames=3),
    "monochrome1": Image(stored=12, photometric="MONOCHROME1"),
    "palette": Image(allocated=8, stored=8, photometric="PALETTE COLOR"),
    "rgb": Image(samples=3, allocated=8, stored=8, photometric="RGB"),
    "rgb odd": Image(rows=3, columns=5, samples=3, allocated=8, stored=8, photometric="RGB"),
    "rgb 2 frames": Image(samples=3, allocated=8, stored=8, photometric="RGB", frames=2),
    "rgb 16": Image(samples=3, stored=16, photometric="RGB"),
    "ybr full": Image(samples=3, allocated=8, stored=8, photometric="YBR_FULL"),
    "u32": Image(allocated=32, stored=32),
    "s32": Image(allocated=32, stored=32, signed=True),
    "rgb 32": Image(samples=3, allocated=32, stored=32, photometric="RGB"),
    "1 bit": Image(rows=8, columns=10, allocated=1, stored=1),
    "1 bit unaligned": Image(rows=3, columns=3, allocated=1, stored=1, frames=3),
}
WIDE = ("u32", "s32", "rgb 32")
BITS = ("1 bit", "1 bit unaligned")
NOT_CARRIED = {
    RLE: BITS,
    JPEG_SV1: (*WIDE, *BITS),
    JPEG_LS: (*WIDE, *BITS),
    J2K: WIDE,
    HTJ2K: (*WIDE, *BITS),
    JPEG_XL: (*WIDE, *BITS, "s16", "s12", "s8", "ybr full"),
    RAW: (),
    DEFLATED_FRAME: (),
}
OURS = {
    "RLELossless": RLE,
    "JPEG2000Lossless": J2K,
    "HTJ2KLossless": HTJ2K,
    "JPEGLSLossless": JPEG_LS,
    "JPEGLosslessSV1": JPEG_SV1,
}


def cases(syntaxes: dict[str, str]) -> list[object]:
    return [
        pytest.param(key, name, id=f"{key}-{name}")
        for key, syntax in syntaxes.items()
        for name in IMAGES
        if name not in NOT_CARRIED[syntax]
    ]


@pytest.mark.parametrize(("syntax", "name"), cases({syntax: syntax for syntax in ENCODE}))
def test_decodes_what_was_encoded(syntax: str, name: str) -> None:
    image = IMAGES[name]

    body, result = run(encoded_file(image, syntax), verify="all")

    ds = read(body)
    assert samples(body).tobytes() == image.array().tobytes()
    assert (result.action, result.target_syntax) == (Action.TRANSCODED, EXPLICIT)
    assert ds.PhotometricInterpretation == image.photometric
    assert (ds.BitsAllocated, ds.BitsStored) == (image.allocated, image.stored)
    assert (ds["PixelData"].VR == "OW") is (image.allocated > 8)
    assert not ds["PixelData"].is_undefined_length
    assert result.frames == image.frames
    assert result.decoder


@pytest.mark.parametrize(("target", "name"), cases(OURS))
@pytest.mark.parametrize("source", [EXPLICIT, IMPLICIT])
def test_encodes_what_decodes_to_the_same(source: str, target: str, name: str) -> None:
    image = IMAGES[name]
    original = native_file(image, source)

    packed, result = run(original, target)
    body, _ = run(packed)

    ds = read(packed)
    assert samples(body).tobytes() == image.array().tobytes()
    assert result.target_syntax == ds.file_meta.TransferSyntaxUID == OURS[target]
    transformed = image.photometric == "RGB" and target in ("JPEG2000Lossless", "HTJ2KLossless")
    assert ds.PhotometricInterpretation == ("YBR_RCT" if transformed else image.photometric)
    assert ds["PixelData"].is_undefined_length


@pytest.mark.parametrize("name", ["u32", "1 bit"])
def test_from_one_compressed_syntax_to_another(name: str) -> None:
    image = IMAGES[name]
    source, target = (RAW, "RLELossless") if name == "u32" else (DEFLATED_FRAME, "JPEG2000Lossless")

    body, _ = run(run(encoded_file(image, source), target)[0])

    assert samples(body).tobytes() == image.array().tobytes()


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, DEFLATED])
@pytest.mark.parametrize("hold_bytes_max", [0, 1 << 20])
def test_every_native_target_held_or_streamed(target: str, hold_bytes_max: int) -> None:
    image = IMAGES["rgb 2 frames"]

    body, result = run(encoded_file(image, JPEG_LS), target, hold_bytes_max=hold_bytes_max)

    assert result.target_syntax == read(body).file_meta.TransferSyntaxUID == target
    assert samples(body).tobytes() == image.array().tobytes()


def test_the_body_can_be_read_twice() -> None:
    image = IMAGES["3 frames"]
    _, result = run(encoded_file(image, RLE), hold_bytes_max=0, hash_samples=True)

    first, second = (b"".join(bytes(c) for c in result.body) for _ in range(2))

    assert first == second
    assert len(first) == result.body.body_bytes


def test_a_plane_by_plane_image_is_encoded_by_pixel() -> None:
    image = Image(samples=3, allocated=8, stored=8, photometric="RGB", planar=1, frames=2)

    packed, _ = run(native_file(image), "JPEGLSLossless")

    assert read(packed).PlanarConfiguration == 0
    assert np.array_equal(samples(run(packed)[0]), image.array())


def test_signed_samples_without_sign_in_the_unused_bits_are_widened() -> None:
    image = Image(stored=12, signed=True)
    original = native_file(image)
    masked = (image.array() & 0xFFF).astype("<u2").tobytes()
    original = original.replace(image.array().tobytes(), masked)

    packed, _ = run(original, "JPEG2000Lossless")

    assert np.array_equal(samples(run(packed)[0]), image.array())


def test_overlay_bits_above_bits_stored_survive_compression() -> None:
    image = Image(stored=12)
    original = native_file(image)
    with_overlay = (image.array() | 0x4000).astype("<u2").tobytes()
    original = original.replace(image.array().tobytes(), with_overlay)

    packed, _ = run(original, "JPEGLosslessSV1")

    assert with_overlay in run(packed)[0]


def test_subsampled_native_colour_is_compressed_at_full_resolution() -> None:
    image = Image(rows=4, columns=6, samples=3, allocated=8, stored=8, photometric="YBR_FULL_422")
    y, cb, cr = np.arange(24, dtype="u1"), np.arange(12, dtype="u1"), np.arange(12, 24, dtype="u1")
    pairs = np.stack([y[0::2], y[1::2], cb, cr], axis=1)
    plain = native_file(Image(rows=4, columns=4, samples=3, allocated=8, stored=8), EXPLICIT)
    ds = read(plain)
    ds.Columns, ds.PhotometricInterpretation, ds.PixelData = 6, "YBR_FULL_422", pairs.tobytes()

    packed, _ = run(save(ds, EXPLICIT), "RLELossless")
    unpacked = read(run(packed)[0])

    expected = np.stack([y, cb.repeat(2), cr.repeat(2)], axis=1)
    assert unpacked.PhotometricInterpretation == "YBR_FULL"
    assert unpacked.PixelData == expected.tobytes()
    assert image.columns == unpacked.Columns

"""Three frames of which one differs, frames that are read twice, and what is written of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from struct import pack
from types import SimpleNamespace
from typing import Any, cast

import imagecodecs
import numpy as np
import pytest

from bridge.dicom import codecs
from bridge.dicom import frames as frames_module
from bridge.dicom.changed_elements import decoded_changes
from bridge.dicom.description import Description, NewValue
from bridge.dicom.elements import UNDEFINED, Element, Reader
from bridge.dicom.frames import CompressedFrames, Evidence
from bridge.dicom.new_pixel_data import native_value, refuse_above_32_bits
from bridge.dicom.rewrite import Pieces, Rewriter, element_header
from bridge.dicom.syntaxes import Family
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import Reason, TranscodeOptions
from tests.transcode_cases import (
    ENCODE,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG_LS,
    JPEG_LS_NEAR,
    RLE,
    Array,
    Image,
    compressed_file,
    dataset,
    encoded_file,
    native_bytes,
    native_file,
    read,
    run,
    samples,
    save,
)

GREY = Image(rows=20, columns=18, allocated=8, stored=8, frames=3)
COLOUR = replace(GREY, samples=3, photometric="RGB")


def even(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) & 1)


# --- one frame of another kind than the others ---


@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize("usual", [True, False])
@pytest.mark.parametrize("hold", [0, 1 << 30])
def test_a_frame_with_another_component_transform(odd: int, usual: bool, hold: int) -> None:
    """One label stands for all three: without a transform the samples of YCbCr are no RGB."""
    streams = [
        even(bytes(imagecodecs.jpeg2k_encode(
            frame, level=0, reversible=True, codecformat="j2k", mct=usual != (i == odd)
        )))
        for i, frame in enumerate(COLOUR.array())
    ]  # fmt: skip
    with pytest.raises(InstanceError, match="differ from the first frame's") as caught:
        run(compressed_file(COLOUR, J2K, streams), hold_bytes_max=hold)
    assert caught.value.reason is Reason.UNDECODABLE
    # Of the frames behind the first one, the one that differs is named.
    assert f"Frame {odd + 1 if odd else 2} of 3 " in caught.value.message


@pytest.mark.parametrize("lossy", [0, 1, 2])
@pytest.mark.parametrize("hold", [0, 1 << 30])
def test_one_lossy_frame_makes_the_image_lossy(lossy: int, hold: int) -> None:
    """Its mark is written before the third frame is decoded."""
    streams = [
        even(bytes(imagecodecs.jpegls_encode(frame, 3 if i == lossy else 0)))
        for i, frame in enumerate(GREY.array())
    ]
    body, _ = run(compressed_file(GREY, JPEG_LS_NEAR, streams), hold_bytes_max=hold)

    ds = read(body)
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionMethod == "ISO_14495_1"
    ratio = GREY.array().nbytes / sum(map(len, streams))
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(ratio, abs=0.01)


def test_three_frames_without_loss_under_a_lossy_syntax() -> None:
    streams = [even(bytes(imagecodecs.jpegls_encode(frame))) for frame in GREY.array()]
    body, _ = run(compressed_file(GREY, JPEG_LS_NEAR, streams))

    assert "LossyImageCompression" not in read(body)


METHODS = {
    Family.JPEG_DCT: "ISO_10918_1",
    Family.JPEG_LOSSLESS: "ISO_10918_1",
    Family.JPEG_LS: "ISO_14495_1",
    Family.J2K: "ISO_15444_1",
    Family.HTJ2K: "ISO_15444_15",
    Family.JPEG_XL: "ISO_18181_1",
}
"""PS3.3 C.7.6.1.1.5.1."""


@pytest.mark.parametrize("family", METHODS)
@pytest.mark.parametrize("said", ["", "00", "01"])
def test_what_is_said_of_a_lossy_code_stream(family: Family, said: str) -> None:
    d = Description(
        rows=20, columns=10, samples=1, photometric="MONOCHROME2", planar=None, allocated=8,
        stored=8, signed=False, frames=3, lossy=said,
    )  # fmt: skip
    frames = SimpleNamespace(
        d=d, photometric=d.photometric, lossy=True, compressed_bytes=100,
        first=SimpleNamespace(family=family),
    )  # fmt: skip

    def changes(**known: bool) -> dict[int, str]:
        frames.d = replace(d, **cast(Any, known))
        found = decoded_changes(cast(CompressedFrames, frames), top=True)
        return {tag: c.value.decode().strip() for tag, c in found.items() if c}

    told = {0x00282110: "01", 0x00282112: "6.00", 0x00282114: METHODS[family]}
    if said == "01":
        assert changes() == {}
        return
    assert changes() == told
    assert changes(has_ratio=True) == {t: v for t, v in told.items() if t != 0x00282112}
    assert changes(has_method=True) == {t: v for t, v in told.items() if t != 0x00282114}
    assert not any(decoded_changes(cast(CompressedFrames, frames), top=False).values())


# --- the sum of the samples, read once or twice ---


@pytest.mark.parametrize("hold", [0, 1 << 30])
@pytest.mark.parametrize("syntax", [RLE, JPEG_LS])
def test_the_sum_is_that_of_one_reading(hold: int, syntax: str) -> None:
    """A body that is sent again decodes its frames again."""
    result = transcode(
        encoded_file(GREY, syntax),
        wanted_syntax=EXPLICIT,
        options=TranscodeOptions(hash_samples=True, hold_bytes_max=hold, verify="all"),
    )
    wanted = hashlib.sha256(GREY.array().tobytes()).hexdigest()
    for _ in range(3):
        body = b"".join(bytes(chunk) for chunk in result.body)
        assert np.array_equal(samples(body), GREY.array())
        assert result.samples_sha256 == wanted
    if syntax == RLE:  # JPEG-LS has one decoder only
        assert result.verified
        assert result.evidence.verified_frames == 3


# --- what an encoder made is not believed ---


def broken(monkeypatch: pytest.MonkeyPatch, syntax: str, encode: Any) -> None:
    encoder = replace(codecs.ENCODERS[syntax], encode=encode)
    monkeypatch.setitem(codecs.ENCODERS, syntax, encoder)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_encoder_that_changes_a_sample(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    right = codecs.ENCODERS[JPEG_LS].encode
    seen: list[int] = []

    def wrong(array: Any, d: Description) -> bytes:
        seen.append(1)
        if len(seen) == at + 1:
            array = array.copy()
            array[-1, -1] ^= 1
        return right(array, d)

    broken(monkeypatch, JPEG_LS, wrong)
    with pytest.raises(InstanceError, match="decodes it to other samples") as caught:
        run(native_file(GREY), JPEG_LS)
    assert caught.value.reason is Reason.VERIFICATION_FAILED
    assert f"Frame {at + 1} of 3" in caught.value.message


@pytest.mark.parametrize("syntax", [J2K, HTJ2K])
def test_an_encoder_that_leaves_out_the_component_transform(
    monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    """The samples are right, and the label that is written, YBR_RCT, is wrong for others."""
    plain = replace(COLOUR, photometric="YBR_FULL")
    broken(monkeypatch, syntax, lambda array, _: ENCODE[syntax](plain, array))
    with pytest.raises(InstanceError, match="decodes it to other samples") as caught:
        run(native_file(COLOUR), syntax)
    assert caught.value.reason is Reason.VERIFICATION_FAILED


@pytest.mark.parametrize("hold", [0, 1 << 30])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_encoded_frames_are_padded_to_even_length(
    monkeypatch: pytest.MonkeyPatch, hold: int, size: int
) -> None:
    """With what follows an end marker, of either parity."""
    right = codecs.ENCODERS[JPEG_LS].encode
    broken(monkeypatch, JPEG_LS, lambda array, d: right(array, d).ljust(2000 + size, b"\0"))
    body, _ = run(native_file(GREY), JPEG_LS, hold_bytes_max=hold)

    assert np.array_equal(samples(run(body)[0]), GREY.array())
    padded = 2000 + size + size % 2
    assert body.count(pack("<HHI", 0xFFFE, 0xE000, padded)) == 3


@pytest.mark.parametrize("target", [J2K, RLE, JPEG_LS])
@pytest.mark.parametrize("source", ["native", "encapsulated"])
def test_colour_by_plane_is_by_pixel_when_it_is_compressed(target: str, source: str) -> None:
    image = replace(COLOUR, planar=1)
    raw = "1.2.840.10008.1.2.1.98"
    streams = [native_bytes(image, frame[None]) for frame in image.array()]
    data = native_file(image) if source == "native" else compressed_file(image, raw, streams)
    body, _ = run(data, target)

    assert read(body).PlanarConfiguration == 0
    again = run(body)[0]
    assert read(again).PlanarConfiguration == 0
    assert np.array_equal(samples(again), image.array())


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_native_pixels_of_odd_length_are_padded(frames: int) -> None:
    """3 x 5 bytes: one frame is odd, two are even, three are odd."""
    image = Image(rows=3, columns=5, allocated=8, stored=8, frames=frames)
    body, _ = run(encoded_file(image, RLE))
    wanted = native_bytes(image, image.array())

    assert read(body).PixelData == wanted
    assert len(wanted) % 2 == 0


class Repeated:
    """The same frame again and again."""

    def __init__(self, d: Description) -> None:
        self.d = d
        self.evidence = Evidence()

    def __iter__(self) -> Iterator[Array]:
        for _ in range(self.d.frames):
            yield np.ones((self.d.rows, self.d.columns), f"u{self.d.container_bytes}")


@pytest.mark.parametrize("allocated", [1, 8, 16])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_native_value_is_as_long_as_its_header_says(allocated: int, frames: int) -> None:
    d = Description(
        rows=3, columns=5, samples=1, photometric="MONOCHROME2", planar=None,
        allocated=allocated, stored=allocated, signed=False, frames=frames, lossy="",
    )  # fmt: skip
    value = b"".join(bytes(chunk) for chunk in native_value(Repeated(d)))
    assert len(value) == d.native_bytes + (d.native_bytes & 1)


# --- headers of elements, and their lengths ---


@pytest.mark.parametrize(
    ("vr", "length", "header"),
    [
        (b"LO", 0xFFFE, pack("<HH2sH", 8, 9, b"LO", 0xFFFE)),
        (b"LO", 0xFFFF, pack("<HH2sH", 8, 9, b"LO", 0xFFFF)),
        (b"LO", 0x10000, pack("<HH2sHI", 8, 9, b"UN", 0, 0x10000)),
        (b"LO", 0x10002, pack("<HH2sHI", 8, 9, b"UN", 0, 0x10002)),
        (b"UT", 0x10000, pack("<HH2sHI", 8, 9, b"UT", 0, 0x10000)),
        (b"OB", 4, pack("<HH2sHI", 8, 9, b"OB", 0, 4)),
        (b"SQ", UNDEFINED, pack("<HH2sHI", 8, 9, b"SQ", 0, UNDEFINED)),
    ],
)
def test_headers(vr: bytes, length: int, header: bytes) -> None:
    assert element_header(0x00080009, vr, length, implicit=False) == header
    wanted = pack("<HHI", 8, 9, length)
    assert element_header(0x00080009, vr, length, implicit=True) == wanted


@pytest.mark.parametrize("length", [0xFFFD, 0xFFFE, 0xFFFF, 0x10000])
def test_a_value_at_the_edge_of_a_16_bit_length(length: int) -> None:
    """An odd one is padded before its length is judged."""
    text = b"t" * length
    source = save(dataset(GREY), IMPLICIT) + pack("<HHI", 0x3006, 0x0050, length) + text

    element = read(run(source)[0])[0x30060050]
    assert ("DS" if length < 0xFFFF else "UN") == element.VR


@pytest.mark.parametrize("sizes", [(10, 20_000, 10), (16_384, 16_385, 1), (20_000,) * 3, (0, 5, 0)])
def test_pieces_keep_their_order(sizes: tuple[int, ...]) -> None:
    chunks = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    pieces, other = Pieces(), Pieces()
    for chunk in chunks:
        pieces.add(chunk)
        other.add(chunk)
    pieces.extend(other)
    assert pieces.length == 2 * sum(sizes)
    assert b"".join(bytes(c) for c in pieces.chunks()) == b"".join(chunks) * 2


def rewritten(data: bytes, *, changes: dict[int, NewValue | None] | None = None) -> bytes:
    reader = Reader(memoryview(data), implicit=False)
    out = Pieces()
    elements = reader.level(0, len(data))
    Rewriter(reader, target_implicit=False).level(elements, changes or {}, out, signed=False)
    return b"".join(bytes(c) for c in out.chunks())


def short(tag: int, vr: bytes, value: bytes) -> bytes:
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


TAGS = (0x00080005, 0x00080020, 0x00080060)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize("tag", [0x00080000, 0xFFFCFFFC])
def test_group_lengths_and_padding_are_left_out_wherever_they_lie(at: int, tag: int) -> None:
    kept = [short(one, b"LO", b"ab") for one in TAGS]
    left_out = short(tag, b"UL", b"\1\0\0\0")
    data = b"".join([*kept[:at], left_out, *kept[at:]])
    assert rewritten(data) == b"".join(kept)


MAY = (0x00280004, 0x00280101, 0x7FE00001)
"""Three that may change."""


@pytest.mark.parametrize("count", [1, 2, 3])
def test_elements_are_changed_added_and_taken_out_in_order(count: int) -> None:
    kept = {tag: short(tag, b"LO", b"ab") for tag in MAY}
    new = NewValue(b"LO", b"new!")
    for first in range(3):
        chosen = [MAY[(first + i) % 3] for i in range(count)]
        changed = {tag: short(tag, b"LO", b"new!") for tag in chosen}
        wanted = b"".join((kept | changed)[tag] for tag in MAY)
        assert rewritten(b"".join(kept.values()), changes=dict.fromkeys(chosen, new)) == wanted
        without = b"".join(kept[tag] for tag in MAY if tag not in chosen)
        assert rewritten(b"".join(kept.values()), changes=dict.fromkeys(chosen)) == without
        assert rewritten(without, changes=dict.fromkeys(chosen, new)) == wanted


def fragments_element(*, ended: bool) -> bytes:
    content = pack("<HHI", 0xFFFE, 0xE000, 0) + pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
    end = pack("<HHI", 0xFFFE, 0xE0DD, 0) if ended else b""
    return pack("<HH2sHI", 0x0099, 0x1001, b"OB", 0, UNDEFINED) + content + end


@pytest.mark.parametrize("target", [EXPLICIT, "1.2.840.10008.1.2.1.99", IMPLICIT])
@pytest.mark.parametrize("ended", [True, False])
def test_fragments_of_another_element_than_pixel_data(target: str, ended: bool) -> None:
    """Carried as they are where the wanted syntax can hold them, if they are whole."""
    element = fragments_element(ended=ended)
    creator = short(0x00990010, b"LO", b"NOBODY")
    source = encoded_file(replace(GREY, frames=1), RLE)
    at = source.index(pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0))
    if ended:
        data = source[:at] + creator + element + source[at:]
    else:
        data = save(dataset(GREY), RLE) + creator + element
    if ended and target != IMPLICIT:
        body, _ = run(data, target)
        assert element in run(body)[0]
        return
    with pytest.raises(InstanceError) as caught:
        run(data, target)
    assert caught.value.reason is Reason.UNDECODABLE
    wanted = "cannot hold" if target == IMPLICIT else "cut off"
    assert wanted in caught.value.message


def test_an_implicit_sequence_is_written_as_one() -> None:
    """Of known and of unknown length; pydicom would read UN as a sequence too."""
    ds = dataset(GREY)
    ds.RequestAttributesSequence = [dataset(GREY), dataset(GREY), dataset(GREY)]
    ds.SourceImageSequence = [dataset(GREY)]
    ds["SourceImageSequence"].is_undefined_length = True
    body, _ = run(save(ds, IMPLICIT))

    for tag in (0x00400275, 0x00082112):
        assert pack("<HH2s", tag >> 16, tag & 0xFFFF, b"SQ") in body


def test_an_element_that_is_undefined_in_an_explicit_data_set_is_a_sequence() -> None:
    """Implicit elements inside an explicit data set: seen in files that were edited by hand."""
    inner = short(0x00080050, b"SH", b"ab")
    odd = pack("<HHI", 0x0040, 0x0275, UNDEFINED) + pack("<HHI", 0xFFFE, 0xE000, len(inner))
    odd += inner + pack("<HHI", 0xFFFE, 0xE0DD, 0)
    reader = Reader(memoryview(odd), implicit=False)
    element = Element(0x00400275, b"", 0, 8, len(odd) - 8, len(odd), True)
    out = Pieces()
    Rewriter(reader, target_implicit=False).level([element], {}, out, signed=False)

    written = b"".join(bytes(c) for c in out.chunks())
    assert written.startswith(pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, UNDEFINED))
    assert inner in written


def test_native_pixels_are_as_long_as_a_length_can_say() -> None:
    """Even, in 32 bits, and not FFFFFFFF, which means none (PS3.5 7.1.1)."""
    d = Description(
        rows=0xFFFF, columns=0x10001, samples=1, photometric="MONOCHROME2", planar=None,
        allocated=8, stored=8, signed=False, frames=1, lossy="",
    )  # fmt: skip
    assert d.native_bytes == 0xFFFFFFFF
    with pytest.raises(InstanceError) as caught:
        refuse_above_32_bits(d)
    assert caught.value.reason is Reason.TOO_LARGE
    refuse_above_32_bits(replace(d, rows=0x7FFFFFFF, columns=2))


def test_the_header_has_the_uids_of_the_data_set() -> None:
    """Not those of the old header, which may be another instance's."""
    ds = dataset(GREY)
    data = save(ds, EXPLICIT)
    wrong = data.replace(str(ds.SOPInstanceUID).encode(), b"9" * len(str(ds.SOPInstanceUID)), 1)
    classes = str(ds.SOPClassUID).encode()
    wrong = wrong.replace(classes, b"8" * len(classes), 1)
    assert read(wrong).file_meta.MediaStorageSOPClassUID == "8" * len(classes)
    meta = read(run(wrong, IMPLICIT)[0]).file_meta
    assert meta.MediaStorageSOPClassUID == ds.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("pixels", [True, False])
def test_tables_of_fragments_do_not_outlive_them(number: int, pixels: bool) -> None:
    """(7FE0,0001) to (7FE0,0003) say where fragments lie: there are none any more."""
    entry = pack("<HH2sHI", 0x7FE0, number, b"OV", 0, 24) + pack("<3Q", 1, 2, 3)
    source = encoded_file(GREY, RLE)
    at = source.index(pack("<HH2sH", 0x7FE0, 0x0010, b"OB", 0))
    body, _ = run(source[:at] + entry + (source[at:] if pixels else b""))
    assert (0x7FE0 << 16 | number) not in read(body)


@pytest.mark.parametrize(
    ("told", "ours"),
    [((3, 5), True), ((5, 3), True), ((3, 3), False), ((3, 6), False), (None, False)],
)
def test_a_bare_jpeg_xl_stream_has_our_size_turned_or_not(
    monkeypatch: pytest.MonkeyPatch, told: tuple[int, int] | None, *, ours: bool
) -> None:
    """Its signature of two bytes may be there by chance; an image may be turned in its header."""
    monkeypatch.setattr(frames_module, "jpeg_xl_size", lambda _head: told)
    frames = CompressedFrames.__new__(CompressedFrames)
    frames.d = cast(Description, SimpleNamespace(rows=3, columns=5))
    assert frames._has_our_size(b"head") is ours


def bare_frames(**attributes: Any) -> CompressedFrames:
    """Return frames of nothing, with these attributes: for one rule at a time."""
    frames = CompressedFrames.__new__(CompressedFrames)
    for name, value in attributes.items():
        setattr(frames, name, value)
    return frames


def refused(_index: int, what: str, *_reason: Reason) -> InstanceError:
    return InstanceError(Reason.UNDECODABLE, what)


SCANS = b"scan one|scan two|scan three|\xff\xd9"
SCAN_ENDS = (9, 18, 29)


@pytest.mark.parametrize(("progressive", "tried"), [(False, {9, 18, 29}), (True, {29})])
def test_each_scan_is_tried_with_two_tails(*, progressive: bool, tried: set[int]) -> None:
    seen: list[bytes] = []

    def decoded(_index: int, frame: bytes, _info: object) -> Any:
        seen.append(frame)
        return np.zeros(2)

    frames = bare_frames(_decoded_by_first=decoded, _fault=refused)
    info: Any = SimpleNamespace(scan_ends=SCAN_ENDS, progressive=progressive)
    frames._refuse_cut(0, SCANS, info, np.zeros(2))
    expected = {SCANS[:at] + byte * 64 + SCANS[at:] for at in tried for byte in (b"\x55", b"\xaa")}
    assert set(seen) == expected
    assert len(seen) == len(expected)


@pytest.mark.parametrize("cut", SCAN_ENDS)
@pytest.mark.parametrize("byte", [b"\x55", b"\xaa"])
def test_a_scan_whose_samples_hang_on_its_tail_is_cut(cut: int, byte: bytes) -> None:
    """Whichever of three it is, and whichever tail shows it."""
    shows = SCANS[:cut] + byte * 64 + SCANS[cut:]
    frames = bare_frames(
        _decoded_by_first=lambda _i, frame, _info: np.array([frame == shows]), _fault=refused
    )
    info: Any = SimpleNamespace(scan_ends=SCAN_ENDS, progressive=False)
    with pytest.raises(InstanceError, match="cut short"):
        frames._refuse_cut(0, SCANS, info, np.array([False]))


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("stream_signed", [True, False])
def test_bits_stored_grow_only_for_lossy_samples_without_a_sign_before_the_header_is_sent(
    monkeypatch: pytest.MonkeyPatch, *, fits: bool, final: bool, signed: bool, stream_signed: bool
) -> None:
    monkeypatch.setattr(frames_module, "fits", lambda *_, **__: fits)
    monkeypatch.setattr(frames_module, "replace", lambda described, **_: described)
    frames = bare_frames(
        d=SimpleNamespace(signed=signed), bits_stored=10, header_is_final=final, _fault=refused
    )
    info: Any = SimpleNamespace(signed=stream_signed, precision=12)
    if fits:
        frames._widen(1, np.zeros(1), info)
        assert frames.bits_stored == 10
    elif final or signed or stream_signed:
        with pytest.raises(InstanceError, match="beyond the 10 bits stored"):
            frames._widen(1, np.zeros(1), info)
    else:
        frames._widen(1, np.zeros(1), info)
        assert frames.bits_stored == 12


def test_the_evidence_names_who_decoded_the_first_frame_and_who_stood_in() -> None:
    frames = bare_frames(evidence=Evidence(), _syntax=SimpleNamespace(family=Family.JPEG_LS))
    one, other, third = (cast(Any, SimpleNamespace(name=name)) for name in ("A", "B", "C"))
    for index, decoder, stands_in in (
        (0, one, False),
        (1, other, True),
        (2, other, True),
        (3, third, True),
    ):
        frames._note(decoder, index, refused=stands_in)
    assert frames.evidence.decoder == "A"
    assert frames.evidence.fallbacks == ["B", "C"]
    frames._note(other, 0, refused=True)
    assert frames.evidence.decoder == "B", "the first frame was decoded again"

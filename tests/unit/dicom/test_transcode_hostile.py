"""Hostile and broken input ends in an InstanceError: no endless loop, recursion or allocation."""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path
from struct import pack

import pytest

from bridge.dicom import elements, inflate
from bridge.dicom.syntaxes import OFFERED_TARGETS, SYNTAXES, Kind, target_syntax_uid
from bridge.dicom.transcode import peek_syntax, transcode
from bridge.errors import InstanceError
from bridge.model import Reason, TranscodeOptions
from tests.transcode_cases import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LS,
    RLE,
    Image,
    compressed_file,
    dataset,
    encoded_file,
    item,
    native_file,
    read,
    relabelled,
    run,
    samples,
    save,
)

GREY = Image(rows=8, columns=6, allocated=8, stored=8)
SEQUENCE_END = pack("<HHI", 0xFFFE, 0xE0DD, 0)
ITEM_END = pack("<HHI", 0xFFFE, 0xE00D, 0)


def reason_of(source: bytes, wanted: str = IMPLICIT) -> Reason:
    with pytest.raises(InstanceError) as caught:
        run(source, wanted)
    return caught.value.reason


def bare(syntax: str = EXPLICIT) -> bytes:
    return save(dataset(GREY), syntax)


def nested_explicit(depth: int, *, undefined: bool) -> bytes:
    content = b""
    for _ in range(depth):
        if undefined:
            wrapped = pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + ITEM_END + SEQUENCE_END
        else:
            wrapped = item(content)
        length = 0xFFFFFFFF if undefined else len(wrapped)
        content = pack("<HH2sHI", 0x0099, 0x1001, b"SQ", 0, length) + wrapped
    return content


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("depth", [100, 2_000])
def test_deep_nesting_is_refused(depth: int, undefined: bool) -> None:
    assert reason_of(bare() + nested_explicit(depth, undefined=undefined)) is Reason.NOT_DICOM


def test_hundred_thousand_unfinished_sequences_are_refused() -> None:
    opening = pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)

    assert reason_of(bare(IMPLICIT) + opening * 100_000, EXPLICIT) is Reason.NOT_DICOM


@pytest.mark.parametrize("undefined", [True, False])
def test_nesting_as_deep_as_real_reports_is_fine(undefined: bool) -> None:
    body, _ = run(bare() + nested_explicit(30, undefined=undefined), IMPLICIT)

    assert 0x00991001 in read(body)


def test_too_many_elements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "LEVEL_ELEMENTS_MAX", 50)

    many = b"".join(pack("<HHI", 0x0099, 0x1000 + i, 0) for i in range(60))

    assert reason_of(bare(IMPLICIT) + many, EXPLICIT) is Reason.TOO_LARGE


def test_a_deflated_data_set_that_explodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "INFLATED_BYTES_MAX", 10_000)
    bomb = zlib.compress(bytes(1_000_000), wbits=-15)
    source = native_file(GREY)

    start = source.index(b"\x08\x00\x16\x00")
    assert reason_of(relabelled(source[:start] + bomb, DEFLATED), EXPLICIT) is Reason.TOO_LARGE


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_deflated_data_set_that_is_cut_or_damaged_is_refused(kept: float) -> None:
    source = native_file(Image(), DEFLATED)
    start = source.index(b"ORTHANC") if b"ORTHANC" in source else 400
    cut = source[: start + int((len(source) - start) * kept)]

    assert reason_of(cut, EXPLICIT) is Reason.UNDECODABLE
    assert reason_of(source[:-40] + b"\xff" * 40, EXPLICIT) in (
        Reason.UNDECODABLE,
        Reason.NOT_DICOM,
    )


@pytest.mark.parametrize(
    ("rows", "columns", "allocated"), [(65535, 65535, 16), (65535, 65535, 8), (40000, 40000, 32)]
)
def test_a_frame_of_gigabytes_is_refused_before_anything_is_allocated(
    rows: int, columns: int, allocated: int
) -> None:
    source = encoded_file(
        GREY, RLE, Rows=rows, Columns=columns, BitsAllocated=allocated, BitsStored=allocated
    )

    assert reason_of(source, EXPLICIT) is Reason.TOO_LARGE


def test_more_than_four_gigabytes_of_pixels_do_not_fit_in_a_native_syntax() -> None:
    image = Image(rows=2000, columns=2000, allocated=8, stored=8, frames=1100)
    stream = pack("<16I", 1, 64, *[0] * 14) + b"\x81\0"
    source = compressed_file(image, RLE, [], pixel_data=item(b"") + item(stream) * 1100)

    with pytest.raises(InstanceError) as caught:
        run(source)

    assert caught.value.reason is Reason.TOO_LARGE
    assert "too large for the wanted syntax" in caught.value.message


@pytest.mark.parametrize(
    "changed",
    [
        {"Rows": 0},
        {"Columns": 0},
        {"BitsAllocated": 0},
        {"BitsAllocated": 9},
        {"BitsAllocated": 12, "BitsStored": 12},
        {"BitsStored": 17},
        {"NumberOfFrames": -1},
        {"NumberOfFrames": 99_999_999},
        {"SamplesPerPixel": 65535},
        {"SamplesPerPixel": 0},
    ],
    ids=str,
)
def test_a_description_that_cannot_be_right_is_refused(changed: dict[str, int]) -> None:
    assert reason_of(encoded_file(GREY, JPEG_LS, **changed)) in (
        Reason.UNDECODABLE,
        Reason.TOO_LARGE,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"DICM",
        bytes(131),
        bytes(132),
        bytes(128) + b"DICM",
        b"GIF89a" + bytes(300),
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"<html><body>404</body></html>" * 10,
        b'{"HttpError": "Not Found"}',
        bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0\xff\xff\xff\x7f",
        bytes(128) + b"DICM" + pack("<HH2sH", 2, 0x10, b"UI", 60000) + b"1.2",
        bytes(128) + b"DICM" + pack("<HH2sH", 2, 0x10, b"UI", 6) + b"AB\xffCDE",
        bytes(128) + b"DICM" + pack("<HH2sH", 2, 0x12, b"UI", 2) + b"1\0" + b"\xff" * 100,
    ],
    ids=lambda data: data[:20].hex(),
)
def test_what_is_not_dicom_is_said_so(data: bytes) -> None:
    with pytest.raises(InstanceError) as caught:
        peek_syntax(data)
    assert caught.value.reason is Reason.NOT_DICOM
    assert reason_of(data) is Reason.NOT_DICOM


def test_a_header_without_data_set_is_not_dicom() -> None:
    source = native_file(GREY)
    assert reason_of(source[: source.index(b"\x08\x00\x16\x00")]) is Reason.NOT_DICOM


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, JPEG_LS])
def test_peek_reads_the_syntax_from_the_head(syntax: str) -> None:
    source = bare(syntax)

    assert peek_syntax(source[:600]) == syntax
    assert peek_syntax(memoryview(source)) == syntax


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_a_data_set_without_any_header_is_recognised(syntax: str) -> None:
    source = native_file(GREY, syntax)
    first = b"\x00\x08\x00\x16" if syntax == BIG_ENDIAN else b"\x08\x00\x16\x00"
    data_set = source[source.index(first) :]

    assert peek_syntax(data_set) == syntax
    if syntax != EXPLICIT:
        delivered = read(run(data_set)[0])
        assert delivered.file_meta.MediaStorageSOPInstanceUID == delivered.SOPInstanceUID


@pytest.mark.parametrize("syntax", [s for s in SYNTAXES.values() if s.kind is Kind.VIDEO])
def test_video_and_referenced_pixels_are_a_reason_of_their_own(syntax: object) -> None:
    uid = getattr(syntax, "uid", "")
    assert reason_of(relabelled(bare(), uid)) is Reason.VIDEO


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.1.2.4.52", "1.2.840.10008.1.2.4.66", "1.2.840.113619.5.2", "1.2.3.4"]
)
def test_retired_and_unknown_syntaxes_are_named(uid: str) -> None:
    with pytest.raises(InstanceError) as caught:
        run(relabelled(bare(), uid))
    assert caught.value.reason is Reason.UNSUPPORTED_SYNTAX
    assert uid in caught.value.message
    assert caught.value.source_syntax == uid


@pytest.mark.parametrize("syntax", OFFERED_TARGETS.values(), ids=lambda s: str(s.keyword))
def test_targets_by_keyword_and_uid(syntax: object) -> None:
    keyword, uid = getattr(syntax, "keyword", ""), getattr(syntax, "uid", "")
    assert target_syntax_uid(keyword) == target_syntax_uid(uid) == uid
    assert target_syntax_uid(f" {keyword.upper()} ") == uid


@pytest.mark.parametrize("name", ["JPEGBaseline8Bit", "1.2.840.10008.1.2.2", "", "raw"])
def test_other_targets_are_refused_with_the_list(name: str) -> None:
    with pytest.raises(ValueError, match="ExplicitVRLittleEndian"):
        target_syntax_uid(name)


@pytest.mark.parametrize("verify", ["sometimes", "sample:", "sample:0", "sample:x"])
def test_verify_is_checked(verify: str) -> None:
    with pytest.raises(ValueError, match="verify must be"):
        run(encoded_file(GREY, RLE), verify=verify)


def test_memory_mapped_input(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(encoded_file(GREY, RLE))
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        result = transcode(mapped, wanted_syntax=EXPLICIT, options=TranscodeOptions())
        body = b"".join(bytes(chunk) for chunk in result.body)
        del result

    assert samples(body).tobytes() == GREY.array().tobytes()


def test_a_fault_in_a_later_frame_shows_at_once_when_held_else_while_reading() -> None:
    image = Image(rows=8, columns=6, frames=3)
    source = bytearray(encoded_file(image, JPEG_LS))
    last = source.rindex(b"\xff\xd8\xff")
    source[last + 60 : last + 80] = bytes(20)

    with pytest.raises(InstanceError, match="Frame 3 of 3"):
        transcode(source, wanted_syntax=EXPLICIT, options=TranscodeOptions())
    streamed = transcode(source, wanted_syntax=EXPLICIT, options=TranscodeOptions(hold_bytes_max=0))
    chunks = iter(streamed.body)
    assert len(next(chunks)) > 0
    with pytest.raises(InstanceError, match="Frame 3 of 3"):
        list(chunks)


def test_memory_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("bridge.dicom.decoders.imagecodecs.packbits_decode", exhausted)

    with pytest.raises(MemoryError):
        run(encoded_file(GREY, RLE))

"""File meta information, byte by byte: read, and written."""

from __future__ import annotations

import io
from struct import pack

import pytest
from pydicom import dcmread

from bridge.dicom.elements import KNOWN_VRS, LONG_VRS
from bridge.dicom.file_meta import (
    ARCHIVES,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    FileMeta,
    looks_packed,
    read_file_meta,
    sniff_dataset,
    write_file_meta,
)
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.transcode_cases import BIG_ENDIAN, EXPLICIT, IMPLICIT

DATASET = pack("<HH2sH", 8, 5, b"CS", 10) + b"ISO_IR 100"
SYNTAX = (0x0010, b"UI", b"1.2.840.10008.1.2.1\0")


def meta_element(number: int, vr: bytes, value: bytes) -> bytes:
    if vr in LONG_VRS:
        return pack("<HH2sHI", 2, number, vr, 0, len(value)) + value
    return pack("<HH2sH", 2, number, vr, len(value)) + value


def made(*members: tuple[int, bytes, bytes], start: bytes = bytes(128) + b"DICM") -> bytes:
    return start + b"".join(meta_element(*one) for one in members) + DATASET


def read(data: bytes) -> FileMeta:
    return read_file_meta(memoryview(data))


def refusal(data: bytes) -> str:
    with pytest.raises(InstanceError) as caught:
        read(data)
    assert caught.value.reason is Reason.NOT_DICOM
    return caught.value.message


@pytest.mark.parametrize("start", [bytes(128) + b"DICM", b"DICM", b""])
def test_where_it_begins(start: bytes) -> None:
    data = made(SYNTAX, start=start)
    meta = read(data)

    assert meta.syntax == EXPLICIT
    assert data[meta.dataset_offset :] == DATASET
    assert meta.syntaxes == ()


@pytest.mark.parametrize("vr", sorted(KNOWN_VRS))
def test_an_element_of_each_vr_before_the_syntax(vr: bytes) -> None:
    meta = read(made((0x0001, b"OB", b"\0\1"), (0x0003, vr, b"abcd"), SYNTAX))

    assert meta.values[0x0003] == (vr, b"abcd")
    assert meta.syntax == EXPLICIT


def test_an_implicit_element_among_them() -> None:
    odd = pack("<HHI", 2, 0x0003, 4) + b"1.2\0"
    meta = read(bytes(128) + b"DICM" + odd + meta_element(*SYNTAX) + DATASET)

    assert meta.values[0x0003] == (b"UN", b"1.2\0")
    assert meta.uid(0x0003) == "1.2"
    assert meta.syntax == EXPLICIT


@pytest.mark.parametrize(
    ("raw", "uid"),
    [
        (b"1.2.3", "1.2.3"),
        (b"1.2.3\0", "1.2.3"),
        (b"1.2.3 ", "1.2.3"),
        (b"1." + b"2" * 62, "1." + "2" * 62),
        (b"1." + b"2" * 63, ""),
        (b"0123456789.", "0123456789."),
        (b"1.2a", ""),
        (b"Doe^John", ""),
        (b"1.2\n", ""),
        (b"", ""),
    ],
)
def test_what_is_a_uid(raw: bytes, uid: str) -> None:
    meta = read(made((0x0003, b"UI", raw), SYNTAX))

    assert meta.uid(0x0003) == uid
    assert meta.uid(0x0002) == ""


def test_elements_are_bounded() -> None:
    many = [(0x0100 + n, b"OB", b"") for n in range(100)]
    assert len(read(made(SYNTAX, *many[:99])).values) == 100
    assert "does not end" in refusal(made(SYNTAX, *many))


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_value_that_is_cut_off(cut: int) -> None:
    data = bytes(128) + b"DICM" + meta_element(*SYNTAX)
    assert "cut off" in refusal(data[:-cut])


def test_a_long_header_that_is_cut_off() -> None:
    data = made(SYNTAX)[: -len(DATASET)] + meta_element(0x0102, b"OB", b"")
    assert read(data).syntax == EXPLICIT
    for cut in (1, 2, 3, 4):
        assert "cut off" in refusal(data[:-cut])


def test_a_syntax_that_is_no_uid() -> None:
    for value in (b"1.2.840x", b"implicit", b"1.2 3"):
        assert "neither a transfer syntax" in refusal(made((0x0010, b"UI", value)))


def test_a_syntax_that_is_too_long_is_shortened() -> None:
    """Nothing that a file says fills a log or the ledger."""
    long_uid = b"1." + b"2" * 1000
    meta = read(made((0x0010, b"UI", long_uid)))
    assert meta.syntax == long_uid[:64].decode()
    twice = read(made((0x0010, b"UI", long_uid), SYNTAX))
    assert twice.syntaxes == (long_uid[:64].decode(), EXPLICIT)


def test_syntaxes_that_are_named() -> None:
    """The last one counts, as everywhere; one that is repeated is one."""
    implicit = (0x0010, b"UI", b"1.2.840.10008.1.2\0")
    assert read(made(SYNTAX, SYNTAX)).syntaxes == ()
    both = read(made(implicit, SYNTAX))
    assert (both.syntax, both.syntaxes) == (EXPLICIT, (IMPLICIT, EXPLICIT))
    thrice = read(made(implicit, SYNTAX, implicit))
    assert (thrice.syntax, thrice.syntaxes) == (IMPLICIT, (IMPLICIT, EXPLICIT))


GROUPS = (0x0004, 0x0008, 0x0010, 0x0028)


@pytest.mark.parametrize("group", [*GROUPS, 0x0002, 0x0009, 0x0018, 0x7FE0])
def test_a_data_set_is_known_by_its_first_element(group: int) -> None:
    known = group in GROUPS
    explicit = pack("<HH2sH", group, 5, b"CS", 2)
    big = pack(">HH2sH", group, 5, b"CS", 2)
    implicit = pack("<HHI", group, 5, 2)
    assert sniff_dataset(memoryview(explicit)) == (EXPLICIT if known else "")
    assert sniff_dataset(memoryview(big)) == (BIG_ENDIAN if known else "")
    assert sniff_dataset(memoryview(implicit)) == (IMPLICIT if known else "")


@pytest.mark.parametrize(
    ("head", "syntax"),
    [
        (pack("<HHI", 8, 0x3FFF, 0xFFFF), IMPLICIT),
        (pack("<HHI", 8, 0x4000, 0xFFFF), ""),
        (pack("<HHI", 8, 0x3FFF, 0x10000), ""),
        (pack("<HHI", 8, 5, 0), IMPLICIT),
        (pack("<HH2sH", 8, 5, b"??", 2), ""),
        (pack(">HH2sH", 8, 5, b"??", 2), ""),
        (pack("<HH2sH", 8, 5, b"CS", 2)[:7], ""),
        (b"", ""),
    ],
)
def test_what_is_taken_for_a_data_set(head: bytes, syntax: str) -> None:
    assert sniff_dataset(memoryview(head)) == syntax


@pytest.mark.parametrize(
    "magic",
    [
        b"PK", b"\x1f\x8b", b"\x1f\x9d", b"\x1f\xa0", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18", b"LZIP", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"MSCF", b"!<arch>",
    ],
)  # fmt: skip
def test_a_preamble_that_begins_like_an_archive(magic: bytes) -> None:
    """As file(1) knows them. Only of a DICOM file, and only where it begins."""
    preamble = (magic + bytes(128))[:128]
    assert magic in ARCHIVES
    assert looks_packed(memoryview(preamble + b"DICM"))
    assert not looks_packed(memoryview(preamble + b"DICX"))
    assert not looks_packed(memoryview(b"\0" + preamble[:-1] + b"DICM"))
    assert not looks_packed(memoryview(magic))
    assert not looks_packed(memoryview(bytes(128) + b"DICM"))


def test_each_archive_is_tried() -> None:
    assert len(ARCHIVES) == 13


SOURCE = FileMeta(
    "1.2",
    0,
    {
        0x0000: (b"UL", b"\1\2\3\4"),
        0x0001: (b"OB", b"\0\7"),
        0x0002: (b"UI", b"1.9.2"),
        0x0003: (b"UI", b"1.9.3"),
        0x0010: (b"UI", b"1.9.4"),
        0x0012: (b"UI", b"1.9.5"),
        0x0013: (b"SH", b"SOMEBODY"),
        0x0016: (b"AE", b"SENDER"),
        0x0017: (b"AE", b"ODD"),
        0x0100: (b"UI", b"1.9.6"),
        0x0102: (b"OB", b"\1\2\3"),
        0x0103: (b"UN", b"\1"),
    },
)


def written(**uids: str) -> bytes:
    wanted = {"syntax": EXPLICIT, "sop_class_uid": "1.5.2", "sop_instance_uid": "1.5.3"} | uids
    return write_file_meta(SOURCE, **wanted)


def test_what_is_written() -> None:
    """Each number: ours, the data set's, or kept. In order, of even length, counted."""
    data = written()
    assert data[:132] == bytes(128) + b"DICM"
    assert data[132:144] == pack("<HH2sHI", 2, 0, b"UL", 4, len(data) - 144)
    again = read(data + DATASET)
    assert again.dataset_offset == len(data)
    assert list(again.values) == sorted(again.values)
    del again.values[0]
    assert again.values == {
        0x0001: (b"OB", b"\0\1"),
        0x0002: (b"UI", b"1.5.2\0"),
        0x0003: (b"UI", b"1.5.3\0"),
        0x0010: (b"UI", EXPLICIT.encode() + b"\0"),
        0x0012: (b"UI", _even(IMPLEMENTATION_CLASS_UID, b"\0")),
        0x0013: (b"SH", _even(IMPLEMENTATION_VERSION, b" ")),
        0x0016: (b"AE", b"SENDER"),
        0x0017: (b"AE", b"ODD "),
        0x0100: (b"UI", b"1.9.6\0"),
        0x0102: (b"OB", b"\1\2\3\0"),
        0x0103: (b"UN", b"\1\0"),
    }
    ours = dcmread(io.BytesIO(data + DATASET)).file_meta
    assert ours.MediaStorageSOPInstanceUID == "1.5.3"


def _even(text: str, pad: bytes) -> bytes:
    return text.encode() + pad * (len(text) & 1)


def test_uids_that_the_data_set_lacks_are_the_headers() -> None:
    again = read(written(sop_class_uid="", sop_instance_uid="") + DATASET)
    assert (again.uid(2), again.uid(3)) == ("1.9.2", "1.9.3")
    bare = write_file_meta(
        FileMeta("1.2", 0, {}), syntax=EXPLICIT, sop_class_uid="", sop_instance_uid=""
    )
    assert sorted(read(bare + DATASET).values) == [0, 1, 0x10, 0x12, 0x13]

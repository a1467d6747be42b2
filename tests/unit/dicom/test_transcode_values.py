"""Every element outside the rules keeps its value: all encodings, nested and private ones too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from bridge.dicom.elements import KNOWN_VRS
from bridge.dicom.fingerprint import fingerprint
from bridge.dicom.vrs import WORD_BYTES
from bridge.errors import InstanceError
from bridge.model import Action, Reason
from tests.transcode_cases import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_LS,
    WHEEL,
    Image,
    dataset,
    encoded_file,
    read,
    run,
    save,
)

GREY = Image(rows=8, columns=6, allocated=8, stored=8)
NATIVE = [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED]
TARGETS = [EXPLICIT, IMPLICIT, DEFLATED]
RULES = {0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114}
WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def values(ds: Dataset, *, swap: bool = False, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value outside the rules, by its path; words in native order whatever the file's."""
    for element in ds:
        tag = element.tag
        if tag.group == 0x7FE0 or tag.element == 0 or tag in RULES or tag == 0xFFFCFFFC:
            continue
        where = f"{path}/{tag}"
        if element.VR == "SQ":
            for index, entry in enumerate(element.value):
                yield from values(entry, swap=swap, path=f"{where}[{index}]")
            yield where, len(element.value)
        elif swap and element.VR in WORDS and element.value:
            raw = np.frombuffer(element.value, f"u{WORDS[element.VR]}").byteswap().tobytes()
            yield where, raw
        elif isinstance(element.value, bytes):
            yield where, element.value.rstrip(b"\0")
        else:
            yield where, repr(element.value)


def rich_dataset() -> Dataset:
    """Every VR, nested sequences of both lengths, private blocks, characters beyond ASCII."""
    ds = dataset(GREY)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = "Äneas^Zoë=山田^太郎"
    ds.PatientWeight, ds.PatientAge, ds.StudyDate = "71.5", "042Y", "20200229"
    ds.AcquisitionDateTime = "20200229101112.123456+0100"
    ds.RetrieveAETitle, ds.RetrieveURL = "AE1", "https://example.invalid/a b"
    ds.add_new(0x00080201, "SH", "+0100")
    ds.add_new(0x00189074, "DT", "20200101")
    ds.add_new(0x00281101, "US", [256, 0, 16])
    ds.add_new(0x00281201, "OW", np.arange(256, dtype="<u2").tobytes())
    ds.add_new(0x00089459, "FL", 1.5)
    ds.add_new(0x00189073, "FD", 0.1)
    ds.add_new(0x00186020, "SL", -5)
    ds.add_new(0x00186050, "UL", 4_000_000_000)
    ds.add_new(0x00041220, "SQ", Sequence())
    ds.add_new(0x00209165, "AT", [0x00100010, 0x7FE00010])
    ds.add_new(0x00660016, "OF", np.array([1.5, -2.25], "<f4").tobytes())
    ds.add_new(0x00660040, "OL", np.array([1, 2**31], "<u4").tobytes())
    ds.add_new(0x00660022, "OD", np.array([0.1], "<f8").tobytes())
    ds.SeriesNumber, ds.StudyTime, ds.PatientComments = "12", "101112.5", "line\r\nline"
    ds.add_new(0x00324000, "LT", "a long text")
    ds.add_new(0x00081080, "LO", ["one", "two", "three"])
    ds.add_new(0x00080081, "ST", "a street")
    ds.add_new(0x00189219, "SS", [-2, 1, 300])
    ds.add_new(0x0040A160, "UT", "u" * 70_000)
    ds.add_new(0x0072006F, "UC", ["long", "longer", "x" * 70_000])
    ds.add_new(0x00720081, "OV", np.array([1, 2**63, 2**32 + 5], "<u8").tobytes())
    ds.add_new(0x00720082, "SV", [-(2**63), 1, 2**40 + 7])
    ds.add_new(0x00720083, "UV", [2**64 - 2, 1, 2**40 + 7])
    ds.add_new(0x00082112, "SQ", Sequence([nested(3), nested(0)]))
    ds["SourceImageSequence"].is_undefined_length = True
    ds.RequestAttributesSequence = [nested(1)]
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(range(30)))
    block.add_new(0x08, "CS", "IMAGE NUM 4")
    block = ds.private_block(0x0099, "NOBODY KNOWS THIS", create=True)
    block.add_new(0x01, "US", [1, 2, 3])
    block.add_new(0x02, "FD", [0.25, -7.5])
    block.add_new(0x03, "LO", "free text")
    block.add_new(0x04, "SQ", Sequence([nested(1)]))
    block.add_new(0x05, "UN", b"\1\2\3\4\5\6")
    block.add_new(0x06, "OV", np.array([1, 2**63, 2**40 + 5], "<u8").tobytes())
    block.add_new(0x07, "SV", [-(2**40), 5])
    block.add_new(0x08, "UV", [2**60, 7])
    block.add_new(0x09, "AT", [0x00100020, 0x00280010, 0x7FE00010])
    block.add_new(0x0A, "SS", [-1, 256, 3])
    return ds


def nested(depth: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID = f"1.2.3.{depth}"
    item.add_new(0x00281052, "DS", ["1.25", "-0.0"])
    item.add_new(0x00189073, "FD", 0.1 * depth)
    item.is_undefined_length_sequence_item = bool(depth % 2)
    if depth:
        item.PurposeOfReferenceCodeSequence = [nested(depth - 1)]
        item["PurposeOfReferenceCodeSequence"].is_undefined_length = depth == 2
    return item


def test_the_rich_data_set_has_every_vr_that_is_swapped() -> None:
    """Each in the words that PS3.5 6.2 gives it."""
    present = {e.VR for e in rich_dataset().iterall()}
    assert {vr.decode() for vr in WORD_BYTES} - present == set()
    twos, fours = {"AT", "OW", "SS", "US"}, {"FL", "OF", "OL", "SL", "UL"}
    eights = {"FD", "OD", "OV", "SV", "UV"}
    expected = dict.fromkeys(twos, 2) | dict.fromkeys(fours, 4) | dict.fromkeys(eights, 8)
    assert {vr.decode(): size for vr, size in WORD_BYTES.items()} == expected


def big_endian_words(ds: Dataset) -> Dataset:
    """pydicom writes word strings as they are: give it the bytes of a big endian file."""
    for element in ds:
        if element.VR in WORDS and element.value:
            words = np.frombuffer(element.value, f"u{WORDS[element.VR]}")
            element.value = words.byteswap().tobytes()
    return ds


def test_the_samples_have_every_vr() -> None:
    found = {element.VR.encode() for element in rich_dataset().iterall()}
    pixels = {b"OB", b"OW"}
    assert found | pixels >= KNOWN_VRS


@pytest.mark.parametrize("source", [*NATIVE, JPEG_LS])
@pytest.mark.parametrize("target", TARGETS)
def test_every_value_survives(source: str, target: str) -> None:
    original = rich_dataset()
    stored = big_endian_words(rich_dataset()) if source == BIG_ENDIAN else rich_dataset()

    body, result = run(save(stored, source), target)

    delivered = dict(values(read(body)))
    expected = dict(values(original))
    lost = {"UN"} if IMPLICIT in (source, target) else set()
    for where, value in expected.items():
        if lost and "(0099,10" in where:
            continue  # an implicit syntax has no VR for them; their bytes are checked below
        assert delivered[where] == value, where
    assert result.action is (Action.UNCHANGED if source == target else Action.RELABELLED)


@pytest.mark.parametrize("target", [EXPLICIT, DEFLATED])
def test_unknown_private_elements_survive_implicit_vr_as_un(target: str) -> None:
    delivered = read(run(save(rich_dataset(), IMPLICIT), target)[0])

    assert delivered[0x00991001].VR == "UN"
    assert delivered[0x00991001].value == pack("<3H", 1, 2, 3)
    assert delivered[0x00991002].value == pack("<2d", 0.25, -7.5)
    assert delivered[0x00991003].value == b"free text "
    assert b"1.2.3.0" in bytes(delivered[0x00991004].value)
    assert delivered[0x00291010].VR == "OB"  # this creator is in the private dictionary
    assert delivered[0x00990010].VR == "LO"


@pytest.mark.parametrize(
    ("representation", "vr"), [(0, "US"), (1, "SS")], ids=["unsigned", "signed"]
)
def test_ambiguous_value_representations_follow_pixel_representation(
    representation: int, vr: str
) -> None:
    ds = dataset(Image(signed=bool(representation)))
    ds.add_new(0x00280106, vr, 3)
    item = Dataset()
    item.add_new(0x00283002, vr, [4, 0, 16])
    item.add_new(0x00283006, "OW", bytes(8))
    single = Dataset()
    single.add_new(0x00283002, vr, [1, 0, 16])
    single.add_new(0x00283006, "US", 7)
    ds.ModalityLUTSequence = [item, single]

    delivered = read(run(save(ds, IMPLICIT))[0])

    first, second = delivered.ModalityLUTSequence
    assert delivered[0x00280106].VR == first[0x00283002].VR == vr
    assert (first[0x00283006].VR, second[0x00283006].VR) == ("OW", "US")


def test_a_value_too_long_for_its_vr_becomes_un() -> None:
    ds = dataset(GREY)
    ds.add_new(0x00280120, "US", 0)
    long_text = "1.5\\" * 20_000 + "2 "
    source = save(ds, IMPLICIT)
    element = pack("<HHI", 0x3006, 0x0050, len(long_text)) + long_text.encode()

    delivered = read(run(source + element)[0])

    assert delivered[0x30060050].VR == "UN"
    assert delivered[0x30060050].value == long_text.encode()


def test_a_sequence_in_un_of_undefined_length_is_implicit_inside() -> None:
    inner = pack("<HHI", 0x0008, 0x0050, 4) + b"1234"
    sequence = (
        pack("<HH2sHI", 0x0099, 0x1001, b"UN", 0, 0xFFFFFFFF)
        + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + inner
        + pack("<HHI", 0xFFFE, 0xE00D, 0)
        + pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    source = save(dataset(GREY), DEFLATED.replace(".99", "")) + sequence

    for target in (IMPLICIT, DEFLATED):
        delivered = read(run(source, target)[0])
        assert delivered[0x00991001].value[0].AccessionNumber == "1234"


def test_odd_lengths_are_padded_by_the_rule_of_their_vr() -> None:
    source = save(dataset(GREY), EXPLICIT)
    for tag, vr, value in ((0x0099, b"LO", b"abc"), (0x009B, b"UI", b"1.2")):
        source += pack("<HH2sH", tag, 0x0010, vr, len(value)) + value

    delivered = run(source, DEFLATED)[0]

    ds = read(run(delivered, EXPLICIT)[0])
    assert (ds[0x00990010].value, ds[0x009B0010].value) == ("abc", "1.2")
    assert b"abc " in run(delivered, EXPLICIT)[0]
    assert b"1.2\0" in run(delivered, EXPLICIT)[0]


@pytest.mark.parametrize("source", [EXPLICIT, IMPLICIT, BIG_ENDIAN, JPEG_LS])
@pytest.mark.parametrize("count", [1, 4, 8, 13, 5000])
def test_zeros_after_the_last_element_are_padding(source: str, count: int) -> None:
    plain = encoded_file(GREY, JPEG_LS) if source == JPEG_LS else save(rich_dataset(), source)

    assert run(plain + bytes(count), DEFLATED)[0] == run(plain, DEFLATED)[0]


@pytest.mark.parametrize("vr", [b"??", b"  ", b"\0\0", b"ZZ"])
def test_a_vr_that_does_not_exist_is_read_the_one_way_that_fits(vr: bytes) -> None:
    strange = pack("<HH2sH", 0x0099, 0x0010, vr, 4) + b"abcd"
    known = pack("<HH2sH", 0x0099, 0x0011, b"LO", 2) + b"XY"

    delivered = run(save(dataset(GREY), EXPLICIT) + strange + known, DEFLATED)[0]

    assert b"abcd" in run(delivered)[0]
    assert read(run(delivered)[0])[0x00990011].value == "XY"


def big_endian_samples(
    allocated: int, vr: str, unit: int, *, frames: int = 1
) -> tuple[bytes, bytes]:
    """A big endian file whose pixels are written in words of ``unit`` bytes, and its samples."""
    image = Image(rows=4, columns=8, allocated=allocated, stored=allocated, frames=frames)
    ds = dataset(image)
    count = 32 * frames * max(allocated, 8) // 8 if allocated > 1 else 4 * frames
    raw = np.random.default_rng(2).integers(0, 256, count).astype("u1").tobytes()
    ds.PixelData = np.frombuffer(raw, f"u{unit}").byteswap().tobytes()
    ds["PixelData"].VR = vr
    return save(ds, BIG_ENDIAN), raw


@pytest.mark.parametrize(
    ("allocated", "vr", "unit"),
    [(1, "OB", 1), (1, "OW", 2), (8, "OB", 1), (8, "OW", 2), (16, "OW", 2)],
)
@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, "JPEG2000Lossless"])
def test_big_endian_pixels_are_swapped_as_their_vr_says(
    allocated: int, vr: str, unit: int, target: str
) -> None:
    source, raw = big_endian_samples(allocated, vr, unit, frames=3)

    body, _ = run(source, target)
    native = body if target != "JPEG2000Lossless" else run(body)[0]

    assert read(native).PixelData == raw
    assert fingerprint(source).same_image(fingerprint(native))


@pytest.mark.parametrize("unit", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("allocated", "vr"),
    [(16, "OB"), (32, "OW"), (32, "OB"), (64, "OW"), (64, "OB"), (8, "UN"), (16, "UN")],
)
def test_big_endian_samples_that_readers_differ_about_are_parked(
    allocated: int, vr: str, unit: int
) -> None:
    """Whatever their writer meant: nothing in the file tells."""
    if unit > allocated // 8:
        return
    source, _ = big_endian_samples(allocated, vr, unit)

    for target in (EXPLICIT, IMPLICIT, DEFLATED, "RLELossless"):
        with pytest.raises(InstanceError, match="can be read in two ways") as caught:
            run(source, target)
        assert caught.value.reason is Reason.UNDECODABLE
    with pytest.raises(InstanceError, match="can be read in two ways"):
        fingerprint(source)


def nested_samples(name: str, vr: str, bits: int) -> bytes:
    """A big endian file with samples of ``bits`` bits in the second item of a sequence."""
    ds, entry = dataset(GREY), Dataset()
    if name == "waveform":
        entry.WaveformBitsAllocated = bits
        entry.add_new(0x54001010, vr, np.arange(8, dtype=">u4").tobytes())
        ds.WaveformSequence = [Dataset(), entry, Dataset()]
    else:
        entry.Rows, entry.Columns, entry.BitsAllocated = 2, 2, bits
        entry.add_new(0x7FE00010, vr, np.arange(8, dtype=">u4").tobytes())
        ds.IconImageSequence = [Dataset(), entry, Dataset()]
    return save(ds, BIG_ENDIAN)


@pytest.mark.parametrize("name", ["waveform", "icon"])
@pytest.mark.parametrize(("vr", "bits", "unit"), [("OB", 8, 1), ("OW", 8, 2), ("OW", 16, 2)])
def test_big_endian_samples_in_a_sequence(name: str, vr: str, bits: int, unit: int) -> None:
    ds = read(run(nested_samples(name, vr, bits))[0])
    value = (
        ds.WaveformSequence[1].WaveformData if name == "waveform"
        else ds.IconImageSequence[1].PixelData
    )  # fmt: skip
    stored = np.arange(8, dtype=">u4").tobytes()
    assert value == np.frombuffer(stored, f"u{unit}").byteswap().tobytes()


@pytest.mark.parametrize("name", ["waveform", "icon"])
@pytest.mark.parametrize(("vr", "bits"), [("OW", 32), ("OW", 64), ("OB", 16), ("OB", 32)])
def test_big_endian_samples_in_a_sequence_that_readers_differ_about(
    name: str, vr: str, bits: int
) -> None:
    with pytest.raises(InstanceError, match="can be read in two ways"):
        run(nested_samples(name, vr, bits))


@pytest.mark.parametrize(
    ("keyword", "dtype"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")]
)
@pytest.mark.parametrize("source", NATIVE)
def test_float_and_double_pixel_data(keyword: str, dtype: str, source: str) -> None:
    ds = dataset(Image(rows=2, columns=2, allocated=32, stored=32))
    numbers = np.array([0.5, -1e30, 3.25, np.pi], dtype)
    raw = numbers.byteswap() if source == BIG_ENDIAN else numbers
    setattr(ds, keyword, raw.tobytes())

    for target in (EXPLICIT, IMPLICIT, "JPEG2000Lossless"):
        assert getattr(read(run(save(ds, source), target)[0]), keyword) == numbers.tobytes()


def wheel_files() -> list[Path]:
    return sorted(path for path in WHEEL.rglob("*") if path.is_file() and path.suffix != ".json")


UNREADABLE = {
    "rtplan_truncated.dcm": Reason.UNDECODABLE,
    "rtdose_expb.dcm": Reason.UNDECODABLE,  # 32 bits in big endian: readers differ
    "rtdose_expb_1frame.dcm": Reason.UNDECODABLE,
    "MR_truncated.dcm": Reason.UNDECODABLE,
    "SC_rgb_jpeg.dcm": Reason.WRONG_SYNTAX_LABEL,
    "meta_missing_tsyntax.dcm": Reason.NOT_DICOM,
    "no_meta.dcm": Reason.NOT_DICOM,
    "JPEG2000-embedded-sequence-delimiter.dcm": Reason.UNDECODABLE,
    "DICOMDIR-nooffset": Reason.UNDECODABLE,
}
"""Files of the wheel that cannot be converted, and why; everything else must be."""


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("path", wheel_files(), ids=lambda path: str(path.name))
def test_all_files_of_the_pydicom_wheel_keep_their_values(path: Path, target: str) -> None:
    data = path.read_bytes()
    expected_reason = UNREADABLE.get(path.name)
    if data[128:132] != b"DICM" and path.suffix != ".dcm":
        expected_reason = Reason.NOT_DICOM
    try:
        body, result = run(data, target)
    except InstanceError as exc:
        assert exc.reason is expected_reason, exc  # noqa: PT017 - the reason depends on the file
        return
    source = dcmread(path, force=True)
    expected = dict(values(source, swap=result.source_syntax == BIG_ENDIAN))
    delivered = read(body)
    found = dict(values(delivered))
    if target == EXPLICIT and result.source_syntax != IMPLICIT:
        assert {where: found.get(where) for where in expected} == expected
    assert found.keys() >= expected.keys()
    if result.action is not Action.UNCHANGED:
        assert delivered.file_meta.TransferSyntaxUID == target


def test_a_jpeg_ls_file_keeps_everything_but_the_pixels_byte_for_byte() -> None:
    ds = rich_dataset()
    source = encoded_file(GREY, JPEG_LS)
    merged = read(source)
    merged.update({element.tag: element for element in ds})
    data = save(merged, JPEG_LS)
    start, stop = data.index(b"\x08\x00\x05\x00"), data.index(b"\x28\x00\x02\x00US")

    assert data[start:stop] in run(data)[0]

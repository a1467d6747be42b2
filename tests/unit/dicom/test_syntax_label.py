"""A label that the pixel data contradicts is never passed on as "already in the wanted syntax"."""

from __future__ import annotations

import mmap
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from bridge.dicom import syntax_label as labels
from bridge.dicom.file_meta import read_file_meta
from bridge.dicom.fingerprint import fingerprint
from bridge.dicom.inflate import MemoryRoom
from bridge.dicom.syntax_label import check_label_of_file
from bridge.errors import InstanceError
from bridge.model import Action, Reason
from tests.transcode_cases import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    J2K,
    RLE,
    Image,
    dataset,
    encoded_file,
    native_bytes,
    native_file,
    relabelled,
    run,
    save,
)

GREY = Image(rows=40, columns=36, allocated=8, stored=8)
WANTED = {EXPLICIT: EXPLICIT, IMPLICIT: IMPLICIT, DEFLATED: DEFLATED}
META_START = 132


def deflated(data: bytes) -> bytes:
    """The file with its data set deflated and labelled so."""
    data = relabelled(data, DEFLATED)
    start = read_file_meta(memoryview(data)).dataset_offset
    engine = zlib.compressobj(wbits=-15)
    packed = engine.compress(data[start:]) + engine.flush()
    return data[:start] + packed + b"\0" * (len(packed) & 1)


def without_syntax(data: bytes) -> bytes:
    start = data.index(b"\x02\x00\x10\x00UI")
    stop = start + 8 + data[start + 6]
    return data[:start] + data[stop:]


def as_implicit(data: bytes) -> bytes:
    """An encapsulated file as implicit VR, which the standard does not know."""
    body, _ = run(native_file(GREY), IMPLICIT)
    start = body.index(pack("<HHI", 0x7FE0, 0x0010, GREY.rows * GREY.columns))
    value = data[data.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12 :]
    return body[:start] + pack("<HHI", 0x7FE0, 0x0010, 0xFFFFFFFF) + value


def icon(*, encapsulated: bool = True) -> Dataset:
    image = Image(rows=5, columns=5, allocated=8, stored=8)
    item = dataset(image)
    value = native_bytes(image, image.array())
    item.PixelData = encapsulate([value]) if encapsulated else value
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = encapsulated
    return item


def with_icon(*, undefined: bool, deep: bool = False, encapsulated: bool = True) -> bytes:
    first = Dataset()
    first.InstanceNumber = "1"
    sequence = Sequence([first, icon(encapsulated=encapsulated)])
    elements: dict[str, object] = {"IconImageSequence": sequence}
    if deep:
        above = Dataset()
        above.IconImageSequence = sequence
        above["IconImageSequence"].is_undefined_length = undefined
        elements = {"ReferencedImageSequence": Sequence([Dataset(), above])}
    ds = dataset(GREY, **elements)
    ds[next(iter(elements))].is_undefined_length = undefined
    ds.PixelData = native_bytes(GREY, GREY.array())
    ds["PixelData"].VR = "OB"
    return save(ds, EXPLICIT)


def float_pixels(tag: int, vr: bytes) -> bytes:
    """A file with encapsulated float pixel data, which no syntax knows."""
    ds = dataset(GREY)
    value = pack("<HHI", 0xFFFE, 0xE000, 0) + pack("<HHI", 0xFFFE, 0xE000, 8) + bytes(8)
    value += pack("<HHI", 0xFFFE, 0xE0DD, 0)
    head = pack("<HH2sHI", 0x7FE0, tag, vr, 0, 0xFFFFFFFF)
    return save(ds, EXPLICIT) + head + value


def doubled(data: bytes, *, preamble: bool) -> bytes:
    """The file behind a second file meta information, of explicit VR little endian."""
    other = native_file(GREY)
    start = read_file_meta(memoryview(other)).dataset_offset
    return other[:start] + (data if preamble else data[META_START:])


COMPRESSED = encoded_file(GREY, RLE)


def big_endian_data() -> bytes:
    """Big endian under a little endian label: its first element is enough."""
    meta = native_file(GREY)
    start = read_file_meta(memoryview(meta)).dataset_offset
    return meta[:start] + pack(">HH2sH", 0x0008, 0x0060, b"CS", 2) + b"OT"


WRONG: dict[str, tuple[bytes, str]] = {
    "a native label": (relabelled(COMPRESSED, EXPLICIT), EXPLICIT),
    "no label": (without_syntax(COMPRESSED), EXPLICIT),
    "an implicit label": (relabelled(COMPRESSED, IMPLICIT), IMPLICIT),
    "implicit data": (as_implicit(COMPRESSED), IMPLICIT),
    "a deflated label": (deflated(COMPRESSED), DEFLATED),
    "a deflated label, not deflated": (relabelled(COMPRESSED, DEFLATED), DEFLATED),
    "the other way, a native label behind": (relabelled(native_file(GREY), RLE), RLE),
    "the other way, JPEG 2000": (relabelled(native_file(GREY), J2K), J2K),
    "two labels": (doubled(COMPRESSED, preamble=False), EXPLICIT),
    "two preambles": (doubled(COMPRESSED, preamble=True), EXPLICIT),
    "an icon": (with_icon(undefined=False), EXPLICIT),
    "an icon, undefined lengths": (with_icon(undefined=True), EXPLICIT),
    "a deeper icon": (with_icon(undefined=False, deep=True), EXPLICIT),
    "a deeper icon, undefined lengths": (with_icon(undefined=True, deep=True), EXPLICIT),
    "a deflated icon": (deflated(with_icon(undefined=True, deep=True)), DEFLATED),
    "implicit data, native": (relabelled(run(native_file(GREY), IMPLICIT)[0], EXPLICIT), EXPLICIT),
    "explicit data, native": (relabelled(native_file(GREY), IMPLICIT), IMPLICIT),
    "implicit data, no pixels": (relabelled(run(save(dataset(GREY), RLE), IMPLICIT)[0], RLE), RLE),
    "big endian data": (big_endian_data(), EXPLICIT),
    "float": (float_pixels(8, b"OF"), EXPLICIT),
    "double": (float_pixels(9, b"OD"), EXPLICIT),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_where_nothing_would_be_transcoded(name: str) -> None:
    source, wanted = WRONG[name]
    with pytest.raises(InstanceError) as caught:
        run(source, wanted)
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL
    assert caught.value.final


@pytest.mark.parametrize("wanted", [EXPLICIT, IMPLICIT, DEFLATED, RLE, "JPEGLSLossless"])
@pytest.mark.parametrize("name", WRONG)
def test_it_is_refused_for_every_other_target(name: str, wanted: str) -> None:
    with pytest.raises(InstanceError) as caught:
        run(WRONG[name][0], wanted)
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


@pytest.mark.parametrize("nested", [False, True])
def test_big_endian(nested: bool) -> None:
    """Only what the look reads: an element of group 0008, and the pixel data."""
    meta = relabelled(native_file(GREY), BIG_ENDIAN)
    start = read_file_meta(memoryview(meta)).dataset_offset
    pixels = pack(">HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    pixels += pack(">HHI", 0xFFFE, 0xE000, 0) + pack(">HHI", 0xFFFE, 0xE0DD, 0)
    if nested:
        items = pack(">HHI", 0xFFFE, 0xE000, len(pixels)) + pixels
        pixels = pack(">HH2sHI", 0x0088, 0x0200, b"SQ", 0, len(items)) + items
    source = meta[:start] + pack(">HH2sH", 0x0008, 0x0060, b"CS", 2) + b"OT" + pixels
    with pytest.raises(InstanceError) as caught:
        run(source)
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL
    with pytest.raises(InstanceError) as caught:
        check_label_of_file(memoryview(source), read_file_meta(memoryview(source)))
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


def test_the_message_says_what_and_where() -> None:
    def message(source: bytes, wanted: str = EXPLICIT) -> str:
        with pytest.raises(InstanceError) as caught:
            run(source, wanted)
        return caught.value.message

    assert message(WRONG["no label"][0]) == (
        "The transfer syntax label is wrong: none is given, and the data set looks like "
        "ExplicitVRLittleEndian, but the pixel data is encapsulated."
    )
    assert message(with_icon(undefined=False, deep=True)) == (
        "The transfer syntax label is wrong: ExplicitVRLittleEndian, but the pixel data in "
        "item 2 of (0008,1140), item 2 of (0088,0200) is encapsulated."
    )
    assert "the float pixel data is encapsulated" in message(float_pixels(8, b"OF"))
    assert "names 2 different ones" in message(WRONG["two labels"][0])
    assert "a second file meta information" in message(WRONG["two preambles"][0])


def empty_pixels() -> bytes:
    ds = dataset(GREY)
    ds.PixelData = b""
    ds["PixelData"].VR = "OB"
    return save(ds, EXPLICIT)


def quoted(undefined: bool) -> bytes:
    """A private value, in a sequence and outside, that holds a whole compressed file."""
    inner = Dataset()
    inner.add_new(0x00090010, "LO", "TEST")
    inner.add_new(0x00091001, "OB", COMPRESSED)
    inner.PixelData = bytes(4)  # native, and not to be taken for what is quoted beside it
    inner["PixelData"].VR = "OB"
    ds = dataset(GREY, ReferencedImageSequence=Sequence([inner]))
    ds["ReferencedImageSequence"].is_undefined_length = undefined
    ds.add_new(0x00090010, "LO", "TEST")
    ds.add_new(0x00091001, "OB", COMPRESSED)
    ds.add_new(0x00091002, "UN", COMPRESSED)
    ds.PixelData = native_bytes(GREY, GREY.array())
    ds["PixelData"].VR = "OB"
    return save(ds, EXPLICIT)


def quoting_pixels() -> bytes:
    """Native pixels that hold a compressed file."""
    value = COMPRESSED + bytes(len(COMPRESSED) & 1)
    ds = dataset(Image(rows=1, columns=len(value), allocated=8, stored=8))
    ds.PixelData = value
    ds["PixelData"].VR = "OB"
    return save(ds, EXPLICIT)


RIGHT: dict[str, tuple[bytes, str]] = {
    "native": (native_file(GREY), EXPLICIT),
    "implicit": (run(native_file(GREY), IMPLICIT)[0], IMPLICIT),
    "no label": (without_syntax(native_file(GREY)), EXPLICIT),
    "deflated": (deflated(native_file(GREY)), DEFLATED),
    "compressed": (COMPRESSED, RLE),
    "no pixels": (save(dataset(GREY), EXPLICIT), EXPLICIT),
    "no pixels, compressed": (save(dataset(GREY), RLE), RLE),
    "no pixels, deflated": (deflated(save(dataset(GREY), EXPLICIT)), DEFLATED),
    "empty pixels": (empty_pixels(), EXPLICIT),
    "empty pixels, compressed": (relabelled(empty_pixels(), RLE), RLE),
    "a native icon": (with_icon(undefined=True, encapsulated=False), EXPLICIT),
    "a compressed icon": (
        encoded_file(GREY, RLE, IconImageSequence=Sequence([icon()])),
        RLE,
    ),
    "quoted bytes": (quoted(undefined=False), EXPLICIT),
    "quoted bytes, undefined lengths": (quoted(undefined=True), EXPLICIT),
    "quoted bytes, deflated": (deflated(quoted(undefined=True)), DEFLATED),
    "quoting pixels": (quoting_pixels(), EXPLICIT),
    "cut off in its pixels": (native_file(GREY)[:-50], EXPLICIT),
    "cut off in its header": (native_file(GREY)[:-1600], EXPLICIT),
    "a damaged deflated stream": (deflated(native_file(GREY))[:-90] + bytes(90), DEFLATED),
    "zeros behind it": (native_file(GREY) + bytes(512), EXPLICIT),
    "a native label, native twice": (doubled(native_file(GREY), preamble=False), EXPLICIT),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_or_damaged_passes_as_it_is(name: str) -> None:
    source, wanted = RIGHT[name]
    body, result = run(source, wanted)
    assert result.action is Action.UNCHANGED
    assert body == source


def sequences(*, icon_too: bool, padding: bytes) -> bytes:
    """A native file with sequences of undefined length, which are dear to walk."""
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    elements: dict[str, object] = {"ReferencedImageSequence": Sequence([inner] * 3)}
    if icon_too:
        elements["IconImageSequence"] = Sequence([icon(encapsulated=False)])
    ds = dataset(GREY, **elements)
    for keyword in elements:
        ds[keyword].is_undefined_length = True
    ds.PixelData = native_bytes(GREY, GREY.array())
    ds["PixelData"].VR = "OB"
    if padding:
        ds.DataSetTrailingPadding = padding
    return save(ds, EXPLICIT)


@pytest.mark.parametrize("wanted", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("padding", [b"", bytes(64)])
@pytest.mark.parametrize("icon_too", [False, True])
def test_a_native_file_is_not_walked(
    icon_too: bool, padding: bytes, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nearly every file costs is a search for four bytes: see docs/decisions/0003."""
    plain = sequences(icon_too=icon_too, padding=padding)
    source = memoryview(run(plain, wanted)[0])

    def walked(*_: object, **__: object) -> None:
        pytest.fail("its elements were walked")

    monkeypatch.setattr(labels, "_check_by_walking", walked)
    check_label_of_file(source, read_file_meta(source))


@pytest.mark.parametrize("size", labels.HEAD_BYTES)
@pytest.mark.parametrize("undefined", [True, False])
def test_a_deflated_head_is_read_as_far_as_needed(size: int, undefined: bool) -> None:
    """Pixel data right before and behind what one look inflates."""
    for excess in (-600, -40, 0, 40, 600):
        ds = dataset(GREY)
        inner = Dataset()
        inner.add_new(0x00090010, "LO", "TEST")
        inner.add_new(0x00091001, "OB", bytes(size + excess - 700 & ~1))
        ds.ReferencedImageSequence = Sequence([inner])
        ds["ReferencedImageSequence"].is_undefined_length = undefined
        ds.PixelData = encapsulate([bytes(10)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        with pytest.raises(InstanceError) as caught:
            run(deflated(save(ds, RLE)), DEFLATED)
        assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


def test_a_deflated_head_that_ends_between_two_elements() -> None:
    ds = dataset(GREY)
    ds.add_new(0x00090010, "LO", "TEST")
    ds.add_new(0x00091001, "OB", b"")
    before = save(ds, RLE)
    start = read_file_meta(memoryview(before)).dataset_offset
    end = before.index(b"\x09\0\x01\x10OB\0\0\0\0\0\0") + 12 - start
    ds[0x00091001].value = bytes(labels.HEAD_BYTES[0] - end)
    ds.PixelData = encapsulate([bytes(10)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    with pytest.raises(InstanceError) as caught:
        run(deflated(save(ds, RLE)), DEFLATED)
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


@pytest.mark.parametrize("at", [0, 1, labels.BLOCK_BYTES, 3 * labels.BLOCK_BYTES])
def test_fragments_are_found_across_blocks(at: int) -> None:
    for before in range(24):
        start = max(0, at - before)
        data = bytes(start) + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0" + bytes(9)
        assert labels.fragments_in(memoryview(data), 0, len(data))
        assert not labels.fragments_in(memoryview(data), 0, start + 15)


def test_the_look_reads_no_pixels() -> None:
    """A sparse file of 4 GB less two bytes of pixels: to read them would take seconds."""
    image = Image(rows=2, columns=2, allocated=8, stored=8)
    head = native_file(image)[: -4 - 4] + pack("<I", 0xFFFFFFFC)
    with tempfile.TemporaryFile() as file:
        file.write(head)
        file.truncate(len(head) + 0xFFFFFFFC)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            check_label_of_file(memoryview(mapped), read_file_meta(memoryview(mapped)))
            assert resident_bytes(size_kb_min=4_000_000) < 64 << 20


def resident_bytes(*, size_kb_min: int) -> int:
    """How much of the one mapping of that size this process has touched."""
    lines = Path("/proc/self/smaps").read_text().split("\n")
    sizes = [n for n, line in enumerate(lines) if line.startswith("Size:")]
    (large,) = (n for n in sizes if int(lines[n].split()[1]) >= size_kb_min)
    (resident,) = (line for line in lines[large : large + 6] if line.startswith("Rss:"))
    return int(resident.split()[1]) * 1024


def test_a_deflated_file_is_put_where_the_caller_wants_it() -> None:
    room = MemoryRoom()
    ds = dataset(GREY)
    ds.add_new(0x00090010, "LO", "TEST")
    ds.add_new(0x00091001, "OB", bytes(labels.HEAD_BYTES[-1] + 10))
    ds.PixelData = native_bytes(GREY, GREY.array())
    source = memoryview(deflated(save(ds, EXPLICIT)))
    check_label_of_file(source, read_file_meta(source), room)
    assert len(room.view()) > labels.HEAD_BYTES[-1]


@pytest.mark.parametrize("make", [lambda: COMPRESSED, lambda: native_file(GREY)])
def test_a_fingerprint_is_of_one_kind_of_pixel_data(make: Callable[[], bytes]) -> None:
    source = make()
    wrong = relabelled(source, EXPLICIT if source is COMPRESSED else RLE)
    with pytest.raises(InstanceError) as caught:
        fingerprint(wrong)
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


@pytest.mark.parametrize("wanted", [EXPLICIT, IMPLICIT, "RLELossless"])
def test_a_second_file_meta_information_without_a_preamble(wanted: str) -> None:
    """Readers of files older than PS3.10 would begin there."""
    source = native_file(GREY)
    start = read_file_meta(memoryview(source)).dataset_offset
    for inserted in (source[128:], source):
        with pytest.raises(InstanceError, match="second file meta") as caught:
            run(source[:start] + inserted, wanted)
        assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


@pytest.mark.parametrize("label", [EXPLICIT, IMPLICIT, RLE, J2K])
@pytest.mark.parametrize("rows", [1, 40, 2000])
def test_a_deflated_data_set_under_another_label_is_not_passed_on(label: str, rows: int) -> None:
    """Found by the generator, under the label of RLE."""
    image = Image(rows=rows, columns=36, allocated=8, stored=8)
    data = relabelled(deflated(native_file(image)), label)
    with pytest.raises(InstanceError) as caught:
        run(data, label)
    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL
    assert "the data set is deflated" in str(caught.value)


@pytest.mark.parametrize("behind", [b"", bytes(64), b"no data set at all", b"\x63" * 4096])
def test_what_is_no_deflated_data_set_is_not_called_one(behind: bytes) -> None:
    data = native_file(GREY)
    start = read_file_meta(memoryview(data)).dataset_offset
    damaged = data[:start] + behind
    check_label_of_file(memoryview(damaged), read_file_meta(memoryview(damaged)))

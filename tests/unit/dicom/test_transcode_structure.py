"""The structure rules: group 0028, icons, offset tables, lossy marks, file meta information."""

from __future__ import annotations

from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from bridge.dicom.file_meta import IMPLEMENTATION_CLASS_UID
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import Action, Reason, TranscodeOptions
from tests.transcode_cases import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    J2K,
    J2K_LOSSY,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    JPEG_LS_NEAR,
    JPEG_SV1,
    JPEG_XL_JPEG,
    RLE,
    Array,
    Image,
    compressed_file,
    dataset,
    encoded_file,
    item,
    native_bytes,
    native_file,
    openjpeg_stream,
    read,
    relabelled,
    run,
    samples,
    save,
)

GREY = Image(rows=40, columns=36, allocated=8, stored=8)
COLOUR = Image(rows=40, columns=36, samples=3, allocated=8, stored=8, photometric="RGB")


def ybr(photometric: str) -> Image:
    return Image(rows=40, columns=36, samples=3, allocated=8, stored=8, photometric=photometric)


def jpeg(array: Array, *, transformed: bool, subsampling: str = "444") -> bytes:
    """A baseline JPEG of RGB samples, with YCbCr inside (JFIF) or without a transform (Adobe 0)."""
    if transformed:
        return bytes(imagecodecs.jpeg8_encode(array, 95, subsampling=subsampling))
    return bytes(imagecodecs.jpeg8_encode(array, 95, colorspace="RGB", outcolorspace="RGB"))


def raw_components(stream: bytes) -> Array:
    return np.asarray(imagecodecs.jpeg8_decode(stream, colorspace="YCBCR", outcolorspace="YCBCR"))


# --- photometric interpretation (PS3.3 C.7.6.3.1.2, PS3.5 8.2.1) ---


@pytest.mark.parametrize(
    ("announced", "transformed", "subsampling", "delivered"),
    [
        ("YBR_FULL_422", True, "422", "YBR_FULL"),
        ("YBR_FULL_422", True, "420", "YBR_FULL"),  # mislabelled by everybody, decodable
        ("YBR_FULL", True, "444", "YBR_FULL"),
        ("RGB", False, "444", "RGB"),
    ],
)
def test_jpeg_colour_is_not_converted_and_named_for_what_it_is(
    announced: str, transformed: bool, subsampling: str, delivered: str
) -> None:
    stream = jpeg(COLOUR.array()[0], transformed=transformed, subsampling=subsampling)

    body, _ = run(compressed_file(ybr(announced), JPEG_BASELINE, [stream]))

    ds = read(body)
    assert ds.PhotometricInterpretation == delivered
    assert ds.PlanarConfiguration == 0
    assert ds.PixelData == raw_components(stream).tobytes()


@pytest.mark.parametrize("photometric", ["YBR_PARTIAL_422", "MONOCHROME2", "", "YBR_ICT"])
def test_a_name_that_cannot_hold_is_refused(photometric: str) -> None:
    stream = jpeg(COLOUR.array()[0], transformed=False)
    if photometric == "YBR_ICT":  # neither JFIF nor Adobe: nothing says what it is
        stream = stream.replace(b"Adobe", b"Adopt")

    with pytest.raises(InstanceError) as caught:
        run(compressed_file(ybr(photometric), JPEG_BASELINE, [stream]))

    assert caught.value.reason is Reason.UNDECODABLE
    assert caught.value.source_syntax == JPEG_BASELINE


@pytest.mark.parametrize("announced", ["YBR_RCT", "YBR_ICT", "RGB"])
def test_jpeg_2000_component_transform_becomes_rgb(announced: str) -> None:
    array = COLOUR.array()
    stream = bytes(imagecodecs.jpeg2k_encode(array[0], level=0, reversible=True, codecformat="j2k"))

    body, _ = run(compressed_file(ybr(announced), J2K, [stream]))

    assert read(body).PhotometricInterpretation == "RGB"
    assert np.array_equal(samples(body), array)


def test_rle_keeps_ybr_full_samples_and_label() -> None:
    image = ybr("YBR_FULL")

    body, _ = run(encoded_file(image, RLE, PlanarConfiguration=1))

    ds = read(body)
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("YBR_FULL", 0)
    assert np.array_equal(samples(body), image.array())


def test_a_single_sample_image_keeps_planar_configuration_as_it_was() -> None:
    body, _ = run(encoded_file(GREY, RLE, PlanarConfiguration=1))

    assert read(body).PlanarConfiguration == 1


# --- precision and sign (PS3.5 8.2.4, 8.1.1) ---


def test_an_unsigned_code_stream_of_signed_samples_is_widened() -> None:
    image = Image(rows=40, columns=36, stored=13, signed=True)
    bits = (image.array()[0] & 0x1FFF).astype("<u2")

    body, _ = run(compressed_file(image, J2K, [openjpeg_stream(bits, 13)]))

    assert np.array_equal(samples(body), image.array())


def test_a_signed_code_stream_of_unsigned_samples_loses_its_sign() -> None:
    image = Image(rows=40, columns=36, stored=12)
    signed = ((image.array()[0].astype("i4") ^ 0x800) - 0x800).astype("<i2")

    body, _ = run(compressed_file(image, J2K, [openjpeg_stream(signed, 12)]))

    assert np.array_equal(samples(body), image.array())


@pytest.mark.parametrize("signed", [True, False])
def test_a_sign_that_is_ambiguous_is_refused(signed: bool) -> None:
    image = Image(rows=40, columns=36, stored=16, signed=signed)
    values = Image(rows=40, columns=36, stored=12, signed=not signed).array()[0]

    with pytest.raises(InstanceError) as caught:
        run(compressed_file(image, J2K, [openjpeg_stream(values, 12)]))

    assert caught.value.reason is Reason.UNDECODABLE


def test_jpeg_samples_that_cannot_reach_the_sign_bit_are_positive() -> None:
    image = Image(rows=40, columns=36, stored=16, signed=True)
    low = Image(rows=40, columns=36, stored=12).array()[0]
    stream = bytes(imagecodecs.jpeg8_encode(low, lossless=True, predictor=1, bitspersample=12))

    body, _ = run(compressed_file(image, JPEG_SV1, [stream]), verify="all")

    assert samples(body)[0].tolist() == low.tolist()


def test_precision_of_the_code_stream_does_not_rewrite_bits_stored() -> None:
    image = Image(rows=40, columns=36, stored=12)
    low = (image.array()[0] >> 3).astype("<u2")

    body, _ = run(compressed_file(image, J2K, [openjpeg_stream(low, 9)]))

    ds = read(body)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
    assert ds.PixelData == low.tobytes()


def test_eight_bit_code_stream_in_sixteen_bits_allocated() -> None:
    image = Image(stored=8)
    narrow = image.array()[0].astype("u1")

    body, _ = run(compressed_file(image, JPEG_LS, [bytes(imagecodecs.jpegls_encode(narrow))]))

    assert read(body).PixelData == narrow.astype("<u2").tobytes()


def test_more_precision_than_bits_allocated_is_refused() -> None:
    image = Image(allocated=8, stored=8)
    wide = Image(stored=12).array()[0]

    with pytest.raises(InstanceError, match="12 bits decoded, 8 allocated"):
        run(
            compressed_file(
                image, J2K, [openjpeg_stream(np.tile(wide, (4, 4)), 12)], Rows=80, Columns=56
            )
        )


def test_a_dct_stream_that_exceeds_its_own_odd_precision_is_refused() -> None:
    image = Image(rows=16, columns=16, stored=10)
    checker = (np.indices((16, 16)).sum(0) % 2 * 1023).astype("<u2")
    stream = bytearray(imagecodecs.jpeg8_encode(checker, 30, bitspersample=12))
    frame = stream.find(b"\xff\xc1")
    stream[frame + 4] = 10

    with pytest.raises(InstanceError, match="above the 10 bits"):
        run(compressed_file(image, "1.2.840.10008.1.2.4.51", [bytes(stream)]))


@pytest.mark.parametrize("field", ["Rows", "Columns", "SamplesPerPixel"])
def test_a_code_stream_of_another_shape_is_refused(field: str) -> None:
    with pytest.raises(InstanceError, match="the code stream has 40 rows"):
        run(encoded_file(GREY, JPEG_LS, **{field: 3}))


# --- lossy marks (PS3.3 C.7.6.1.1.5) ---


def test_a_lossy_codec_sets_the_missing_mark_with_ratio_and_method() -> None:
    stream = bytes(imagecodecs.jpeg8_encode(GREY.array()[0], 60))

    ds = read(run(compressed_file(GREY, JPEG_BASELINE, [stream]))[0])

    padded = len(stream) + len(stream) % 2
    assert ds.LossyImageCompression == "01"
    assert float(ds.LossyImageCompressionRatio) == pytest.approx(40 * 36 / padded, abs=0.01)
    assert ds.LossyImageCompressionMethod == "ISO_10918_1"


@pytest.mark.parametrize(("mark", "added"), [("01", False), ("00", True)])
def test_a_mark_that_is_true_stays_and_a_false_one_does_not(mark: str, added: bool) -> None:
    stream = bytes(imagecodecs.jpeg8_encode(GREY.array()[0], 60))

    source = compressed_file(GREY, JPEG_BASELINE, [stream], LossyImageCompression=mark)

    ds = read(run(source)[0])
    assert ds.LossyImageCompression == "01"
    assert ("LossyImageCompressionRatio" in ds) is added


def test_a_lossless_codec_sets_no_mark() -> None:
    assert "LossyImageCompression" not in read(run(encoded_file(GREY, JPEG_SV1))[0])


def test_a_reversible_stream_under_the_lossy_syntax_sets_no_mark() -> None:
    stream = openjpeg_stream(GREY.array()[0], 8)

    ds = read(run(compressed_file(GREY, J2K_LOSSY, [stream]))[0])

    assert "LossyImageCompression" not in ds
    assert ds.PixelData == GREY.array().tobytes()


# --- icons (PS3.3 C.7.6.1.1.6) ---


def icon_item(image: Image, stream: bytes) -> Dataset:
    item = dataset(image)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        delattr(item, keyword)
    for keyword in ("PatientID", "PatientName", "Modality"):
        delattr(item, keyword)
    item.PixelData = encapsulate([stream])
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = True
    return item


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, "RLELossless"])
def test_icons_are_decoded_too(undefined: bool, target: str) -> None:
    icon = Image(rows=5, columns=5, allocated=8, stored=8)
    stream = bytes(imagecodecs.jpegls_encode(icon.array()[0]))
    nested = Dataset()
    nested.IconImageSequence = Sequence([icon_item(icon, stream)])
    nested["IconImageSequence"].is_undefined_length = undefined

    source = encoded_file(
        GREY,
        JPEG_LS,
        IconImageSequence=[icon_item(icon, stream)],
        ReferencedImageSequence=[nested],
    )
    ds = read(run(source, target)[0])

    for found in (ds.IconImageSequence[0], ds.ReferencedImageSequence[0].IconImageSequence[0]):
        assert not found["PixelData"].is_undefined_length
        assert found.PixelData == native_bytes(icon, icon.array())
        assert "LossyImageCompression" not in found


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, RLE])
def test_an_icon_in_a_sequence_of_unknown_vr_is_decoded_too(target: str) -> None:
    """PS3.5 6.2.2 (CP-246): UN of undefined length holds implicit items. Left coded, the icon
    would lie encapsulated under a native label, which is refused when it is read again.
    """
    icon = Image(rows=5, columns=5, allocated=8, stored=8)
    coded = icon_item(icon, bytes(imagecodecs.jpegls_encode(icon.array()[0])))
    content = DicomBytesIO()
    content.is_little_endian, content.is_implicit_VR = True, True
    write_dataset(content, coded)
    source = encoded_file(GREY, JPEG_LS)
    at = source.rindex(b"\xe0\x7f\x10\0OB")
    header = pack("<HH2sHI", 0x0089, 0x1001, b"UN", 0, 0xFFFFFFFF)
    sequence = header + item(content.getvalue()) + pack("<HHI", 0xFFFE, 0xE0DD, 0)

    body, _ = run(source[:at] + sequence + source[at:], target)

    (found,) = read(body)[0x0089, 0x1001].value
    assert not found["PixelData"].is_undefined_length
    assert found.PixelData == native_bytes(icon, icon.array())
    assert run(body, target)[1].action is Action.UNCHANGED


def test_an_icon_that_cannot_be_decoded_is_named() -> None:
    icon = Image(rows=5, columns=5, allocated=8, stored=8)
    whole = icon_item(icon, bytes(imagecodecs.jpegls_encode(icon.array()[0])))
    cut = icon_item(icon, bytes(imagecodecs.jpegls_encode(icon.array()[0]))[:-9])
    undescribed = icon_item(icon, bytes(imagecodecs.jpegls_encode(icon.array()[0])))
    del undescribed.Rows
    other = Dataset()
    other.add_new(0x00091001, "SQ", Sequence([whole, whole, cut]))
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"IconImageSequence": [cut]}, "Item 1 of the Icon Image Sequence (0088,0200)"),
        ({"IconImageSequence": [undescribed]}, "Item 1 of the Icon Image Sequence (0088,0200)"),
        ({"ReferencedImageSequence": [Dataset(), other]}, "Item 3 of (0009,1001)"),
    )
    for elements, place in cases:
        for target in (EXPLICIT, IMPLICIT, RLE):
            with pytest.raises(InstanceError) as caught:
                run(encoded_file(GREY, JPEG_LS, **elements), target)
            assert caught.value.reason is Reason.UNDECODABLE
            assert caught.value.message.startswith(f"{place} cannot be decoded: ")


@pytest.mark.parametrize(("lossless", "target"), [(True, "stays"), (False, "lossy"), (True, RLE)])
def test_a_damaged_icon_stays_where_the_wanted_syntax_allows_it(
    lossless: bool, target: str
) -> None:
    """PS3.5 A.4: under an encapsulated syntax an icon is native, or coded in that syntax."""
    icon = Image(rows=40, columns=40, allocated=8, stored=8)
    stream = bytes(imagecodecs.jpegls_encode(icon.array()[0], level=0 if lossless else 3))
    cut = icon_item(icon, stream[:-30])
    source = encoded_file(GREY, JPEG_LS, IconImageSequence=[Dataset(), cut])
    # Coded without loss and labelled as what may be lossy: it has to be coded anew.
    source = relabelled(source, JPEG_LS_NEAR)

    def transcoded() -> bytes:
        return run(source, JPEG_LS if target != RLE else RLE)[0]

    if target != "stays":
        with pytest.raises(InstanceError, match="Item 2 of the Icon Image Sequence"):
            transcoded()
        return
    body = transcoded()
    assert read(body).IconImageSequence[1].PixelData == cut.PixelData
    assert read(body).IconImageSequence[1]["PixelData"].is_undefined_length
    assert (samples(relabelled_native(body)) == GREY.array()).all()


@pytest.mark.parametrize(("frames", "target"), [(1, J2K), (2, JPEG_LS)])
def test_a_damaged_icon_of_another_family_or_of_two_frames_does_not_stay(
    frames: int, target: str
) -> None:
    icon = Image(rows=40, columns=40, allocated=8, stored=8, frames=frames)
    streams = [bytes(imagecodecs.jpegls_encode(frame)) for frame in icon.array()]
    item = icon_item(icon, streams[0])
    item.PixelData = encapsulate([*streams[:-1], streams[-1][:-30]])
    source = relabelled(encoded_file(GREY, JPEG_LS, IconImageSequence=[item]), JPEG_LS_NEAR)
    with pytest.raises(InstanceError, match="Item 1 of the Icon Image Sequence"):
        run(source, target)


def relabelled_native(body: bytes) -> bytes:
    """Decode the image of a file whose icon is damaged: without its icon."""
    ds = read(body)
    del ds.IconImageSequence
    return run(save(ds, JPEG_LS))[0]


# --- what goes and what stays ---


def test_group_lengths_padding_and_extended_offset_table_go() -> None:
    source = encoded_file(
        GREY, JPEG_LS, ExtendedOffsetTable=bytes(8), ExtendedOffsetTableLengths=bytes(8)
    )
    ds = read(source)
    ds.add(DataElement(0x00080000, "UL", 9999))
    ds.add(DataElement(0xFFFCFFFC, "OB", bytes(10)))

    out = read(run(save(ds, JPEG_LS))[0])

    assert not any(tag in out for tag in (0x7FE00001, 0x7FE00002, 0x00080000, 0xFFFCFFFC))
    assert out.PixelData == GREY.array().tobytes()


def test_elements_after_the_pixels_stay() -> None:
    ds = read(encoded_file(GREY, JPEG_LS))
    ds.add(DataElement(0x7FE10010, "LO", "VENDOR"))
    ds.add(DataElement(0x7FE11001, "OB", b"\1\2\3\4"))

    out = read(run(save(ds, JPEG_LS))[0])

    assert (out[0x7FE10010].value, out[0x7FE11001].value) == ("VENDOR", b"\1\2\3\4")


def test_file_meta_information_is_ours_and_agrees_with_the_data_set() -> None:
    ds = read(encoded_file(GREY, JPEG_LS))
    uid = ds.SOPInstanceUID
    ds.file_meta.SourceApplicationEntityTitle = "MODALITY1"
    source = save(ds, JPEG_LS).replace(
        f"{uid}".encode(), f"{uid[:-1]}9".encode(), 1
    )  # the header's UID, which lies

    out = read(run(source)[0])

    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID == uid
    assert out.file_meta.MediaStorageSOPClassUID == out.SOPClassUID
    assert out.file_meta.TransferSyntaxUID == EXPLICIT
    assert out.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert UID(IMPLEMENTATION_CLASS_UID).is_valid
    assert str(out.file_meta.ImplementationVersionName).startswith("ORTHANCBRIDGE")
    assert out.file_meta.SourceApplicationEntityTitle == "MODALITY1"


def test_a_uid_that_is_too_long_is_the_same_in_both_places() -> None:
    ds = read(encoded_file(GREY, JPEG_LS))
    ds.SOPInstanceUID = UID("1.2." + "34567890" * 8 + ".1")
    ds.SOPClassUID = UID(ds.SOPClassUID + "." + "1" * 64)

    out = read(run(save(ds, JPEG_LS))[0])

    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert out.SOPClassUID == out.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID


def test_a_compressed_syntax_without_pixels_is_only_relabelled() -> None:
    ds = dataset(GREY)
    del ds.BitsAllocated

    body, result = run(save(ds, JPEG_LS))

    assert (result.action, result.frames, result.verified) == (Action.RELABELLED, 0, False)
    assert read(body).PatientName == "Test^Case"


@pytest.mark.parametrize("source", [EXPLICIT, IMPLICIT, DEFLATED, JPEG_LS])
def test_an_object_without_pixels_is_never_labelled_as_compressed(source: str) -> None:
    body, result = run(save(dataset(GREY), source), "JPEG2000Lossless")

    assert result.target_syntax == read(body).file_meta.TransferSyntaxUID == EXPLICIT
    assert result.action is (Action.UNCHANGED if source == EXPLICIT else Action.RELABELLED)


def test_the_wanted_syntax_is_passed_through_unparsed() -> None:
    source = native_file(GREY)[:-7] + b"garbage"

    body, result = run(source)

    assert body == source
    assert result.action is Action.UNCHANGED


def test_the_original_is_never_written_to() -> None:
    source = bytearray(encoded_file(GREY, RLE))
    before = bytes(source)

    run_on(source)

    assert bytes(source) == before


def run_on(source: bytearray) -> list[bytes]:
    result = transcode(source, wanted_syntax=EXPLICIT, options=TranscodeOptions())
    return [bytes(chunk) for chunk in result.body]


# --- labels that are wrong ---


@pytest.mark.parametrize(
    ("written", "label"),
    [
        (EXPLICIT, IMPLICIT),
        (IMPLICIT, EXPLICIT),
        (EXPLICIT, BIG_ENDIAN),
        (EXPLICIT, DEFLATED),
        (EXPLICIT, JPEG_LS),  # native pixels under a compressed label
        (JPEG_LS, EXPLICIT),  # and the reverse
        (JPEG_LS, RLE),
        (JPEG_LS, JPEG_SV1),
        (JPEG_SV1, JPEG_BASELINE),
        (J2K, JPEG_LS),
        (RLE, J2K),
    ],
)
def test_a_wrong_label_is_a_reason_of_its_own(written: str, label: str) -> None:
    plain = written in (EXPLICIT, IMPLICIT)
    source = native_file(GREY, written) if plain else encoded_file(GREY, written)

    with pytest.raises(InstanceError) as caught:
        run(
            relabelled(source, label),
            "DeflatedExplicitVRLittleEndian" if label != DEFLATED else EXPLICIT,
        )

    assert caught.value.reason is Reason.WRONG_SYNTAX_LABEL


def test_a_lossless_jpeg_under_its_more_general_label_is_fine() -> None:
    body, _ = run(relabelled(encoded_file(GREY, JPEG_SV1), JPEG_LOSSLESS))

    assert np.array_equal(samples(body), GREY.array())


def test_jpeg_recompressed_as_jpeg_xl_gives_the_samples_of_the_jpeg() -> None:
    stream = jpeg(COLOUR.array()[0], transformed=True, subsampling="420")
    packed = bytes(imagecodecs.jpegxl_encode_jpeg(stream))

    body, result = run(compressed_file(ybr("YBR_FULL_422"), JPEG_XL_JPEG, [packed]))

    ds = read(body)
    assert ds.PhotometricInterpretation == "YBR_FULL"
    assert ds.PixelData == raw_components(stream).tobytes()
    assert ds.LossyImageCompression == "01"
    assert "libjxl" in result.decoder


@pytest.mark.parametrize("at", [0, 1])
def test_of_two_identifiers_the_first_is_that_of_the_instance(at: int) -> None:
    """So Orthanc and DCMTK read it: file meta information and audit say the same."""
    source = encoded_file(GREY, JPEG_LS)
    start = source.index(b"\x08\0\x18\0UI")
    stop = start + 8 + source[start + 6]
    another = b"\x08\0\x18\0UI\x06\x001.2.3\0"
    two = (
        source[:start] + another + source[start:] if at else source[:stop] + another + source[stop:]
    )
    body, result = run(two)
    first = "1.2.3" if at else str(read(source).SOPInstanceUID)
    assert read(body).file_meta.MediaStorageSOPInstanceUID == first
    assert result.sop_instance_uid == first
    assert body.count(another) == 1

"""From a recipe to the bytes of a DICOM file: header, identity, encapsulation, file meta.

Written with pydicom's element writer rather than ``dcmwrite``, which does not know the newest
transfer syntaxes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from bridge.demo.images import Image
from bridge.demo.pydicom_wheel import wheel_dataset
from bridge.demo.recipes import Icon, Layout, Recipe

PATIENT_ID = "DEMO"
PERSON = "DEMO^ORTHANC-BRIDGE"
ENTROPY = "orthanc-bridge demo"
PRIVATE_GROUP = 0x0011
PRIVATE_CREATOR = "ORTHANC-BRIDGE DEMO"
FRAGMENTS_PER_FRAME = 3
ICON_STEP = 8

WORD_BYTES = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
"""Binary VRs whose words follow the byte order of the syntax (PS3.5 7.3)."""

# About the person or the place: emptied rather than guessed at.
_IDENTIFYING = ("Patient", "OtherPatient", "Institution", "EthnicGroup", "MilitaryRank", "Region")
_KEPT = ("PatientPosition", "PatientOrientation", "PatientSex", "PatientID", "PatientName")


class Built(NamedTuple):
    """A file, and the native pixel data of its icon if it has one."""

    data: bytes
    icon: bytes | None


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Pixel data elements of one image, ready to be put in a data set."""

    elements: tuple[DataElement, ...]
    encoded_bytes: int


def build(recipe: Recipe) -> Built:
    """Encode one recipe. The result depends on nothing but the recipe and the codecs' versions."""
    image = recipe.image()
    dataset = _header(recipe.name, recipe.syntax, image.header)
    if image.sop_class:
        dataset.SOPClassUID = image.sop_class
    _describe(dataset, image, recipe.photometric or image.photometric)
    icon = _add_icon(dataset, recipe, image) if recipe.icon else None
    pixels = _pixels(recipe, image)
    for element in pixels.elements:
        dataset.add(element)
    if recipe.lossy:  # PS3.3 C.7.6.1.1.5
        ratio = image.samples.nbytes / pixels.encoded_bytes
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = f"{ratio:.2f}"
        dataset.LossyImageCompressionMethod = recipe.lossy
    return Built(file_bytes(dataset, recipe.syntax), icon)


def build_without_pixels(name: str, syntax: str, file_name: str) -> bytes:
    """Return an instance without pixel data, explicit VR little endian, labelled ``syntax``."""
    return file_bytes(_header(name, syntax, file_name), syntax)


def build_with_identity(file_name: str) -> bytes:
    """Return a file of the wheel with a made-up patient, study and series, else as it is."""
    dataset = wheel_dataset(file_name)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    _identify(dataset, file_name, syntax)
    return file_bytes(dataset, syntax)


def _identify(dataset: Dataset, name: str, syntax: str) -> None:
    """Set the four identifiers that make the Orthanc ID, the same ones every time."""
    dataset.PatientID = PATIENT_ID
    dataset.PatientName = PERSON
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[ENTROPY, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[ENTROPY, "series", syntax])
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[ENTROPY, "instance", name])


def _header(name: str, syntax: str, file_name: str) -> Dataset:
    """Elements of a wheel file without its image, with a new identity and private elements."""
    dataset = Dataset()
    for element in wheel_dataset(file_name):
        if element.VR == "PN":
            dataset.add(DataElement(element.tag, "PN", PERSON))
        elif element.keyword in _KEPT or not element.keyword.startswith(_IDENTIFYING):
            dataset.add(element)
    for tag in [e.tag for e in dataset if e.tag.element == 0]:  # group lengths, stale by now
        del dataset[tag]
    for keyword in ("PixelData", "NumberOfFrames", "PlanarConfiguration"):
        if keyword in dataset:
            del dataset[keyword]
    _identify(dataset, name, syntax)
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(0x01, "LO", f"kept as it is: {name}")
    block.add_new(0x02, "FD", [1.5, -2.25])
    block.add_new(0x03, "OB", bytes(range(64)))
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "T-1", "inside a private sequence"
    block.add_new(0x04, "SQ", [item])
    return dataset


def _describe(dataset: Dataset, image: Image, photometric: str) -> None:
    """Set the image pixel description (PS3.3 C.7.6.3)."""
    frames, rows, columns, samples = image.samples.shape
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = photometric
    if samples > 1:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = image.bits_allocated
    dataset.BitsStored = image.bits_stored
    dataset.HighBit = image.bits_stored - 1
    dataset.PixelRepresentation = int(image.signed)


def _pixels(recipe: Recipe, image: Image) -> _Pixels:
    native = image.native_frames()
    if recipe.encode is None:
        joined = b"".join(native)
        vr = "OB" if image.bits_allocated <= 8 and recipe.syntax != ImplicitVRLittleEndian else "OW"
        return _Pixels((_element("PixelData", vr, joined),), len(joined))
    frames = [_encode(recipe, image, number) for number in range(len(native))]
    total = sum(map(len, frames))
    if recipe.layout is Layout.EXTENDED_TABLE:
        value, offsets, lengths = encapsulate_extended(frames)
        return _Pixels(
            (
                _encapsulated(value),
                _element("ExtendedOffsetTable", "OV", offsets),
                _element("ExtendedOffsetTableLengths", "OV", lengths),
            ),
            total,
        )
    fragments = FRAGMENTS_PER_FRAME if recipe.layout is Layout.FRAGMENTS else 1
    has_table = recipe.layout is not Layout.EMPTY_TABLE
    value = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_table)
    return _Pixels((_encapsulated(value),), total)


def _encode(recipe: Recipe, image: Image, number: int) -> bytes:
    """Encode one frame, as (rows, columns[, 3]) or, for 1 bit, as packed bytes."""
    if recipe.encode is None:
        raise ValueError("A native recipe has no encoder.")
    if image.bits_allocated == 1:
        return recipe.encode(np.frombuffer(image.native_frames()[number], np.uint8))
    frame = image.samples[number]
    return recipe.encode(np.ascontiguousarray(frame[..., 0] if frame.shape[2] == 1 else frame))


def _add_icon(dataset: Dataset, recipe: Recipe, image: Image) -> bytes:
    """Add an Icon Image Sequence (0088,0200); return its native pixel data.

    PS3.5 A.4 allows its pixel data to be encapsulated or native, whatever the image's is.
    """
    small = np.ascontiguousarray(image.samples[:1, ::ICON_STEP, ::ICON_STEP])
    icon = Image(image.header, small, image.bits_stored, image.photometric)
    item = Dataset()
    _describe(item, icon, icon.photometric)
    native = b"".join(icon.native_frames())
    if recipe.icon is Icon.ENCAPSULATED:
        item.add(_encapsulated(encapsulate([_encode(recipe, icon, 0)])))
    else:
        item.add(_element("PixelData", "OB", native))
    dataset.IconImageSequence = [item]
    return native


def _element(keyword: str, vr: str, value: bytes) -> DataElement:
    """Return a binary element, padded to an even length (PS3.5 7.1.1)."""
    return DataElement(Tag(keyword), vr, value + b"\x00" * (len(value) % 2))


def _encapsulated(value: bytes) -> DataElement:
    return DataElement(Tag("PixelData"), "OB", value, is_undefined_length=True)


def file_bytes(dataset: Dataset, syntax: str) -> bytes:
    """Preamble, file meta information and data set (PS3.10 7)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    head = DicomBytesIO()
    head.is_implicit_VR, head.is_little_endian = False, True
    head.write(b"\x00" * 128 + b"DICM")
    write_file_meta_info(head, meta, enforce_standard=True)
    body = DicomBytesIO()
    body.is_implicit_VR = syntax == ImplicitVRLittleEndian
    body.is_little_endian = syntax != ExplicitVRBigEndian
    if not body.is_little_endian:
        for element in dataset.iterall():
            if element.VR in WORD_BYTES:  # pydicom leaves the words of binary values as they are
                words = np.frombuffer(element.value, f"<u{WORD_BYTES[element.VR]}")
                element.value = words.byteswap().tobytes()
    write_dataset(body, dataset)
    encoded = body.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:  # PS3.5 A.5
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = compressor.compress(encoded) + compressor.flush()
        encoded += b"\x00" * (len(encoded) % 2)
    return head.getvalue() + encoded

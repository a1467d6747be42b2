"""Images and files for the tests of the transcoder. pydicom is the independent reader."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from rle.utils import encode_pixel_data

from bridge.dicom.transcode import Transcoded, transcode
from bridge.model import Action, TranscodeOptions

Array = NDArray[Any]
WHEEL = Path(pydicom.__file__).parent / "data" / "test_files"

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
J2K = "1.2.840.10008.1.2.4.90"
J2K_LOSSY = "1.2.840.10008.1.2.4.91"
JPEG_XL = "1.2.840.10008.1.2.4.110"
JPEG_XL_JPEG = "1.2.840.10008.1.2.4.111"
HTJ2K = "1.2.840.10008.1.2.4.201"
RLE = "1.2.840.10008.1.2.5"
RAW = "1.2.840.10008.1.2.1.98"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"


@dataclass(frozen=True)
class Image:
    """The pixel description of a test image."""

    rows: int = 20
    columns: int = 14
    samples: int = 1
    allocated: int = 16
    stored: int = 12
    signed: bool = False
    frames: int = 1
    photometric: str = "MONOCHROME2"
    planar: int | None = None

    @property
    def dtype(self) -> str:
        return f"<{'i' if self.signed else 'u'}{max(1, self.allocated // 8)}"

    def array(self, seed: int = 7) -> Array:
        """Smooth values and both extremes of Bits Stored: (frames, rows, columns[, samples])."""
        rng = np.random.default_rng(seed)
        shape: tuple[int, ...] = (self.frames, self.rows, self.columns)
        if self.samples > 1:
            shape = (*shape, self.samples)
        span = 1 << self.stored
        steps = rng.integers(-(span // 40) - 1, span // 40 + 2, size=shape)
        values = np.cumsum(np.cumsum(steps, axis=1), axis=2) % span
        values[:, 0, 0], values[:, -1, -1] = 0, span - 1
        if self.signed:
            values -= span // 2
        return values.astype(self.dtype)


def dataset(image: Image, **elements: object) -> Dataset:
    """A secondary capture with the description of ``image``, without pixels."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = generate_uid(entropy_srcs=["instance", repr(image)])
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    ds.PatientID, ds.PatientName, ds.Modality = "T1", "Test^Case", "OT"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = image.rows, image.columns, image.samples
    ds.PhotometricInterpretation = image.photometric
    ds.BitsAllocated, ds.BitsStored = image.allocated, image.stored
    ds.HighBit, ds.PixelRepresentation = image.stored - 1, int(image.signed)
    if image.frames > 1:
        ds.NumberOfFrames = image.frames
    if image.planar is not None or image.samples > 1:
        ds.PlanarConfiguration = image.planar or 0
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


def relabelled(data: bytes, syntax: str) -> bytes:
    """Return the file with another transfer syntax UID in its header, nothing else changed."""
    start = data.index(b"\x02\x00\x10\x00UI")
    (length,) = unpack_from("<H", data, start + 6)
    value = syntax.encode() + b"\0" * (len(syntax) & 1)
    (total,) = unpack_from("<I", data, 140)
    head = data[:140] + pack("<I", total - length + len(value)) + data[144 : start + 6]
    return head + pack("<H", len(value)) + value + data[start + 8 + length :]


def save(ds: Dataset, syntax: str) -> bytes:
    """Write ``ds`` as it is, labelled ``syntax``, which pydicom need not know."""
    known = UID(syntax).type == "Transfer Syntax"
    ds.file_meta.TransferSyntaxUID = UID(syntax if known else RLE)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(out, enforce_file_format=True)
    return out.getvalue() if known else relabelled(out.getvalue(), syntax)


def native_bytes(image: Image, array: Array) -> bytes:
    """The samples as native Pixel Data."""
    if image.allocated == 1:
        raw = np.packbits(array.reshape(-1).astype("u1"), bitorder="little").tobytes()
    elif image.planar == 1:
        raw = np.ascontiguousarray(np.moveaxis(array, -1, 1)).tobytes()
    else:
        raw = array.tobytes()
    return raw + b"\0" * (len(raw) & 1)


def native_file(image: Image, syntax: str = EXPLICIT, seed: int = 7, **elements: object) -> bytes:
    """A file with native pixel data, in little endian."""
    ds = dataset(image, **elements)
    ds.PixelData = native_bytes(image, image.array(seed))
    ds["PixelData"].VR = "OW" if image.allocated > 8 else "OB"
    return save(ds, syntax)


def compressed_file(
    image: Image,
    syntax: str,
    streams: Sequence[bytes],
    *,
    has_bot: bool = True,
    pixel_data: bytes | None = None,
    **elements: object,
) -> bytes:
    """A file with ``streams`` as frames, or ``pixel_data`` as the value of Pixel Data."""
    ds = dataset(image, **elements)
    value = encapsulate(list(streams), has_bot=has_bot) if pixel_data is None else pixel_data
    ds.PixelData = value
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return save(ds, syntax)


def item(value: bytes) -> bytes:
    """One fragment."""
    return pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def _rle(image: Image, frame: Array) -> bytes:
    stream = encode_pixel_data(
        frame.tobytes(),
        byteorder="<",
        rows=image.rows,
        columns=image.columns,
        samples_per_pixel=image.samples,
        bits_allocated=image.allocated,
    )
    return bytes(stream)


def _sv1(image: Image, frame: Array) -> bytes:
    space = "UNKNOWN" if image.photometric.startswith("YBR") else "RGB"
    colour: dict[str, Any] = (
        {"colorspace": space, "outcolorspace": space} if image.samples == 3 else {}
    )
    unsigned = np.ascontiguousarray(frame).view(f"u{frame.itemsize}")
    bits = image.allocated if image.signed else image.stored
    return bytes(
        imagecodecs.jpeg8_encode(unsigned, lossless=True, predictor=1, bitspersample=bits, **colour)
    )


def _j2k(image: Image, frame: Array) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(frame),
            level=0,
            reversible=True,
            codecformat="j2k",
            bitspersample=image.stored,
            mct=image.photometric in ("RGB", "YBR_RCT"),
        )
    )


def _deflate(image: Image, frame: Array) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    packed = engine.compress(native_bytes(image, frame[None])) + engine.flush()
    return packed + b"\0" * (len(packed) & 1)


ENCODE: dict[str, Callable[[Image, Array], bytes]] = {
    RLE: _rle,
    JPEG_SV1: _sv1,
    JPEG_LS: lambda _, frame: bytes(
        imagecodecs.jpegls_encode(np.ascontiguousarray(frame).view(f"u{frame.itemsize}"))
    ),
    J2K: _j2k,
    HTJ2K: lambda image, frame: bytes(
        imagecodecs.htj2k_encode(
            np.ascontiguousarray(frame), reversible=True, rgb=image.photometric == "RGB"
        )
    ),
    JPEG_XL: lambda image, frame: bytes(
        imagecodecs.jpegxl_encode(
            np.ascontiguousarray(frame), lossless=True, bitspersample=image.stored
        )
    ),
    RAW: lambda image, frame: native_bytes(image, frame[None]),
    DEFLATED_FRAME: _deflate,
}
"""Encoders of the tests' own, by syntax: not the product's."""


def encoded_file(image: Image, syntax: str, seed: int = 7, **options: Any) -> bytes:
    """A file of ``image.array(seed)`` in a lossless compressed syntax."""
    streams = [ENCODE[syntax](image, frame) for frame in image.array(seed)]
    return compressed_file(image, syntax, streams, **options)


def openjpeg_stream(array: Array, bits: int) -> bytes:
    """A JPEG 2000 code stream of the other OpenJPEG wrapper (no side below 32 pixels)."""
    return bytes(encode_array(array, bits_stored=bits, photometric_interpretation=2))


def run(source: bytes, wanted: str = EXPLICIT, **options: Any) -> tuple[bytes, Transcoded]:
    """Transcode and read the body to its end."""
    result = transcode(source, wanted_syntax=wanted, options=TranscodeOptions(**options))
    body = b"".join(bytes(chunk) for chunk in result.body)
    assert result.body.body_bytes in (None, len(body))
    assert not len(body) & 1 or result.action is Action.UNCHANGED
    return body, result


def read(body: bytes) -> Dataset:
    """Read a file with pydicom, every element."""
    ds = dcmread(io.BytesIO(body), force=True)
    for _ in ds.iterall():
        pass
    return ds


def samples(body: bytes) -> Array:
    """The raw samples of a native file as pydicom reads them, always with a frame axis."""
    ds = read(body)
    array = pixel_array(ds, raw=True)
    return array if int(ds.get("NumberOfFrames", 1) or 1) > 1 else array[None]

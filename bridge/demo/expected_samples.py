"""What a correct decode of a sample gives, found without the bridge's own code.

In order of preference: the original that we encoded without loss; a file of the wheel with the
same image uncompressed; a decoder other than the one that the bridge asks first. Each answer says
which it was. JPEG-LS and JPEG XL have one implementation among our dependencies (CharLS, libjxl),
so for the lossy ones of these the truth is that library, called directly.

This file must not know: bridge.dicom.transcode, bridge.dicom.codecs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import imagecodecs
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import RLELosslessDecoder

from bridge.demo.instances import Sample
from bridge.demo.jpeg_reference import decode_sequential_jpeg, ycbcr_to_rgb
from bridge.demo.native_reference import (
    Samples,
    frame_count,
    little_endian,
    native_samples,
    sample_type,
    samples_per_pixel,
)
from bridge.demo.pydicom_wheel import wheel_dataset
from bridge.dicom import syntaxes

DCT_TOLERANCE = 1
"""Two inverse DCTs of T.83 accuracy may round a component to neighbouring values."""
DCT_COLOUR_TOLERANCE = 3
"""The same after YCbCr to RGB: 1 in luminance and 1.772 times 1 in chrominance, rounded."""
WAVELET_TOLERANCE = 1
"""Two irreversible 9/7 wavelets may round to neighbouring values."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One right answer: samples (frames, rows, columns, samples per pixel) under a label.

    A delivered sample may differ by ``tolerance``. ``how`` says where the answer comes from.
    """

    photometric: str
    samples: Samples = field(repr=False)
    how: str
    tolerance: int = 0


@dataclass(frozen=True, slots=True)
class Truth:
    """All right answers, none when there is no pixel data, and the icon's native pixel data."""

    candidates: tuple[Candidate, ...]
    icon: bytes | None = field(default=None, repr=False)


def expected_samples(sample: Sample) -> Truth:
    """Return what a correct native version of ``sample`` holds."""
    dataset = dcmread(BytesIO(sample.data))
    if "PixelData" not in dataset:
        return Truth((), sample.icon)
    label = _decoded_label(str(dataset.PhotometricInterpretation))
    if sample.original is not None:
        samples = native_samples(sample.original, dataset)
        return Truth((Candidate(label, samples, "the original"),), sample.icon)
    if sample.same_as:
        twin = wheel_dataset(sample.same_as)
        samples = native_samples(twin.PixelData, twin)
        return Truth((Candidate(label, samples, f"{sample.same_as} uncompressed"),), sample.icon)
    if syntaxes.syntax_of(sample.syntax).kind is syntaxes.Kind.NATIVE:
        value = dataset.PixelData
        if sample.syntax == syntaxes.EXPLICIT_BE:
            value = little_endian(value, dataset["PixelData"].VR, int(dataset.BitsAllocated))
        samples = native_samples(value, dataset)
        label = str(dataset.PhotometricInterpretation)
        return Truth((Candidate(label, samples, "the same native pixel data"),), sample.icon)
    return Truth(tuple(_DECODERS[sample.syntax](dataset)), sample.icon)


def _decoded_label(photometric: str) -> str:
    """Photometric Interpretation after the codec has undone its own colour transform."""
    return "RGB" if photometric in ("YBR_RCT", "YBR_ICT") else photometric


def _frames(dataset: Dataset) -> list[bytes]:
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    return list(
        generate_frames(
            dataset.PixelData, number_of_frames=frame_count(dataset), extended_offsets=offsets
        )
    )


def _stored(decoded: list[Samples], dataset: Dataset) -> Samples:
    """Stack decoded frames as the samples that the description declares.

    The codestream may lack a sign or contradict the data set's; then the stored bits are read
    the way Pixel Representation says (PS3.5 8.2.4 for JPEG 2000, as in all decoders compared).
    """
    wanted = sample_type(dataset)
    shape = (-1, int(dataset.Rows), int(dataset.Columns), samples_per_pixel(dataset))
    stacked = np.stack(decoded).reshape(shape)
    if stacked.dtype.kind == wanted.kind:
        return stacked.astype(wanted)
    shift = int(dataset.BitsAllocated - dataset.BitsStored)
    words = stacked.astype(f"<u{wanted.itemsize}") << shift
    return words.view(wanted) >> shift


def _jpeg_frames(frames: list[bytes], dataset: Dataset) -> list[Candidate]:
    """Sequential DCT. A label RGB means that there is no transform to undo, whatever APP14 says."""
    how = "T.81 reference decoder"
    label = str(dataset.PhotometricInterpretation)
    plain = np.stack([decode_sequential_jpeg(frame) for frame in frames])
    if not label.startswith("YBR"):
        return [Candidate(label, plain, how, DCT_TOLERANCE)]
    return [
        Candidate("RGB", ycbcr_to_rgb(plain), how, DCT_COLOUR_TOLERANCE),
        Candidate("YBR_FULL", plain, how, DCT_TOLERANCE),
    ]


def _jpeg(dataset: Dataset) -> list[Candidate]:
    return _jpeg_frames(_frames(dataset), dataset)


def _jpeg_lossless(dataset: Dataset) -> list[Candidate]:
    samples = _stored([imagecodecs.jpegsof3_decode(f) for f in _frames(dataset)], dataset)
    return [Candidate(str(dataset.PhotometricInterpretation), samples, "jpegsof3")]


def _jpeg_ls(dataset: Dataset) -> list[Candidate]:
    samples = _stored([imagecodecs.jpegls_decode(f) for f in _frames(dataset)], dataset)
    return [Candidate(str(dataset.PhotometricInterpretation), samples, "CharLS, the only decoder")]


def _wavelet(dataset: Dataset, decode: Callable[[bytes], Samples], library: str) -> list[Candidate]:
    frames = _frames(dataset)
    samples = _stored([decode(frame) for frame in frames], dataset)
    label = _decoded_label(str(dataset.PhotometricInterpretation))
    tolerance = 0 if all(map(_is_reversible, frames)) else WAVELET_TOLERANCE
    return [Candidate(label, samples, library, tolerance)]


def _is_reversible(codestream: bytes) -> bool:
    """Whether COD announces the reversible 5/3 wavelet (T.800 A.6.1)."""
    return codestream[codestream.index(b"\xff\x52") + 13] == 1


def _jpeg_2000(dataset: Dataset) -> list[Candidate]:
    return _wavelet(dataset, imagecodecs.jpeg2k_decode, "imagecodecs' OpenJPEG")


def _htj2k(dataset: Dataset) -> list[Candidate]:
    return _wavelet(dataset, imagecodecs.htj2k_decode, "OpenJPH")


def _jpeg_xl(dataset: Dataset) -> list[Candidate]:
    samples = _stored([imagecodecs.jpegxl_decode(f) for f in _frames(dataset)], dataset)
    label = str(dataset.PhotometricInterpretation)
    label = "RGB" if label.startswith("YBR") or label == "XYB" else label
    return [Candidate(label, samples, "libjxl, the only decoder")]


def _jpeg_xl_of_jpeg(dataset: Dataset) -> list[Candidate]:
    """Recompressed JPEG: the JPEG given back and decoded, or libjxl's own decode of it."""
    jpegs = [
        bytes(imagecodecs.jpegxl_decode_jpeg(frame, numthreads=1)) for frame in _frames(dataset)
    ]
    return [*_jpeg_frames(jpegs, dataset), *_jpeg_xl(dataset)]


def _rle(dataset: Dataset) -> list[Candidate]:
    samples, _ = RLELosslessDecoder.as_array(dataset, decoding_plugin="pydicom", raw=True)
    label = str(dataset.PhotometricInterpretation)
    return [Candidate(label, _stored([samples], dataset), "pydicom's own RLE decoder")]


_DECODERS: dict[str, Callable[[Dataset], list[Candidate]]] = {
    syntaxes.JPEG_BASELINE: _jpeg,
    syntaxes.JPEG_EXTENDED: _jpeg,
    syntaxes.JPEG_LOSSLESS: _jpeg_lossless,
    syntaxes.JPEG_LOSSLESS_SV1: _jpeg_lossless,
    syntaxes.JPEG_LS_LOSSLESS: _jpeg_ls,
    syntaxes.JPEG_LS_NEAR: _jpeg_ls,
    syntaxes.JPEG_2000_LOSSLESS: _jpeg_2000,
    syntaxes.JPEG_2000: _jpeg_2000,
    syntaxes.HTJ2K_LOSSLESS: _htj2k,
    syntaxes.HTJ2K_LOSSLESS_RPCL: _htj2k,
    syntaxes.HTJ2K: _htj2k,
    syntaxes.JPEG_XL_LOSSLESS: _jpeg_xl,
    syntaxes.JPEG_XL_RECOMPRESSION: _jpeg_xl_of_jpeg,
    syntaxes.JPEG_XL: _jpeg_xl,
    syntaxes.RLE: _rle,
}

"""What is moved: real images, each instance with identifiers of its own, and ready-made results.

The CT slice is the one in the pydicom wheel, encoded here in each syntax; the ultrasound is the
wheel's own file; the radiograph comes from the corpus and is left out without it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import imagecodecs
import openjpeg.utils
from pydicom import dcmread
from pydicom.encaps import generate_frames

from bridge.demo import images
from bridge.demo.build_file import build
from bridge.demo.pydicom_wheel import TEST_FILES
from bridge.demo.recipes import RECIPES, Recipe
from bridge.dicom import syntaxes
from bridge.dicom.transcode import transcode
from bridge.model import TranscodeOptions
from tests.dicom_samples import small_series

WANTED = syntaxes.EXPLICIT_LE
RADIOGRAPH = (
    Path(__file__).resolve().parents[3]
    / "shared/corpus/files/pylibjpeg-data__JPEGLosslessSV1__RG2_JPLL.dcm"
)
SERIES_INSTANCES = 100
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class Input:
    """One kind of instance. ``count_share``: of the count asked for, because of its size."""

    name: str
    text: str
    load: Callable[[], bytes]
    decode: Callable[[bytes], object] | None = None
    count_share: float = 1.0
    path: Path | None = None

    @property
    def available(self) -> bool:
        return self.path is None or self.path.exists()

    @cached_property
    def template(self) -> bytes:
        """The file whose copies are sent."""
        return self.load()

    @cached_property
    def result(self) -> bytes:
        """The same file in the wanted syntax."""
        done = transcode(self.template, wanted_syntax=WANTED, options=TranscodeOptions())
        return b"".join(done.body)

    @cached_property
    def frames(self) -> list[bytes]:
        """The compressed frames; none of an uncompressed file."""
        dataset = dcmread(io.BytesIO(self.template))
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            return []
        count = int(dataset.get("NumberOfFrames") or 1)
        return list(generate_frames(dataset.PixelData, number_of_frames=count))

    def decode_all(self) -> None:
        """Decode one instance: calls of the library and nothing else."""
        if self.decode is not None:
            for frame in self.frames:
                self.decode(frame)

    def file(self, seed: str, number: int) -> bytes:
        """Instance ``number`` of a run: the file with identifiers of its own."""
        return _stamped(self.template, self._identifiers(seed, number))

    def result_file(self, seed: str, number: int) -> bytes:
        """The result for ``file(seed, number)``."""
        return _stamped(self.result, self._identifiers(seed, number))

    def _identifiers(self, seed: str, number: int) -> dict[bytes, bytes]:
        series = number // SERIES_INSTANCES
        parts = (f"{seed}", f"{seed} {series}", f"{seed} {series} {number}")
        return {
            old: _uid(f"{self.name} {part}", len(old))
            for old, part in zip(self._own_identifiers, parts, strict=True)
        }

    @cached_property
    def _own_identifiers(self) -> list[bytes]:
        dataset = dcmread(io.BytesIO(self.template), stop_before_pixels=True)
        return [str(dataset[keyword].value).encode() for keyword in IDENTIFIERS]


def _uid(text: str, length: int) -> bytes:
    """A UID of this length, the same for the same text (PS3.5 B.2)."""
    number = int.from_bytes(hashlib.sha512(text.encode()).digest())
    return f"2.25.1{number}"[:length].encode()


def _stamped(data: bytes, identifiers: Mapping[bytes, bytes]) -> bytes:
    """Replace identifiers by others of the same length: no other byte moves."""
    for old, new in identifiers.items():
        data = data.replace(old, new)
    return data


def _recipe(name: str) -> Recipe:
    return next(recipe for recipe in RECIPES if recipe.name == name)


def _ct(name: str) -> Callable[[], bytes]:
    return cache(lambda: build(_recipe(name)).data)


@cache
def _ct_rle() -> bytes:
    encode = _recipe("ct-frames-rle").encode
    recipe = Recipe("ct512-rle", syntaxes.RLE, images.ct_large, encode)
    return build(recipe).data


def _packbits(frame: bytes) -> object:
    """The two segments of a 16-bit RLE frame (PS3.5 Annex G)."""
    second = int.from_bytes(frame[8:12], "little")
    return (
        imagecodecs.packbits_decode(frame[64:second]),
        imagecodecs.packbits_decode(frame[second:]),
    )


def _openjpeg(frame: bytes) -> object:
    return openjpeg.utils.decode(io.BytesIO(frame), 0, reshape=False)


def _jpeg(frame: bytes) -> object:
    return imagecodecs.jpeg8_decode(frame)


def _jpeg_as_stored(frame: bytes) -> object:
    return imagecodecs.jpeg8_decode(frame, colorspace="YCBCR", outcolorspace="YCBCR")


def _jpeg_ls(frame: bytes) -> object:
    return imagecodecs.jpegls_decode(frame)


def _tiny() -> bytes:
    return small_series(1, rows=32, columns=32)[0]


_CT = "CT slice, 512 x 512, 16 bit"
ULTRASOUND = TEST_FILES / "examples_ybr_color.dcm"

INPUTS = (
    Input("j2k", f"{_CT}, JPEG 2000 lossless", _ct("ct512-j2k"), _openjpeg),
    Input("jpll", f"{_CT}, JPEG Lossless SV1", _ct("ct512-lossless"), _jpeg),
    Input("jpls", f"{_CT}, JPEG-LS lossless", _ct("ct512-jpegls"), _jpeg_ls),
    Input("rle", f"{_CT}, RLE", _ct_rle, _packbits),
    Input("raw", f"{_CT}, Explicit VR Little Endian: passed through", _ct("ct512-explicit")),
    Input("htj2k", f"{_CT}, HTJ2K lossless", _ct("ct512-htj2k"), _openjpeg),
    Input("radiograph", "radiograph, 2140 x 1760, 10 of 16 bit, JPEG Lossless SV1",
          RADIOGRAPH.read_bytes, _jpeg, 0.15, RADIOGRAPH),
    Input("ultrasound", "ultrasound, 30 frames of 240 x 320 in colour, JPEG baseline",
          ULTRASOUND.read_bytes, _jpeg_as_stored, 0.15, ULTRASOUND),
)  # fmt: skip

TINY = Input("tiny", "CT slice, 32 x 32, 16 bit, Explicit VR Little Endian", _tiny)
BY_NAME = {each.name: each for each in INPUTS}


def long_instance(frames: int) -> bytes:
    """One CT instance of many frames in JPEG 2000, smaller slices so that it can be built soon."""
    recipe = replace(_recipe("ct-frames-j2k"), image=lambda: _many_frames(frames))
    return build(recipe).data


def _many_frames(count: int) -> images.Image:
    image = images.ct_frames()
    repeats = -(-count // len(image.samples))
    return replace(image, samples=image.samples.repeat(repeats, axis=0)[:count])

"""What an instance's image is, whatever syntax it is in: a sum over its decoded samples.

This file must not know: sockets, files, clocks, logging, settings.
Frames are decoded one at a time and never kept. Colour is by pixel, chroma at full resolution,
one-bit pixels a byte each (PS3.5 section 8.1), so that only the samples count and not how they
are laid out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.dicom.description import ALLOCATED, Description, describe, number_of
from bridge.dicom.elements import PIXEL_DATA, Element, Reader
from bridge.dicom.encapsulation import read_fragments
from bridge.dicom.file_meta import read_file_meta
from bridge.dicom.frames import CompressedFrames
from bridge.dicom.inflate import inflated_dataset
from bridge.dicom.native import NativeFrames, pixel_word_bytes, with_sign
from bridge.dicom.samples import little_endian_bytes
from bridge.dicom.syntax_label import check_image
from bridge.dicom.syntaxes import syntax_of, syntax_refusal
from bridge.dicom.transcode import Buffer
from bridge.dicom.vrs import swapped
from bridge.errors import InstanceError

FLOAT_PIXEL_DATA = (0x7FE00008, 0x7FE00009)
"""Float and Double Float Pixel Data (PS3.3 C.7.6.24, C.7.6.25): always native."""
FLOAT_BYTES = {0x7FE00008: 4, 0x7FE00009: 8}
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The image of one instance. Without pixel data ``frames`` is 0 and the sums are "".

    ``samples_sha256`` is what the transcoder's evidence has for the same samples. In
    ``values_sha256`` signed samples have their sign widened over unused bits (PS3.5 8.1.1), which
    some encoders do and others do not. ``shape`` is rows, columns, samples a pixel.
    """

    samples_sha256: str = ""
    values_sha256: str = ""
    frames: int = 0
    shape: tuple[int, int, int] = (0, 0, 0)
    photometric: str = ""

    def same_image(self, other: Fingerprint) -> bool:
        """Whether both decode to the same samples with the same meaning."""
        return (self.values_sha256, self.shape, self.frames, self.photometric) == (
            other.values_sha256,
            other.shape,
            other.frames,
            other.photometric,
        )


def fingerprint(source: Buffer, *, trusts_stream: bool = False) -> Fingerprint:
    """Decode a whole DICOM file and sum its samples. Raises InstanceError as transcode does.

    ``trusts_stream``: believe the code stream of a JPEG where its label contradicts it.
    """
    data = memoryview(source).cast("B")
    meta = read_file_meta(data)
    syntax = syntax_of(meta.syntax)
    if (refused := syntax_refusal(syntax)) is not None:
        text = f"{syntax.keyword} ({syntax.uid}) is not decoded here."
        raise InstanceError(refused.reason, text)
    start = meta.dataset_offset
    if syntax.deflated:
        data, start = inflated_dataset(data[start:]), 0
    reader = Reader(data, implicit=syntax.implicit, big_endian=syntax.big_endian)
    elements = reader.level(start, len(data))
    check_image(elements, meta)
    by_tag = {e.tag: e for e in elements if e.end > e.value}
    pixel = by_tag.get(PIXEL_DATA)
    if pixel is None:
        others = [by_tag[tag] for tag in FLOAT_PIXEL_DATA if tag in by_tag]
        return _of_bytes(reader, others[0], FLOAT_BYTES[others[0].tag]) if others else Fingerprint()
    if syntax.encapsulated:
        frames = CompressedFrames(
            data,
            read_fragments(data, pixel),
            describe(reader, elements),
            syntax,
            trusts_stream=trusts_stream,
        )
        return _summed(frames, frames.d, frames.photometric)
    return _of_native(reader, elements, pixel)


def _of_native(reader: Reader, elements: Sequence[Element], pixel: Element) -> Fingerprint:
    word_bytes = 1
    if reader.big_endian:
        allocated = next((number_of(reader, e) for e in elements if e.tag == ALLOCATED), None)
        word_bytes = pixel_word_bytes(pixel.vr, allocated or 0)
    try:
        d = describe(reader, elements)
        frames = NativeFrames(reader.data, pixel, d, big_endian=reader.big_endian, as_stored=True)
    except InstanceError:
        # Native pixels need no decoder: whatever the description says, the bytes can be summed.
        return _of_bytes(reader, pixel, word_bytes)
    return _summed(frames, frames.d, frames.d.photometric)


def _summed(
    frames: NativeFrames | CompressedFrames, d: Description, photometric: str
) -> Fingerprint:
    samples, values = hashlib.sha256(), hashlib.sha256()
    for array in frames:
        samples.update(little_endian_bytes(array))
        values.update(little_endian_bytes(with_sign(array, d)))
    return Fingerprint(
        samples.hexdigest(),
        values.hexdigest(),
        d.frames,
        (d.rows, d.columns, d.samples),
        photometric,
    )


def _of_bytes(reader: Reader, pixel: Element, word_bytes: int) -> Fingerprint:
    """Sum native pixel data as it lies, in little endian order."""
    swaps = reader.big_endian and word_bytes > 1
    digest = hashlib.sha256()
    for start in range(pixel.value, pixel.stop, BLOCK_BYTES):
        block = reader.data[start : min(start + BLOCK_BYTES, pixel.stop)]
        digest.update(swapped(block, word_bytes) if swaps else block)
    if (pixel.stop - pixel.value) & 1:
        digest.update(b"\0")  # PS3.5 7.1.1: padded to even length when it is written again
    return Fingerprint(digest.hexdigest(), digest.hexdigest(), frames=1)

"""Decoder functions: one compressed frame in, one array out, or an exception.

This file must not know: sockets, files, clocks, logging, settings.
Each function wraps one library and says which fault of it it works around. The table in codecs.py
says which one is used when.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from struct import unpack_from

import imagecodecs
import numpy as np
import openjpeg.utils
from rle import rle as pylibjpeg_rle

from bridge.dicom.codestream import StreamInfo, bare_code_stream, lossless_parts
from bridge.dicom.description import Description
from bridge.dicom.samples import Array, SamplesError, frame_array, to_container
from bridge.dicom.syntaxes import Family

DECODE_FAULTS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    BufferError,
    zlib.error,
)
"""What the libraries raise when they refuse a frame. No MemoryError: the frame is not its cause."""

_OPENJPEG_J2K = 0


def _fit(array: Array, info: StreamInfo, d: Description) -> Array:
    """Fit samples of the stream's precision and sign to the description.

    JPEG samples below the precision of Bits Stored cannot reach its sign bit: they are positive,
    and all readers agree on that. (For JPEG-LS and JPEG 2000 readers differ: see samples.py.)
    """
    positive = info.family in (Family.JPEG_DCT, Family.JPEG_LOSSLESS) and info.precision < d.stored
    return to_container(
        array, d, precision=info.precision, stream_signed=info.signed or (positive and d.signed)
    )


def jpeg8(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """libjpeg-turbo: all DCT processes to 12 bits, lossless to 16. No colour transform.

    A DCT stream of 9 to 11 bits (outside ISO 10918-1, but seen) is decoded in 12, as by
    other readers. Values above its own range are refused: GDCM cuts bits off, DCMTK keeps them.
    """
    odd = info.family is Family.JPEG_DCT and 8 < info.precision < 12
    if odd:
        at = info.header_at + 4
        frame = frame[:at] + b"\x0c" + frame[at + 1 :]
    if info.samples == 1:
        array = imagecodecs.jpeg8_decode(frame)
    else:
        # Equal input and output colour spaces: libjpeg's guess from the markers is not asked.
        space = "YCBCR" if info.samples == 3 else "UNKNOWN"
        array = imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace=space)
    if odd and int(array.max()) >> info.precision:
        raise SamplesError(f"values above the {info.precision} bits of the code stream")
    return _fit(array, info, d)


def may_be_cut(info: StreamInfo, array: Array) -> bool:
    """True if what jpeg8 made may be of a JPEG whose coded data was cut short.

    Where the data has run out, libjpeg says nothing and goes on with mid-grey from the next row
    (lossless) or block; in a progressive scan it leaves the samples rough. A cut in the very last
    row or block does not show.
    """
    if info.progressive:
        return True
    last = array[-1] if info.family is Family.JPEG_LOSSLESS else array[-1, -1]
    coded = last.astype(np.int64) & ((1 << info.precision) - 1)
    grey = (coded == 1 << (info.precision - 1)).reshape(-1, max(info.samples, 1))
    return bool(grey.all(axis=0).any())  # of any component: each may have a scan of its own


def jpegsof3(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """jpegsof3 (by Chris Rorden): lossless JPEG only; refuses a scan that is cut short.

    It refuses restart intervals, is wrong on separate scans and point transforms, and takes the
    Huffman tables in the order of the components.
    """
    return _fit(_by_parts(frame, info, imagecodecs.jpegsof3_decode), info, d)


def ljpeg(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """liblj92: lossless JPEG only; says nothing about a scan that is cut short.

    It is wrong on restart intervals, separate scans and point transforms, and takes the Huffman
    tables in the order of the components.
    """
    return _fit(_by_parts(frame, info, imagecodecs.ljpeg_decode), info, d)


def _by_parts(frame: bytes, info: StreamInfo, decode: Callable[[bytes], Array]) -> Array:
    """Decode a lossless JPEG whose scans and restart intervals are given one by one."""
    plain = len(info.scan_ends) == 1 and not info.point_transform
    if plain and not (info.restarts or info.several_tables):
        return decode(frame)
    array = np.zeros((info.rows, info.columns, info.samples), dtype=np.uint16)
    filled = 0
    for part in lossless_parts(frame, info):
        samples = np.asarray(decode(part.stream))
        shape = (part.rows, info.columns, len(part.components))
        if samples.size != np.prod(shape):
            raise SamplesError(f"{samples.size} samples in a part, {np.prod(shape)} expected")
        shifted = samples.reshape(shape).astype(np.uint16) << part.shift
        array[part.row : part.row + part.rows, :, list(part.components)] = shifted
        filled += samples.size
    if filled != array.size:
        raise SamplesError(f"{filled} samples in all parts, {array.size} expected")
    return array


def charls(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """CharLS: JPEG-LS. imagecodecs returns pixels, also of scans that hold one component each."""
    return _fit(imagecodecs.jpegls_decode(frame), info, d)


def openjpeg_pylibjpeg(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """OpenJPEG in pylibjpeg-openjpeg, in strict mode: a code stream cut short is refused.

    JP2 boxes are not shown to it: it would convert what they call sYCC to RGB.
    """
    bare = io.BytesIO(bare_code_stream(frame))
    flat = openjpeg.utils.decode(bare, _OPENJPEG_J2K, reshape=False)
    width = {1: 1, 2: 2, 3: 4, 4: 4}[(info.precision + 7) // 8]
    array = flat.view(f"<{'i' if info.signed else 'u'}{width}")
    if array.size != d.frame_samples:
        raise SamplesError(f"{array.size} samples decoded, {d.frame_samples} expected")
    return _fit(array.reshape(info.rows, info.columns, -1), info, d)


def openjpeg_imagecodecs(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """OpenJPEG in imagecodecs: another build and wrapper; off by one on some lossy colour."""
    return _fit(imagecodecs.jpeg2k_decode(bare_code_stream(frame), numthreads=1), info, d)


def openjph(frame: bytes, info: StreamInfo, d: Description) -> Array:
    """OpenJPH: HTJ2K. Tolerates a code stream cut short and wraps on lossy ones: checks only.

    Components without a component transform come as planes. The shape does not tell: that of
    3 x 3 pixels of three components is the same.
    """
    array = imagecodecs.htj2k_decode(bare_code_stream(frame))
    if info.samples > 1 and not info.transformed:
        array = np.moveaxis(array, 0, -1)
    return _fit(array, info, d)


def jpegxl(frame: bytes, _info: StreamInfo, d: Description) -> Array:
    """libjxl. The stream's precision is not read: the decoder's own integers are checked."""
    array = imagecodecs.jpegxl_decode(frame, numthreads=1)
    if array.dtype.kind != "u":
        raise SamplesError("floating point samples")
    used = int(array.max()).bit_length() if array.size else 0
    if used > d.stored or (d.signed and used >= d.stored):
        raise SamplesError(f"values of {used} bits, {d.stored} stored")
    return to_container(array, d, precision=max(used, 1), stream_signed=d.signed)


def restored_jpeg(frame: bytes) -> bytes:
    """libjxl: the JPEG that was recompressed as JPEG XL, bit for bit."""
    return bytes(imagecodecs.jpegxl_decode_jpeg(frame, numthreads=1))


def rle_packbits(frame: bytes, _info: StreamInfo, d: Description) -> Array:
    """imagecodecs' PackBits, segment by segment (PS3.5 G.3): the most significant byte first.

    A segment may decode to more than its plane where it is padded with zeros, or by the one
    or two bytes that some writers add: never by more bytes than it has.
    """
    planes, width = _planes_of_bytes(frame, d), d.container_bytes
    if d.samples == 1 and width == 2:
        # To shift whole samples takes a third of the time of moving their bytes.
        flat = next(planes).astype("<u2")
        flat <<= 8
        flat |= next(planes)
    else:
        pixels = np.empty((d.rows * d.columns, d.samples, width), dtype=np.uint8)
        for i, plane in enumerate(planes):
            pixels[:, i // width, width - 1 - i % width] = plane
        flat = pixels.reshape(-1)
    array = flat.view(f"<{'i' if d.signed else 'u'}{width}")
    return array.reshape((d.rows, d.columns) if d.samples == 1 else (d.rows, d.columns, -1))


def _planes_of_bytes(frame: bytes, d: Description) -> Iterator[Array]:
    """Yield the segments decoded, ``rows * columns`` bytes each. Raises SamplesError."""
    offsets = check_rle(frame, d)
    pixel_count = d.rows * d.columns
    for i, (start, stop) in enumerate(zip(offsets, [*offsets[1:], len(frame)], strict=True)):
        segment = _unpacked(frame[start:stop], pixel_count)
        surplus = segment[pixel_count:]
        if segment.size < pixel_count or (surplus.size > 2 and surplus.any()):
            raise SamplesError(f"RLE segment {i} holds {segment.size} bytes, not {pixel_count}")
        yield segment[:pixel_count]


def _unpacked(packed: bytes, plane_bytes: int) -> Array:
    """Decode one segment.

    Its last byte may be padding that is no run (a space has been seen): it is left out where the
    plane is full, to the byte, without it.
    """
    try:
        segment = imagecodecs.packbits_decode(packed, out=plane_bytes + len(packed))
    except RuntimeError:
        segment = imagecodecs.packbits_decode(packed[:-1], out=plane_bytes + len(packed))
        if len(segment) != plane_bytes:
            raise
    return np.frombuffer(segment, dtype=np.uint8)


def rle_pylibjpeg(frame: bytes, _info: StreamInfo, d: Description) -> Array:
    """pylibjpeg-rle (Rust). Its output is colour by plane. A panic in it is a BaseException."""
    check_rle(frame, d)
    try:
        planes = pylibjpeg_rle.decode_frame(frame, d.rows * d.columns, d.allocated, "<")
    except BaseException as exc:
        if type(exc).__name__ == "PanicException":  # pyo3's class, which cannot be imported
            raise SamplesError("pylibjpeg-rle panicked") from exc
        raise
    return _planes(planes, d)


def check_rle(frame: bytes, d: Description) -> tuple[int, ...]:
    """Return the offsets of the segments after checking the header (PS3.5 G.5)."""
    if d.allocated not in (8, 16, 32, 64):
        # Neither packed nor unpacked one-bit segments are defined; both have been seen.
        raise SamplesError(f"RLE with {d.allocated} bits allocated")
    if len(frame) < 64:
        raise SamplesError("RLE header cut off")
    count, *offsets = unpack_from("<16I", frame)
    expected = d.samples * d.container_bytes
    if count != expected:
        raise SamplesError(f"{count} RLE segments, {expected} expected")
    used = offsets[:count]
    if used[0] != 64 or any(a >= b for a, b in zip(used, [*used[1:], len(frame)], strict=True)):
        raise SamplesError("RLE segment offsets out of order")
    return tuple(used)


def _planes(planes: bytes | bytearray, d: Description) -> Array:
    if len(planes) != d.frame_array_bytes:
        raise SamplesError(f"{len(planes)} bytes decoded, {d.frame_array_bytes} expected")
    array = np.frombuffer(planes, dtype=f"<{'i' if d.signed else 'u'}{d.container_bytes}")
    if d.samples == 1:
        return array.reshape(d.rows, d.columns)
    return np.ascontiguousarray(np.moveaxis(array.reshape(d.samples, d.rows, d.columns), 0, -1))


def inflate(frame: bytes, _info: StreamInfo, d: Description) -> Array:
    """zlib on one deflated frame (PS3.5 A.4.13), never beyond the announced size."""
    size = _native_frame_bytes(d)
    engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    native = engine.decompress(frame, size + 2)
    if engine.unused_data.strip(b"\0"):
        raise SamplesError("something follows the deflated frame")
    if not engine.eof or not size <= len(native) <= size + (size & 1):
        raise SamplesError(f"{len(native)} bytes inflated, {size} expected")
    return _from_native(native[:size], d)


def inflate_libdeflate(frame: bytes, _info: StreamInfo, d: Description) -> Array:
    """libdeflate in imagecodecs, with room for the announced size only."""
    size = _native_frame_bytes(d)
    native = imagecodecs.deflate_decode(frame, raw=True, out=size + (size & 1))
    if not size <= len(native) <= size + (size & 1):
        raise SamplesError(f"{len(native)} bytes inflated, {size} expected")
    return _from_native(native[:size], d)


def raw(frame: bytes, _info: StreamInfo, d: Description) -> Array:
    """Encapsulated Uncompressed (PS3.5 A.4.11): the fragment is the native frame."""
    size = _native_frame_bytes(d)
    if not size <= len(frame) <= size + (size & 1):
        raise SamplesError(f"{len(frame)} bytes in the fragment, {size} expected")
    return _from_native(frame[:size], d)


def _native_frame_bytes(d: Description) -> int:
    if d.photometric.endswith("_422") or (d.samples > 1 and d.planar not in (0, 1)):
        raise SamplesError("subsampled or undefined layout of colour")
    return (d.frame_samples + 7) // 8 if d.allocated == 1 else d.frame_array_bytes


def _from_native(native: bytes | bytearray, d: Description) -> Array:
    if d.allocated == 1:
        packed = np.frombuffer(native, dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little", count=d.frame_samples)
        return bits.reshape((d.rows, d.columns) if d.samples == 1 else (d.rows, d.columns, -1))
    if d.samples > 1 and d.planar == 1:
        return _planes(native, d)
    return frame_array(native, d)

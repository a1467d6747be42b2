"""The table: which decoders and which encoder serve which kind of code stream, and why.

This file must not know: sockets, files, clocks, logging, settings.
docs/transfer-syntaxes.md is generated from these tables. Order: correctness on the corpus
first, then speed, then licence; none is GPL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bridge.core import decoders, encoders
from bridge.core.codestream import StreamInfo
from bridge.core.pixels import Description
from bridge.core.samples import Array
from bridge.core.syntaxes import (
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    OFFERED_TARGETS,
    RLE,
    Family,
    target_syntax_uid,
)

__all__ = ["DECODERS", "ENCODERS", "OFFERED_TARGETS", "Decoder", "Encoder", "target_syntax_uid"]


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way to decode a family.

    ``fallback``: may stand in when every decoder before it refused (for the first one this is
    meaningless), confirmed by the next in the table if there is one. ``lossless_only``: its
    result on lossy streams is not the reference one. ``checks``: may be the second opinion in
    verification. ``megabytes_s``: megabytes of samples a second, measured on one core with a
    512x512 slice of 12 bits in 16; 0 = nothing to measure.
    """

    name: str
    library: str
    decode: Callable[[bytes, StreamInfo, Description], Array]
    why: str
    fallback: bool = False
    lossless_only: bool = False
    checks: bool = False
    megabytes_s: int = 0


@dataclass(frozen=True, slots=True)
class Encoder:
    """The lossless encoder of one target syntax. ``limits``: what it refuses, for people."""

    name: str
    library: str
    family: Family
    encode: Callable[[Array, Description], bytes]
    limits: str
    colour_transform: bool = False


DECODERS: dict[Family, tuple[Decoder, ...]] = {
    Family.RAW: (Decoder("native", "numpy", decoders.raw, "nothing to decode"),),
    Family.DEFLATE: (
        Decoder(
            "zlib",
            "zlib",
            decoders.inflate,
            "bounded output, sees the stream's end",
            megabytes_s=310,
        ),
        Decoder(
            "libdeflate",
            "libdeflate (imagecodecs)",
            decoders.inflate_libdeflate,
            "independent of zlib",
            checks=True,
            megabytes_s=800,
        ),
    ),
    Family.RLE: (
        Decoder(
            "packbits",
            "imagecodecs",
            decoders.rle_packbits,
            "right on every corpus file, as fast as pylibjpeg-rle, never takes its process down",
            megabytes_s=840,
        ),
        Decoder(
            "pylibjpeg-rle",
            "pylibjpeg-rle",
            decoders.rle_pylibjpeg,
            "independent; panics on damaged segments, so it only checks",
            checks=True,
            megabytes_s=800,
        ),
    ),
    Family.JPEG_DCT: (
        Decoder(
            "libjpeg-turbo",
            "libjpeg-turbo (imagecodecs)",
            decoders.jpeg8,
            "8 and 12 bits, all DCT processes, agrees with GDCM and DCMTK; no second decoder "
            "gives the same bits, so none stands in",
            megabytes_s=500,
        ),
    ),
    Family.JPEG_LOSSLESS: (
        Decoder(
            "libjpeg-turbo",
            "libjpeg-turbo (imagecodecs)",
            decoders.jpeg8,
            "right modulo 65536, fastest",
            megabytes_s=310,
        ),
        Decoder(
            "jpegsof3",
            "jpegsof3 (imagecodecs)",
            decoders.jpegsof3,
            "independent; stands in only where liblj92 agrees, for it decodes some damage",
            fallback=True,
            checks=True,
            megabytes_s=140,
        ),
        Decoder(
            "liblj92",
            "liblj92 (imagecodecs)",
            decoders.ljpeg,
            "independent; silent about a scan that is cut short, so it only checks",
            checks=True,
            megabytes_s=200,
        ),
    ),
    Family.JPEG_LS: (
        Decoder(
            "CharLS",
            "CharLS (imagecodecs)",
            decoders.charls,
            "the only permissive implementation; refuses damaged streams",
            megabytes_s=115,
        ),
    ),
    Family.J2K: (
        Decoder(
            "OpenJPEG",
            "OpenJPEG (pylibjpeg-openjpeg)",
            decoders.openjpeg_pylibjpeg,
            "right on every corpus file; strict about streams that are cut short",
            megabytes_s=18,
        ),
        Decoder(
            "OpenJPEG/imagecodecs",
            "OpenJPEG (imagecodecs)",
            decoders.openjpeg_imagecodecs,
            "another build and another wrapper of the same library; off by one on some lossy "
            "colour, so lossless streams only",
            fallback=True,
            lossless_only=True,
            checks=True,
            megabytes_s=19,
        ),
    ),
    Family.HTJ2K: (
        Decoder(
            "OpenJPEG",
            "OpenJPEG (pylibjpeg-openjpeg)",
            decoders.openjpeg_pylibjpeg,
            "right on every corpus file, lossy ones included",
            megabytes_s=170,
        ),
        Decoder(
            "OpenJPH",
            "OpenJPH (imagecodecs)",
            decoders.openjph,
            "independent; wraps 255 to 0 on lossy streams and tolerates cut ones, so it only "
            "checks lossless",
            lossless_only=True,
            checks=True,
            megabytes_s=420,
        ),
    ),
    Family.JPEG_XL: (
        Decoder(
            "libjxl",
            "libjxl (imagecodecs)",
            decoders.jpegxl,
            "the only implementation; refuses damaged streams",
            megabytes_s=22,
        ),
    ),
}
"""By family, in order of preference."""

ENCODERS: dict[str, Encoder] = {
    RLE: Encoder(
        "pylibjpeg-rle",
        "pylibjpeg-rle",
        Family.RLE,
        encoders.rle,
        "8, 16 and 32 bits allocated, at most 15 segments",
    ),
    JPEG_2000_LOSSLESS: Encoder(
        "OpenJPEG/imagecodecs",
        "OpenJPEG (imagecodecs)",
        Family.J2K,
        encoders.jpeg_2000,
        "to 24 bits; RGB as YBR_RCT",
        colour_transform=True,
    ),
    HTJ2K_LOSSLESS: Encoder(
        "OpenJPH",
        "OpenJPH (imagecodecs)",
        Family.HTJ2K,
        encoders.htj2k,
        "8 and 16 bits allocated; RGB as YBR_RCT",
        colour_transform=True,
    ),
    JPEG_LS_LOSSLESS: Encoder(
        "CharLS",
        "CharLS (imagecodecs)",
        Family.JPEG_LS,
        encoders.jpeg_ls,
        "8 and 16 bits allocated",
    ),
    JPEG_LOSSLESS_SV1: Encoder(
        "libjpeg-turbo",
        "libjpeg-turbo (imagecodecs)",
        Family.JPEG_LOSSLESS,
        encoders.jpeg_lossless_sv1,
        "8 and 16 bits allocated",
    ),
}
"""By target syntax. Every frame is decoded again and compared before it is sent."""

"""The table: which decoders and which encoder serve which kind of code stream, and why.

This file must not know: sockets, files, clocks, logging, settings.
docs/reference/transfer-syntaxes.md is generated from these tables. Order: correctness on the corpus
first, then speed, then licence; none is GPL.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bridge.dicom import decoders, encoders
from bridge.dicom.codestream import StreamInfo
from bridge.dicom.description import Description
from bridge.dicom.samples import Array
from bridge.dicom.syntaxes import (
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    OFFERED_TARGETS,
    RLE,
    Family,
    target_syntax_uid,
)

__all__ = [
    "DECODERS",
    "ENCODERS",
    "OFFERED_TARGETS",
    "Decoder",
    "DecoderRole",
    "DecoderUse",
    "Encoder",
    "StreamKind",
    "kinds_of",
    "target_syntax_uid",
]


class StreamKind(StrEnum):
    """What sets code streams apart for decoders. A stream may be of several kinds, or plain."""

    PLAIN = "plain"
    SUBSAMPLED = "subsampled components"
    SEPARATE_SCANS = "separate scans"
    RESTARTS = "restart intervals"
    TABLES = "several Huffman tables"
    POINT_TRANSFORM = "point transform"
    PROGRESSIVE = "progressive"
    PRECISION = "more than 8 bits"
    LOSSY = "lossy"


class DecoderRole(StrEnum):
    """What a decoder may do with a kind of stream, least first."""

    NEITHER = "neither"
    CONFIRMS = "confirms"
    DECODES = "decodes"


_RANK = list(DecoderRole)


@dataclass(frozen=True, slots=True)
class DecoderUse:
    """One cell of the table: a role, and what was measured (test_decoder_table.py)."""

    role: DecoderRole
    why: str


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way to decode a family.

    ``engine``: the code that does the work. Two decoders of one engine make the same mistakes.
    ``uses``: its role for every kind of stream of the family. ``damage``: what it does with a
    damaged stream. ``megabytes_s``: megabytes of samples a second, measured on one core with a
    512x512 slice of 12 bits in 16; 0 = nothing to measure.
    """

    name: str
    library: str
    engine: str
    decode: Callable[[bytes, StreamInfo, Description], Array]
    uses: Mapping[StreamKind, DecoderUse]
    damage: str = ""
    megabytes_s: int = 0

    def role(self, kinds: Collection[StreamKind]) -> DecoderRole:
        """Return what it may do with a stream of these kinds: the least of its roles."""
        return min((self.uses[kind].role for kind in kinds), key=_RANK.index)


@dataclass(frozen=True, slots=True)
class Encoder:
    """The lossless encoder of one target syntax. ``limits``: what it refuses, for people."""

    name: str
    library: str
    family: Family
    encode: Callable[[Array, Description], bytes]
    limits: str
    colour_transform: bool = False


def _decodes(why: str) -> DecoderUse:
    return DecoderUse(DecoderRole.DECODES, why)


def _confirms(why: str) -> DecoderUse:
    return DecoderUse(DecoderRole.CONFIRMS, why)


def _neither(why: str) -> DecoderUse:
    return DecoderUse(DecoderRole.NEITHER, why)


_BY_PARTS = (
    "wrong or refused on the whole stream; right on each scan and restart interval alone, with a "
    "table for each component. The bridge gives it these parts"
)
_ANOTHER_BUILD = (
    "right; another build and wrapper of the same library: it finds mistakes of build and wrapper, "
    "not those of OpenJPEG"
)
_SUBSAMPLED_RGB = (
    "converts 4:2:0 and 4:2:2 to RGB without an error; refuses other samplings or fills them up "
    "(measured: both wrappers)"
)

DECODERS: dict[Family, tuple[Decoder, ...]] = {
    Family.RAW: (
        Decoder(
            "native",
            "numpy",
            "numpy",
            decoders.raw,
            {StreamKind.PLAIN: _decodes("nothing to decode")},
            damage="a wrong length is refused",
        ),
    ),
    Family.DEFLATE: (
        Decoder(
            "zlib",
            "zlib",
            "zlib",
            decoders.inflate,
            {StreamKind.PLAIN: _decodes("right; bounded output, sees the stream's end")},
            damage="refused, or of a wrong length",
            megabytes_s=310,
        ),
        Decoder(
            "libdeflate",
            "libdeflate (imagecodecs)",
            "libdeflate",
            decoders.inflate_libdeflate,
            {StreamKind.PLAIN: _confirms("right; independent of zlib")},
            damage="refused, or of a wrong length",
            megabytes_s=800,
        ),
    ),
    Family.RLE: (
        Decoder(
            "packbits",
            "imagecodecs",
            "imagecodecs",
            decoders.rle_packbits,
            {StreamKind.PLAIN: _decodes("right on every corpus file, never crashes its process")},
            damage="a segment of a wrong length is refused",
            megabytes_s=840,
        ),
        Decoder(
            "pylibjpeg-rle",
            "pylibjpeg-rle",
            "pylibjpeg-rle",
            decoders.rle_pylibjpeg,
            {StreamKind.PLAIN: _confirms("right; independent")},
            damage="panics on damaged segments",
            megabytes_s=800,
        ),
    ),
    Family.JPEG_DCT: (
        Decoder(
            "libjpeg-turbo",
            "libjpeg-turbo (imagecodecs)",
            "libjpeg",
            decoders.jpeg8,
            {
                StreamKind.PLAIN: _decodes(
                    "agrees with GDCM and DCMTK; no independent decoder gives the same bits"
                ),
                StreamKind.SUBSAMPLED: _decodes(
                    "the same bits as DCMTK and GDCM, except if chroma is halved in height only: "
                    "it interpolates, and those two repeat (no standard says which is right)"
                ),
                StreamKind.SEPARATE_SCANS: _decodes("the same bits as DCMTK and GDCM"),
                StreamKind.RESTARTS: _decodes("the same bits as DCMTK and GDCM"),
                StreamKind.PROGRESSIVE: _decodes("the same bits as DCMTK and GDCM"),
                StreamKind.PRECISION: _decodes(
                    "12 bits: as DCMTK; 9 to 11 bits: decoded as 12, refused if a value exceeds "
                    "their range"
                ),
            },
            damage="fills with grey and reports no error: the bridge looks for the cut itself",
            megabytes_s=500,
        ),
    ),
    Family.JPEG_LOSSLESS: (
        Decoder(
            "libjpeg-turbo",
            "libjpeg-turbo (imagecodecs)",
            "libjpeg",
            decoders.jpeg8,
            {
                StreamKind.PLAIN: _decodes("right modulo 65536, 2 to 16 bits, all predictors"),
                StreamKind.SUBSAMPLED: _decodes("right: repeats chroma, interpolates nothing"),
                StreamKind.SEPARATE_SCANS: _decodes("right, as DCMTK and GDCM"),
                StreamKind.RESTARTS: _decodes("right, as DCMTK and GDCM"),
                StreamKind.TABLES: _decodes("right, as DCMTK and GDCM"),
                StreamKind.POINT_TRANSFORM: _decodes("right, as DCMTK and GDCM"),
            },
            damage="refuses, or fills with grey: the bridge looks for the cut itself",
            megabytes_s=310,
        ),
        Decoder(
            "jpegsof3",
            "jpegsof3 (imagecodecs)",
            "jpegsof3",
            decoders.jpegsof3,
            {
                StreamKind.PLAIN: _confirms("right; independent"),
                StreamKind.SUBSAMPLED: _neither("wrong or refused"),
                StreamKind.SEPARATE_SCANS: _confirms(_BY_PARTS),
                StreamKind.RESTARTS: _confirms(_BY_PARTS),
                StreamKind.TABLES: _confirms(_BY_PARTS),
                StreamKind.POINT_TRANSFORM: _confirms(_BY_PARTS),
            },
            damage="decodes some to noise that DCMTK and libjpeg-turbo refuse: it only confirms",
            megabytes_s=140,
        ),
        Decoder(
            "liblj92",
            "liblj92 (imagecodecs)",
            "liblj92",
            decoders.ljpeg,
            {
                StreamKind.PLAIN: _confirms("right; independent"),
                StreamKind.SUBSAMPLED: _neither("wrong or refused"),
                StreamKind.SEPARATE_SCANS: _confirms(_BY_PARTS),
                StreamKind.RESTARTS: _confirms(_BY_PARTS),
                StreamKind.TABLES: _confirms(_BY_PARTS),
                StreamKind.POINT_TRANSFORM: _confirms(_BY_PARTS),
            },
            damage="decodes some to the same noise as jpegsof3, and cut scans: it only confirms",
            megabytes_s=200,
        ),
    ),
    Family.JPEG_LS: (
        Decoder(
            "CharLS",
            "CharLS (imagecodecs)",
            "CharLS",
            decoders.charls,
            {
                StreamKind.PLAIN: _decodes("right; the only permissive implementation"),
                StreamKind.LOSSY: _decodes("right, also where scans differ in NEAR"),
                StreamKind.SEPARATE_SCANS: _decodes("right, as DCMTK and GDCM"),
                StreamKind.RESTARTS: _decodes("right (DCMTK refuses them)"),
                StreamKind.SUBSAMPLED: _neither("refused"),
                StreamKind.POINT_TRANSFORM: _neither("refused"),
            },
            damage="two thirds of all flips are refused",
            megabytes_s=115,
        ),
    ),
    Family.J2K: (
        Decoder(
            "OpenJPEG",
            "OpenJPEG (pylibjpeg-openjpeg)",
            "OpenJPEG",
            decoders.openjpeg_pylibjpeg,
            {
                StreamKind.PLAIN: _decodes("right on every corpus file"),
                StreamKind.LOSSY: _decodes("right on every corpus file"),
                StreamKind.SUBSAMPLED: _neither(_SUBSAMPLED_RGB),
            },
            damage="a stream that is cut short is refused (strict mode)",
            megabytes_s=18,
        ),
        Decoder(
            "OpenJPEG/imagecodecs",
            "OpenJPEG (imagecodecs)",
            "OpenJPEG",
            decoders.openjpeg_imagecodecs,
            {
                StreamKind.PLAIN: _confirms(_ANOTHER_BUILD),
                StreamKind.LOSSY: _neither("was off by one on some real lossy colour images"),
                StreamKind.SUBSAMPLED: _neither(_SUBSAMPLED_RGB),
            },
            damage="decodes cut streams: it only confirms",
            megabytes_s=19,
        ),
    ),
    Family.HTJ2K: (
        Decoder(
            "OpenJPEG",
            "OpenJPEG (pylibjpeg-openjpeg)",
            "OpenJPEG",
            decoders.openjpeg_pylibjpeg,
            {
                StreamKind.PLAIN: _decodes("right on every corpus file"),
                StreamKind.LOSSY: _decodes("right on every corpus file"),
                StreamKind.SUBSAMPLED: _neither(_SUBSAMPLED_RGB),
            },
            damage="a stream that is cut short is refused (strict mode)",
            megabytes_s=170,
        ),
        Decoder(
            "OpenJPH",
            "OpenJPH (imagecodecs)",
            "OpenJPH",
            decoders.openjph,
            {
                StreamKind.PLAIN: _confirms("right; independent"),
                StreamKind.LOSSY: _neither("wraps 255 to 0"),
                StreamKind.SUBSAMPLED: _neither("refused"),
            },
            damage="decodes cut streams: it only confirms",
            megabytes_s=420,
        ),
    ),
    Family.JPEG_XL: (
        Decoder(
            "libjxl",
            "libjxl (imagecodecs)",
            "libjxl",
            decoders.jpegxl,
            {
                StreamKind.PLAIN: _decodes("right; the only implementation"),
                StreamKind.LOSSY: _decodes("right; the only implementation"),
            },
            damage="two thirds of all flips are refused",
            megabytes_s=22,
        ),
    ),
}
"""By family, in order of preference. Only the first decoder of a family decodes. Every other one
was seen to make an image of a damaged stream that the first one refuses; what the first one
refuses is parked."""


def kinds_of(info: StreamInfo, *, lossy: bool) -> tuple[StreamKind, ...]:
    """Return the kinds of a stream among those that matter in its family; plain if none.

    ``lossy``: the samples may differ from those that were encoded; the transfer syntax may say so
    where the stream does not.
    """
    is_dct = info.family is Family.JPEG_DCT
    found = tuple(
        kind
        for kind, holds in (
            (StreamKind.SUBSAMPLED, info.subsampled),
            (StreamKind.SEPARATE_SCANS, len(info.scan_ends) > 1 and not info.progressive),
            (StreamKind.RESTARTS, info.restarts),
            (StreamKind.TABLES, info.several_tables),
            (StreamKind.POINT_TRANSFORM, info.point_transform > 0),
            (StreamKind.PROGRESSIVE, info.progressive),
            (StreamKind.PRECISION, is_dct and info.precision > 8),
            (StreamKind.LOSSY, lossy and StreamKind.LOSSY in DECODERS[info.family][0].uses),
        )
        if holds
    )
    return found or (StreamKind.PLAIN,)


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

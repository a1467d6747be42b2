"""Transfer syntaxes: what each UID means, and which ones we write.

This file must not know: sockets, files, clocks, logging, settings.
Sources: DICOM PS3.6 Table A-1 (registry) and PS3.5 section 10 and Annex A (encodings).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bridge.errors import InstanceError
from bridge.model import Reason

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_SPECTRAL = "1.2.840.10008.1.2.4.53"
JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.55"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEG_XL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"
RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"


class Kind(StrEnum):
    """How pixel data is carried, as far as the transcoder cares."""

    NATIVE = "native"
    ENCAPSULATED = "encapsulated"
    VIDEO = "video"
    UNSUPPORTED = "unsupported"


class Family(StrEnum):
    """Which code stream a fragment holds."""

    NONE = "none"
    RAW = "raw"
    RLE = "rle"
    DEFLATE = "deflate"
    JPEG_DCT = "jpeg-dct"
    JPEG_LOSSLESS = "jpeg-lossless"
    JPEG_LS = "jpeg-ls"
    J2K = "j2k"
    HTJ2K = "htj2k"
    JPEG_XL = "jpeg-xl"


@dataclass(frozen=True, slots=True)
class Syntax:
    """One transfer syntax. ``lossless`` is what the syntax guarantees, not what a file uses."""

    uid: str
    keyword: str
    kind: Kind
    family: Family = Family.NONE
    lossless: bool = True
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False

    @property
    def encapsulated(self) -> bool:
        """True when Pixel Data is a sequence of fragments (PS3.5 A.4)."""
        return self.kind is Kind.ENCAPSULATED


def _encapsulated(uid: str, keyword: str, family: Family, *, lossless: bool = True) -> Syntax:
    return Syntax(uid, keyword, Kind.ENCAPSULATED, family, lossless)


_NATIVE = (
    Syntax(IMPLICIT_LE, "ImplicitVRLittleEndian", Kind.NATIVE, implicit=True),
    Syntax(EXPLICIT_LE, "ExplicitVRLittleEndian", Kind.NATIVE),
    Syntax(DEFLATED_LE, "DeflatedExplicitVRLittleEndian", Kind.NATIVE, deflated=True),
    Syntax(EXPLICIT_BE, "ExplicitVRBigEndian", Kind.NATIVE, big_endian=True),
)

_ENCAPSULATED = (
    _encapsulated(
        ENCAPSULATED_UNCOMPRESSED, "EncapsulatedUncompressedExplicitVRLittleEndian", Family.RAW
    ),
    _encapsulated(JPEG_BASELINE, "JPEGBaseline8Bit", Family.JPEG_DCT, lossless=False),
    _encapsulated(JPEG_EXTENDED, "JPEGExtended12Bit", Family.JPEG_DCT, lossless=False),
    _encapsulated(
        JPEG_SPECTRAL,
        "JPEGSpectralSelectionNonHierarchical68",
        Family.JPEG_DCT,
        lossless=False,
    ),
    _encapsulated(
        JPEG_PROGRESSIVE,
        "JPEGFullProgressionNonHierarchical1012",
        Family.JPEG_DCT,
        lossless=False,
    ),
    _encapsulated(JPEG_LOSSLESS, "JPEGLossless", Family.JPEG_LOSSLESS),
    _encapsulated(JPEG_LOSSLESS_SV1, "JPEGLosslessSV1", Family.JPEG_LOSSLESS),
    _encapsulated(JPEG_LS_LOSSLESS, "JPEGLSLossless", Family.JPEG_LS),
    _encapsulated(JPEG_LS_NEAR, "JPEGLSNearLossless", Family.JPEG_LS, lossless=False),
    _encapsulated(JPEG_2000_LOSSLESS, "JPEG2000Lossless", Family.J2K),
    _encapsulated(JPEG_2000, "JPEG2000", Family.J2K, lossless=False),
    _encapsulated(JPEG_XL_LOSSLESS, "JPEGXLLossless", Family.JPEG_XL),
    _encapsulated(JPEG_XL_RECOMPRESSION, "JPEGXLJPEGRecompression", Family.JPEG_XL, lossless=False),
    _encapsulated(JPEG_XL, "JPEGXL", Family.JPEG_XL, lossless=False),
    _encapsulated(HTJ2K_LOSSLESS, "HTJ2KLossless", Family.HTJ2K),
    _encapsulated(HTJ2K_LOSSLESS_RPCL, "HTJ2KLosslessRPCL", Family.HTJ2K),
    _encapsulated(HTJ2K, "HTJ2K", Family.HTJ2K, lossless=False),
    _encapsulated(RLE, "RLELossless", Family.RLE),
    _encapsulated(DEFLATED_FRAME, "DeflatedImageFrameCompression", Family.DEFLATE),
)

# One instance is a stream with inter-frame prediction, or its pixels are elsewhere (JPIP), or
# its components belong to several images (PS3.5 A.4.4 to A.4.12, A.6, A.7).
_VIDEO = {
    "1.2.840.10008.1.2.4.92": "JPEG2000MCLossless",
    "1.2.840.10008.1.2.4.93": "JPEG2000MC",
    "1.2.840.10008.1.2.4.94": "JPIPReferenced",
    "1.2.840.10008.1.2.4.95": "JPIPReferencedDeflate",
    "1.2.840.10008.1.2.4.100": "MPEG2MPML",
    "1.2.840.10008.1.2.4.100.1": "MPEG2MPMLF",
    "1.2.840.10008.1.2.4.101": "MPEG2MPHL",
    "1.2.840.10008.1.2.4.101.1": "MPEG2MPHLF",
    "1.2.840.10008.1.2.4.102": "MPEG4HP41",
    "1.2.840.10008.1.2.4.102.1": "MPEG4HP41F",
    "1.2.840.10008.1.2.4.103": "MPEG4HP41BD",
    "1.2.840.10008.1.2.4.103.1": "MPEG4HP41BDF",
    "1.2.840.10008.1.2.4.104": "MPEG4HP422D",
    "1.2.840.10008.1.2.4.104.1": "MPEG4HP422DF",
    "1.2.840.10008.1.2.4.105": "MPEG4HP423D",
    "1.2.840.10008.1.2.4.105.1": "MPEG4HP423DF",
    "1.2.840.10008.1.2.4.106": "MPEG4HP42STEREO",
    "1.2.840.10008.1.2.4.106.1": "MPEG4HP42STEREOF",
    "1.2.840.10008.1.2.4.107": "HEVCMP51",
    "1.2.840.10008.1.2.4.108": "HEVCM10P51",
    "1.2.840.10008.1.2.4.204": "JPIPHTJ2KReferenced",
    "1.2.840.10008.1.2.4.205": "JPIPHTJ2KReferencedDeflate",
    "1.2.840.10008.1.2.7.1": "SMPTEST211020UncompressedProgressiveActiveVideo",
    "1.2.840.10008.1.2.7.2": "SMPTEST211020UncompressedInterlacedActiveVideo",
    "1.2.840.10008.1.2.7.3": "SMPTEST211030PCMDigitalAudio",
}

# Retired or foreign: known by name, so that the message can say what the file claims to be.
_UNSUPPORTED = {
    "1.2.840.10008.1.2.4.52": "JPEGExtended35 (retired, arithmetic coding)",
    "1.2.840.10008.1.2.4.54": "JPEGSpectralSelectionNonHierarchical79 (retired)",
    "1.2.840.10008.1.2.4.56": "JPEGFullProgressionNonHierarchical1113 (retired)",
    "1.2.840.10008.1.2.4.58": "JPEGLosslessNonHierarchical15 (retired, arithmetic coding)",
    "1.2.840.10008.1.2.4.59": "JPEGExtendedHierarchical1618 (retired)",
    "1.2.840.10008.1.2.4.60": "JPEGExtendedHierarchical1719 (retired)",
    "1.2.840.10008.1.2.4.61": "JPEGSpectralSelectionHierarchical2022 (retired)",
    "1.2.840.10008.1.2.4.62": "JPEGSpectralSelectionHierarchical2123 (retired)",
    "1.2.840.10008.1.2.4.63": "JPEGFullProgressionHierarchical2426 (retired)",
    "1.2.840.10008.1.2.4.64": "JPEGFullProgressionHierarchical2527 (retired)",
    "1.2.840.10008.1.2.4.65": "JPEGLosslessHierarchical28 (retired)",
    "1.2.840.10008.1.2.4.66": "JPEGLosslessHierarchical29 (retired)",
    "1.2.840.10008.1.2.6.1": "RFC2557MIMEEncapsulation (retired)",
    "1.2.840.10008.1.2.6.2": "XMLEncoding (retired)",
    "1.2.840.10008.1.20": "Papyrus3ImplicitVRLittleEndian (retired)",
    "1.2.840.113619.5.2": "GE private, implicit VR with big endian pixel data",
}

SYNTAXES: dict[str, Syntax] = {
    **{syntax.uid: syntax for syntax in _NATIVE + _ENCAPSULATED},
    **{uid: Syntax(uid, name, Kind.VIDEO) for uid, name in _VIDEO.items()},
    **{uid: Syntax(uid, name, Kind.UNSUPPORTED) for uid, name in _UNSUPPORTED.items()},
}

OFFERED_TARGETS: dict[str, Syntax] = {
    uid: SYNTAXES[uid]
    for uid in (
        EXPLICIT_LE,
        IMPLICIT_LE,
        DEFLATED_LE,
        RLE,
        JPEG_2000_LOSSLESS,
        HTJ2K_LOSSLESS,
        JPEG_LS_LOSSLESS,
        JPEG_LOSSLESS_SV1,
    )
}
"""What we write: uncompressed and lossless only (a lossy target would need a new UID)."""


def syntax_of(uid: str) -> Syntax:
    """Return what ``uid`` means; an unknown UID is a Syntax of kind UNSUPPORTED."""
    return SYNTAXES.get(uid) or Syntax(uid, "unknown transfer syntax", Kind.UNSUPPORTED)


def syntax_refusal(syntax: Syntax) -> InstanceError | None:
    """Return why a syntax is never decoded, whatever is in the file; None where it may be."""
    match syntax.kind:
        case Kind.VIDEO:
            text = f"{syntax.keyword} ({syntax.uid}): video or referenced pixel data."
            return InstanceError(Reason.VIDEO, text)
        case Kind.UNSUPPORTED:
            text = f"{syntax.keyword} ({syntax.uid}) is not supported."
            return InstanceError(Reason.UNSUPPORTED_SYNTAX, text)
        case _:
            return None


def keyword_of(uid: str) -> str:
    """Name a transfer syntax for people: its keyword, or what it says of itself."""
    return SYNTAXES[uid].keyword if uid in SYNTAXES else uid


def target_syntax_uid(name_or_uid: str) -> str:
    """Return the UID of an offered target syntax, given its DICOM keyword or UID.

    Raises ValueError, listing what is accepted.
    """
    wanted = name_or_uid.strip()
    for syntax in OFFERED_TARGETS.values():
        if wanted == syntax.uid or wanted.lower() == syntax.keyword.lower():
            return syntax.uid
    accepted = ", ".join(f"{s.keyword} ({s.uid})" for s in OFFERED_TARGETS.values())
    raise ValueError(f"{wanted!r} is not an offered transfer syntax. Accepted: {accepted}")

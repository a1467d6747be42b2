"""The colour table: what the decoded samples are called, or why no name is certain.

This file must not know: sockets, files, clocks, logging, settings.
PS3.3 C.7.6.3.1.2 (Photometric Interpretation); PS3.5 8.2 (what each code stream may carry).
Samples are never converted from one colour space to another. The label that is written follows
from what the code stream does and what the header says; where they contradict, the instance is
refused. docs/reference/transfer-syntaxes.md is generated from the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bridge.dicom.codestream import StreamInfo
from bridge.dicom.description import Description
from bridge.dicom.syntaxes import Family
from bridge.errors import InstanceError
from bridge.model import Reason


class Claim(StrEnum):
    """What a code stream itself says about the colour of its three components."""

    NOTHING = "nothing"
    RGB = "RGB"
    YCBCR = "YCbCr"
    TRANSFORMED = "component transform"
    CONFLICT = "contradicts itself"


NATIVE = (Family.NONE, Family.RAW, Family.DEFLATE)
"""No code stream, or one that is a string of bytes: neither can say anything about colour."""
JPEG = (Family.JPEG_DCT, Family.JPEG_LOSSLESS, Family.JPEG_LS)
JPEG_2000 = (Family.J2K, Family.HTJ2K)

COMPONENTS = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "HSV": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_PARTIAL_422": 3,
    "YBR_PARTIAL_420": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
    "XYB": 3,
    "ARGB": 4,
    "CMYK": 4,
}
"""Samples Per Pixel that each Photometric Interpretation means."""

_FULL = ("YBR_FULL", "YBR_FULL_422")
_MCT = ("YBR_RCT", "YBR_ICT")


@dataclass(frozen=True, slots=True)
class Cell:
    """What is written for these families, labels and statements of the code stream.

    ``written``: the Photometric Interpretation of the decoded samples, or "" to refuse them.
    ``trusted``: what is written instead of a refusal where the code stream is trusted
    (BRIDGE_ON_WRONG_LABEL=decode), or "".
    """

    families: tuple[Family, ...]
    labels: tuple[str, ...]
    said: tuple[Claim, ...]
    written: str
    why: str
    trusted: str = ""


TABLE: tuple[Cell, ...] = (
    Cell((*NATIVE, Family.RLE), ("RGB",), (Claim.NOTHING,), "RGB", "nothing is transformed"),
    Cell(
        (*NATIVE, Family.RLE),
        _FULL,
        (Claim.NOTHING,),
        "YBR_FULL",
        "nothing is transformed; chroma has full resolution, or is brought to it",
    ),
    Cell(
        JPEG,
        ("RGB",),
        (Claim.NOTHING, Claim.RGB),
        "RGB",
        "the coded samples; they are not converted",
    ),
    Cell(
        JPEG,
        _FULL,
        (Claim.NOTHING, Claim.YCBCR),
        "YBR_FULL",
        "the coded samples, chroma at full resolution; a conversion to RGB would round",
    ),
    Cell(
        (Family.JPEG_DCT,),
        ("RGB",),
        (Claim.YCBCR,),
        "",
        "JFIF, Adobe transform 1 or subsampled chroma say YCbCr, the label says RGB",
        trusted="YBR_FULL",
    ),
    Cell(
        (Family.JPEG_DCT,),
        _FULL,
        (Claim.RGB,),
        "",
        "Adobe transform 0 or the component identifiers R, G, B say RGB, the label says YCbCr",
        trusted="RGB",
    ),
    Cell(
        JPEG_2000,
        ("RGB",),
        (Claim.NOTHING, Claim.TRANSFORMED),
        "RGB",
        "the decoder undoes a component transform, which gives what the encoder got",
    ),
    Cell(
        JPEG_2000,
        _MCT,
        (Claim.TRANSFORMED,),
        "RGB",
        "the decoder undoes the component transform, which is defined on RGB",
    ),
    Cell(
        JPEG_2000,
        _FULL,
        (Claim.NOTHING, Claim.YCBCR),
        "YBR_FULL",
        "no component transform: the coded samples (a JP2 box that says sRGB is ignored: many "
        "writers add it to anything)",
    ),
    Cell(
        JPEG_2000,
        _MCT,
        (Claim.NOTHING, Claim.YCBCR),
        "",
        "the label needs a component transform, the code stream has none (PS3.5 8.2.4)",
    ),
    Cell(
        JPEG_2000,
        _FULL,
        (Claim.TRANSFORMED,),
        "",
        "a component transform is defined on RGB, the label says that YCbCr was encoded",
    ),
    Cell(
        (Family.JPEG_XL,),
        ("RGB", *_MCT),
        (Claim.NOTHING, Claim.RGB, Claim.TRANSFORMED),
        "RGB",
        "libjxl undoes every transform of JPEG XL",
    ),
    Cell(
        (Family.JPEG_XL,),
        ("XYB",),
        (Claim.NOTHING, Claim.TRANSFORMED),
        "RGB",
        "libjxl undoes XYB",
    ),
    Cell((Family.JPEG_XL,), ("XYB",), (Claim.RGB,), "", "the code stream is not coded in XYB"),
    Cell(
        (*NATIVE, Family.RLE, *JPEG, *JPEG_2000, Family.JPEG_XL),
        tuple(name for name, count in COMPONENTS.items() if count == 3),
        tuple(Claim),
        "",
        "the label contradicts the code stream",
    ),
)
"""For three samples a pixel. The first cell that fits decides; the last one fits everything."""


def claim_of(info: StreamInfo) -> Claim:
    """Return what the code stream says about its components."""
    if info.family is Family.JPEG_XL:
        # None: the header was not read that far. False: not in XYB, so the samples are RGB.
        return {True: Claim.TRANSFORMED, False: Claim.RGB, None: Claim.NOTHING}[info.transformed]
    if info.transformed:
        return Claim.CONFLICT if info.colour == "ybr" else Claim.TRANSFORMED
    return {
        "": Claim.NOTHING,
        "rgb": Claim.RGB,
        "ybr": Claim.YCBCR,
        "conflict": Claim.CONFLICT,
    }[info.colour]


def cell_of(family: Family, label: str, said: Claim) -> Cell | None:
    """Return the cell for three samples a pixel, or None for a label that is not in the table."""
    for cell in TABLE:
        if family in cell.families and label in cell.labels and said in cell.said:
            return cell
    return None


def decoded_photometric(d: Description, info: StreamInfo, *, trusts_stream: bool = False) -> str:
    """Return the Photometric Interpretation of the samples that decoding yields.

    ``trusts_stream``: where header and markers of a JPEG contradict each other, believe the
    markers. Raises InstanceError where no name is certain.
    """
    name = d.photometric
    if COMPONENTS.get(name, d.samples) != d.samples:
        raise _refusal(name, f"{d.samples} samples a pixel")
    if info.family in (Family.JPEG_DCT, Family.JPEG_XL) and d.samples > 3:
        raise _refusal(name, f"four components in {info.family.value} are not decoded here")
    if d.samples != 3:
        if info.transformed and info.family is not Family.JPEG_XL:
            raise _refusal(name, f"a component transform on {d.samples} samples a pixel")
        return name
    cell = cell_of(info.family, name, claim_of(info))
    if cell is None:
        raise _refusal(name, f"no name for three samples a pixel in {info.family.value}")
    written = cell.written or (cell.trusted if trusts_stream else "")
    if not written:
        raise _refusal(name, cell.why)
    return written


def trusted_photometric(d: Description, info: StreamInfo) -> str:
    """Return what is written only because the code stream is believed against the label, or ""."""
    if d.samples != 3:
        return ""
    cell = cell_of(info.family, d.photometric, claim_of(info))
    return cell.trusted if cell and not cell.written else ""


def _refusal(name: str, why: str) -> InstanceError:
    shown = name if name in COMPONENTS else "of this file" if name else "that is missing"
    return InstanceError(
        Reason.UNDECODABLE, f"The Photometric Interpretation {shown} cannot be right: {why}."
    )

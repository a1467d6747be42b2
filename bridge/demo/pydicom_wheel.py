"""The real images inside the pydicom wheel, as they are.

Nothing is downloaded: a file is read from the installed package or not at all. Two files of the
wheel may share their UIDs, and Orthanc would take them for one instance; such a file gets another
SOP Instance UID of the same length, byte for byte, and nothing else in it changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import Dataset, dcmread

from bridge.errors import ConfigurationError

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


class Identity(Enum):
    """Whose UIDs a file of the wheel goes by."""

    OWN = auto()
    CHANGED = auto()
    """Another SOP Instance UID: it shares its own with another file of the list."""
    ADDED = auto()
    """It has no study and no patient, and Orthanc would refuse it: ours."""


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file to take. ``same_as`` names the file that holds the same image uncompressed."""

    name: str
    note: str
    same_as: str = ""
    identity: Identity = Identity.OWN


CHANGED, ADDED = Identity.CHANGED, Identity.ADDED

# Not taken: SC_rgb_jpeg.dcm (implicit VR under a syntax whose VR is explicit), MR_truncated.dcm
# (pixel data cut short), badVR.dcm, the embedded-delimiter copy of JPEG2000.dcm (no valid
# codestream), rtdose_expb.dcm (32 bits in big endian: readers differ), files without UIDs.
# What the bridge does with such is for its own tests.
WHEEL_FILES = (
    # Native syntaxes.
    WheelFile("CT_small.dcm", "CT, signed 16 bit"),
    WheelFile("MR_small.dcm", "MR, signed 16 bit"),
    WheelFile("MR_small_implicit.dcm", "the same in implicit VR", identity=CHANGED),
    WheelFile("MR_small_bigendian.dcm", "the same in big endian", "MR_small.dcm", identity=CHANGED),
    WheelFile("MR_small_padded.dcm", "pixel data with padding after it", identity=CHANGED),
    WheelFile("ExplVR_BigEnd.dcm", "colour by plane, big endian"),
    WheelFile("SC_rgb_jpeg_dcmd.dcm", "colour, implicit VR"),
    WheelFile("SC_rgb_small_odd.dcm", "colour, odd number of bytes"),
    WheelFile("SC_rgb_small_odd_big_endian.dcm", "the same, big endian", "SC_rgb_small_odd.dcm",
              identity=CHANGED),
    WheelFile("SC_ybr_full_422_uncompressed.dcm", "native YBR_FULL_422"),
    WheelFile("examples_overlay.dcm", "12 of 16 bit, with an overlay"),
    WheelFile("examples_palette.dcm", "palette colour"),
    WheelFile("examples_rgb_color.dcm", "colour ultrasound"),
    WheelFile("image_dfl.dcm", "deflated data set"),
    WheelFile("liver_1frame.dcm", "1 bit segmentation"),
    WheelFile("liver_expb_1frame.dcm", "1 bit, big endian", "liver_1frame.dcm", identity=CHANGED),
    WheelFile("rtdose.dcm", "32 bit, 15 frames, implicit VR"),
    WheelFile("rtdose_1frame.dcm", "32 bit, implicit VR", identity=CHANGED),
    # Without pixel data.
    WheelFile("reportsi.dcm", "structured report"),
    WheelFile("test-SR.dcm", "structured report"),
    WheelFile("rtplan.dcm", "radiotherapy plan, implicit VR"),
    WheelFile("waveform_ecg.dcm", "electrocardiogram"),
    # RLE.
    WheelFile("MR_small_RLE.dcm", "signed 16 bit", "MR_small.dcm", identity=CHANGED),
    WheelFile("SC_rgb_rle.dcm", "colour", identity=CHANGED),
    WheelFile("SC_rgb_rle_2frame.dcm", "colour, 2 frames", identity=CHANGED),
    WheelFile("SC_rgb_rle_16bit.dcm", "colour, 16 bit", identity=CHANGED),
    WheelFile("SC_rgb_rle_16bit_2frame.dcm", "colour, 16 bit, 2 frames", identity=CHANGED),
    WheelFile("SC_rgb_rle_32bit.dcm", "colour, 32 bit", identity=CHANGED),
    WheelFile("SC_rgb_rle_32bit_2frame.dcm", "colour, 32 bit, 2 frames", identity=CHANGED),
    WheelFile("rtdose_rle.dcm", "32 bit, 15 frames", "rtdose.dcm", identity=CHANGED),
    WheelFile("rtdose_rle_1frame.dcm", "32 bit", "rtdose_1frame.dcm", identity=CHANGED),
    # JPEG, sequential DCT.
    WheelFile("JPGExtended.dcm", "12 bit"),
    WheelFile("JPEG-lossy.dcm", "12 bit, odd parameters in its scan header", identity=CHANGED),
    WheelFile("SC_jpeg_no_color_transform.dcm", "RGB inside, no marker says so"),
    WheelFile("SC_jpeg_no_color_transform_2.dcm", "RGB inside, Adobe marker"),
    WheelFile("SC_rgb_jpeg_app14_dcmd.dcm", "RGB inside, Adobe marker", identity=CHANGED),
    WheelFile("SC_rgb_dcmtk_+eb+cr.dcm", "RGB inside, components named R, G, B"),
    WheelFile("SC_rgb_dcmtk_+eb+cy+n1.dcm", "4:2:0 labelled YBR_FULL"),
    WheelFile("SC_rgb_dcmtk_+eb+cy+n2.dcm", "4:2:2 labelled YBR_FULL", identity=CHANGED),
    WheelFile("SC_rgb_dcmtk_+eb+cy+np.dcm", "4:2:0 labelled YBR_FULL_422"),
    WheelFile("SC_rgb_dcmtk_+eb+cy+s2.dcm", "4:2:2"),
    WheelFile("SC_rgb_dcmtk_+eb+cy+s4.dcm", "4:4:4"),
    WheelFile("SC_rgb_jpeg_dcmtk.dcm", "4:4:4"),
    WheelFile("SC_rgb_jpeg_lossy_gdcm.dcm", "4:2:0 without JFIF marker"),
    WheelFile("SC_rgb_small_odd_jpeg.dcm", "3 x 3 pixels"),
    WheelFile("examples_ybr_color.dcm", "30 frames, 4:2:0"),
    # JPEG Lossless, JPEG-LS.
    WheelFile("SC_rgb_jpeg_gdcm.dcm", "colour"),
    WheelFile("MR_small_jpeg_ls_lossless.dcm", "signed 16 bit", "MR_small.dcm", identity=CHANGED),
    WheelFile("JPEGLSNearLossless_08.dcm", "8 bit", identity=ADDED),
    WheelFile("JPEGLSNearLossless_16.dcm", "16 bit", identity=ADDED),
    WheelFile("SC_rgb_jls_lossy_line.dcm", "colour, interleaved by line", identity=ADDED),
    WheelFile("SC_rgb_jls_lossy_sample.dcm", "colour, interleaved by sample",
              identity=ADDED),
    # JPEG 2000.
    WheelFile("693_J2KI.dcm", "CT, 14 bit signed, lossy"),
    WheelFile("J2K_pixelrep_mismatch.dcm", "CT, sign differs between header and codestream"),
    WheelFile("JPEG2000.dcm", "signed 16 bit, lossy", identity=CHANGED),
    WheelFile("MR_small_jp2klossless.dcm", "signed 16 bit", "MR_small.dcm", identity=CHANGED),
    WheelFile("GDCMJ2K_TextGBR.dcm", "colour, reversible transform"),
    WheelFile("SC_rgb_gdcm_KY.dcm", "colour, lossy"),
    WheelFile("examples_jpeg2k.dcm", "colour ultrasound", identity=CHANGED),
)  # fmt: skip


@lru_cache(maxsize=128)
def wheel_bytes(name: str) -> bytes:
    """Return a file of the wheel unchanged.

    Raises ConfigurationError when the installed pydicom does not have it.
    """
    try:
        return (TEST_FILES / name).read_bytes()
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"The installed pydicom {pydicom.__version__} has no test file {name}.",
            advice="Install pydicom from its wheel: some distributions leave the images out.",
        ) from exc


def wheel_dataset(name: str) -> Dataset:
    """Return a file of the wheel as a fresh data set."""
    return dcmread(BytesIO(wheel_bytes(name)))


def separate_instance(data: bytes, key: str) -> bytes:
    """Give a file another SOP Instance UID of the same length, derived from ``key``.

    Works on the bytes, so nothing else changes: neither lengths nor peculiarities. Not for a
    deflated data set, whose UID cannot be seen.
    """
    uid = str(dcmread(BytesIO(data), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    digits = iter(f"{int.from_bytes(hashlib.sha256(key.encode()).digest(), 'big'):078d}")
    kept = len(uid) - min(14, len(uid) // 2)
    tail = ""
    for before, old in zip(uid[kept - 1 :], uid[kept:], strict=False):
        digit = next(digits)
        # A component must not begin with 0 (PS3.5 9.1).
        tail += old if old == "." else ("7" if digit == "0" and before == "." else digit)
    return data.replace(uid.encode("ascii"), (uid[:kept] + tail).encode("ascii"))

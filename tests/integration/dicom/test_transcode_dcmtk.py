"""Agreement with DCMTK: its encoders feed ours, its decoders read ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from bridge.dicom.codecs import StreamKind
from bridge.dicom.syntaxes import JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LS_NEAR, Family
from bridge.errors import InstanceError
from tests.transcode_cases import (
    BIG_ENDIAN,
    EXPLICIT,
    WHEEL,
    Image,
    compressed_file,
    native_file,
    read,
    run,
    samples,
    save,
)
from tests.unit.dicom.test_decoder_table import CASES, even, image_of
from tests.unit.dicom.test_transcode_values import (
    big_endian_samples,
    big_endian_words,
    rich_dataset,
    values,
)

SOURCES: dict[str, Callable[[], bytes]] = {
    "ct": (WHEEL / "CT_small.dcm").read_bytes,
    "mr": (WHEEL / "MR_small.dcm").read_bytes,
    "u12": lambda: native_file(Image(rows=33, columns=65, stored=12, frames=3)),
    "u8": lambda: native_file(Image(rows=31, columns=17, allocated=8, stored=8, frames=2)),
    "rgb": lambda: native_file(
        Image(rows=37, columns=29, samples=3, allocated=8, stored=8, photometric="RGB")
    ),
    "ybr": lambda: native_file(
        Image(rows=16, columns=24, samples=3, allocated=8, stored=8, photometric="YBR_FULL")
    ),
    "odd rgb": lambda: native_file(
        Image(rows=3, columns=3, samples=3, allocated=8, stored=8, photometric="RGB")
    ),
}
ENCODERS = {
    "baseline": ["dcmcjpeg", "+eb"],
    "baseline 444": ["dcmcjpeg", "+eb", "+s4"],
    "baseline 422": ["dcmcjpeg", "+eb", "+s2"],
    "baseline rgb": ["dcmcjpeg", "+eb", "+cr"],
    "extended": ["dcmcjpeg", "+ee"],
    "spectral": ["dcmcjpeg", "+es"],
    "progressive": ["dcmcjpeg", "+ep"],
    "lossless": ["dcmcjpeg", "+el"],
    "lossless 4": ["dcmcjpeg", "+el", "+sv", "4"],
    "sv1": ["dcmcjpeg", "+e1"],
    "lossless, point transform": ["dcmcjpeg", "+el", "+pt", "2"],
    "ls line": ["dcmcjpls", "+il"],
    "ls sample": ["dcmcjpls", "+is"],
    "ls none": ["dcmcjpls", "+in"],
    "ls near": ["dcmcjpls", "+en", "+md", "3"],
    "rle": ["dcmcrle"],
    "fragments": ["dcmcjpeg", "+e1", "+fs", "1"],
}
DECODERS = {"dcmcjpeg": ["dcmdjpeg", "+cn"], "dcmcjpls": ["dcmdjpls"], "dcmcrle": ["dcmdrle"]}
TARGETS = {
    "RLELossless": ["dcmdrle"],
    "JPEGLSLossless": ["dcmdjpls"],
    "JPEGLosslessSV1": ["dcmdjpeg", "+cn"],
}

DCMTK_FAMILIES = {
    Family.JPEG_DCT: (JPEG_EXTENDED, ["dcmdjpeg", "+cn"]),
    Family.JPEG_LOSSLESS: (JPEG_LOSSLESS, ["dcmdjpeg", "+cn"]),
    Family.JPEG_LS: (JPEG_LS_NEAR, ["dcmdjpls"]),
}
DIFFERENT = {(Family.JPEG_LS, StreamKind.POINT_TRANSFORM)}
"""DCMTK does not undo the point transform of JPEG-LS, and we refuse it."""

pytestmark = pytest.mark.skipif(shutil.which("dcmdjpeg") is None, reason="dcmtk is not installed")


def _tool(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_dcmtk_encodes_is_decoded_as_dcmtk_decodes_it(
    source: str, encoder: str, tmp_path: Path
) -> None:
    plain, packed, theirs = tmp_path / "plain", tmp_path / "packed", tmp_path / "theirs"
    plain.write_bytes(SOURCES[source]())
    tool, *flags = ENCODERS[encoder]
    if not _tool(tool, *flags, "+un" if tool == "dcmcrle" else "+ua", plain, packed):
        pytest.skip(f"{tool} {flags} does not encode this")
    decode = DECODERS[tool]
    assert _tool(*decode, packed, theirs)

    body, result = run(packed.read_bytes())

    ours, reference = read(body), dcmread(theirs)
    assert samples(body).tobytes() == samples(theirs.read_bytes()).tobytes()
    assert ours.SOPInstanceUID == dcmread(packed).SOPInstanceUID == result.sop_instance_uid
    # DCMTK does not mark what its own point transform has lost.
    lossy = reference.get("LossyImageCompression", "00") == "01" or "+pt" in flags
    assert ours.get("LossyImageCompression", "00") == ("01" if lossy else "00")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_what_we_encode_dcmtk_decodes_to_the_same_samples(
    source: str, target: str, tmp_path: Path
) -> None:
    original = SOURCES[source]()
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    body, result = run(original, target)
    assert result.target_syntax != EXPLICIT
    packed.write_bytes(body)

    assert _tool(*TARGETS[target], packed, plain)

    assert samples(plain.read_bytes()).tobytes() == samples(original).tobytes()


STREAMS = [
    pytest.param(family, kind, number, id=f"{family.value}, {kind.value}, {number}")
    for (family, kind), cases in CASES.items()
    if family in DCMTK_FAMILIES
    for number in range(len(cases))
]


@pytest.mark.parametrize(("family", "kind", "number"), STREAMS)
def test_dcmtk_agrees_on_the_streams_of_the_decoder_table(
    family: Family, kind: StreamKind, number: int, tmp_path: Path
) -> None:
    """The samples that are known by construction are what an independent decoder reads."""
    syntax, command = DCMTK_FAMILIES[family]
    stream, array, _ = CASES[family, kind][number]
    image = image_of(array, stream, family)
    if kind is StreamKind.SUBSAMPLED:
        image = replace(image, photometric="YBR_FULL")
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    packed.write_bytes(compressed_file(image, syntax, [even(stream)]))

    if not _tool(*command, packed, plain):
        assert family is Family.JPEG_LS, "it refuses restarts, Pt and scans that differ in NEAR"
        return

    theirs = samples(plain.read_bytes())[0].reshape(array.shape)
    if (family, kind) in DIFFERENT:
        assert not np.array_equal(theirs, array)
    else:
        assert np.array_equal(theirs, array)


def test_dcmtk_swaps_every_vr_as_we_do(tmp_path: Path) -> None:
    """Big endian words of every VR, nested and private ones too (PS3.5 6.2 and 7.3)."""
    source, theirs = tmp_path / "big", tmp_path / "little"
    source.write_bytes(save(big_endian_words(rich_dataset()), BIG_ENDIAN))
    assert _tool("dcmconv", "+te", source, theirs)

    ours, reference = read(run(source.read_bytes())[0]), dcmread(theirs)

    expected = dict(values(reference))
    assert expected
    assert dict(values(ours)) == expected


@pytest.mark.parametrize(
    ("allocated", "vr", "unit"),
    [(1, "OW", 2), (8, "OW", 2), (8, "OB", 1), (16, "OW", 2), (32, "OW", 2), (64, "OW", 2)],
)
def test_big_endian_pixels_are_read_as_dcmtk_reads_them_or_parked(
    allocated: int, vr: str, unit: int, tmp_path: Path
) -> None:
    source, theirs = tmp_path / "big", tmp_path / "little"
    content, raw = big_endian_samples(allocated, vr, unit, frames=3)
    source.write_bytes(content)
    assert _tool("dcmconv", "+te", source, theirs)
    assert dcmread(theirs).PixelData == raw, "the words that DCMTK sees"
    if allocated > 16:
        with pytest.raises(InstanceError, match="two ways"):
            run(content)
    else:
        assert read(run(content)[0]).PixelData == raw

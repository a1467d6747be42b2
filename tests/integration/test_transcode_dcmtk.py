"""Agreement with DCMTK: its encoders feed ours, its decoders read ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.transcode_cases import EXPLICIT, WHEEL, Image, native_file, read, run, samples

SOURCES: dict[str, Callable[[], bytes]] = {
    "ct": (WHEEL / "CT_small.dcm").read_bytes,
    "mr": (WHEEL / "MR_small.dcm").read_bytes,
    "u12": lambda: native_file(Image(rows=33, columns=65, stored=12, frames=3)),
    "u8": lambda: native_file(Image(rows=31, columns=17, allocated=8, stored=8, frames=2)),
    "rgb": lambda: native_file(
        Image(rows=37, columns=29, samples=3, allocated=8, stored=8, photometric="RGB")
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
    lossy = reference.get("LossyImageCompression", "00") == "01"
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

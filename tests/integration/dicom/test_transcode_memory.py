"""G7: an instance that decodes to 1 GB needs at most 250 MB above its compressed size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.transcode_cases import ENCODE, EXPLICIT, IMPLICIT, JPEG_SV1, RLE, Image, compressed_file

SCRIPT = """
import sys
from pathlib import Path
from bridge.model import TranscodeOptions
from bridge.dicom.transcode import transcode

def peak_kb():  # ru_maxrss would be that of the parent: it survives exec
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

source = Path(sys.argv[1]).read_bytes()
before = peak_kb()
result = transcode(source, wanted_syntax=sys.argv[2], options=TranscodeOptions())
total = sum(len(chunk) for chunk in result.body)
print(total, result.body.body_bytes or 0, peak_kb() - before)
"""
FRAMES = 512
GROWTH_MAX_KB = 250 * 1024


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("syntax", "wanted"), [(RLE, EXPLICIT), (JPEG_SV1, IMPLICIT), (RLE, "HTJ2KLossless")]
)
def test_a_gigabyte_is_streamed_a_frame_at_a_time(syntax: str, wanted: str, tmp_path: Path) -> None:
    one = Image(rows=1024, columns=1024, stored=12)
    flat = np.zeros((1024, 1024), "<u2")
    flat[100:200, 100:200] = 4095
    many = Image(rows=1024, columns=1024, stored=12, frames=FRAMES)
    path = tmp_path / "instance"
    path.write_bytes(compressed_file(many, syntax, [ENCODE[syntax](one, flat)] * FRAMES))

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path, wanted],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    total, announced, grown_kb = (int(word) for word in done.stdout.split())

    if wanted in (EXPLICIT, IMPLICIT):
        assert total == announced > 1 << 30
    assert 0 < grown_kb < GROWTH_MAX_KB
    print(f"{syntax} to {wanted}: {grown_kb} KB above the compressed file")  # noqa: T201

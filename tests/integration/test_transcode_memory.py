"""G7: an instance that decodes to 1 GB needs at most 250 MB above its compressed size."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from bridge.core.model import TranscodeOptions
from bridge.core.transcode import transcode
from tests.transcode_cases import Image, ENCODE, compressed_file, EXPLICIT

syntax, wanted = sys.argv[1:]
image = Image(rows=1024, columns=1024, stored=12, frames=1)
stream = ENCODE[syntax](image, image.array()[0])
many = Image(rows=1024, columns=1024, stored=12, frames=512)
source = compressed_file(many, syntax, [stream] * 512)
del stream
source[: len(source)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = transcode(source, wanted_syntax=wanted, options=TranscodeOptions())
total = sum(len(chunk) for chunk in result.body)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(total, result.body.body_bytes, peak - before)
"""
RLE = "1.2.840.10008.1.2.5"
SV1 = "1.2.840.10008.1.2.4.70"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("syntax", "wanted"), [(RLE, "1.2.840.10008.1.2.1"), (SV1, "1.2.840.10008.1.2")]
)
def test_a_gigabyte_is_streamed_a_frame_at_a_time(syntax: str, wanted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, syntax, wanted], capture_output=True, text=True, check=True
    )
    total, announced, grown_kb = (int(word) for word in done.stdout.split())

    assert total == announced > 1 << 30
    assert grown_kb < 250 * 1024

"""The processes of the simplest ways: each takes its share of the instances.

Run as a module: says ready, waits for a line on stdin, works, ends. Modes: ``codec`` decodes;
``bare`` fetches and posts ready-made results; ``floor`` does both, which is the whole job with
the answers known in advance; ``direct`` posts the compressed files themselves; ``gdcmconv``
fetches, calls gdcmconv on files, posts what comes out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.http_line import Line
from tests.benchmarks.inputs import BY_NAME, Input

READY = "ready"
DONE = "done"


@dataclass(frozen=True, slots=True)
class Share:
    """What one process has to do. ``ids``: of the source, by number of the instance."""

    source_url: str
    target_url: str
    input: Input
    seed: str
    ids: dict[int, str]


def codec(share: Share) -> Callable[[], None]:
    share.input.decode_all()

    def work() -> None:
        for _ in share.ids:
            share.input.decode_all()

    return work


def bare(share: Share, *, decode: bool = False) -> Callable[[], None]:
    source, target = Line(share.source_url), Line(share.target_url)
    results = {n: share.input.result_file(share.seed, n) for n in share.ids}
    share.input.decode_all()

    def work() -> None:
        for number, instance_id in share.ids.items():
            source("GET", f"/instances/{instance_id}/file")
            if decode:
                share.input.decode_all()
            target("POST", "/instances", results[number])

    return work


def floor(share: Share) -> Callable[[], None]:
    return bare(share, decode=True)


def direct(share: Share) -> Callable[[], None]:
    target = Line(share.target_url)
    files = [share.input.file(share.seed, number) for number in share.ids]

    def work() -> None:
        for file in files:
            target("POST", "/instances", file)

    return work


def gdcmconv(share: Share) -> Callable[[], None]:
    source, target = Line(share.source_url), Line(share.target_url)

    def work() -> None:
        with tempfile.TemporaryDirectory() as home:
            before, after = Path(home) / "in.dcm", Path(home) / "out.dcm"
            for instance_id in share.ids.values():
                before.write_bytes(source("GET", f"/instances/{instance_id}/file"))
                subprocess.run(
                    ["gdcmconv", "--raw", before, after], check=True, stderr=subprocess.DEVNULL
                )
                target("POST", "/instances", after.read_bytes())

    return work


MODES = {each.__name__: each for each in (codec, bare, floor, direct, gdcmconv)}


def main() -> None:
    mode, source_url, target_url, name, seed, *ids = sys.argv[1:]
    numbered = (pair.split(":") for pair in ids)
    share = Share(
        source_url, target_url, BY_NAME[name], seed, {int(n): instance for n, instance in numbered}
    )
    work = MODES[mode](share)
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    work()
    sys.stdout.write(f"{DONE}\n")
    sys.stdout.flush()
    sys.stdin.readline()  # stay, so that what was used can be read


if __name__ == "__main__":
    main()

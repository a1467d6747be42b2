"""Mutation harness: broken copies of real files through the transcoder, in killable workers.

    python -m tests.fuzz.mutate --count 10000 --seed 1

Each case is made from (seed, index) alone, so one that fails can be repeated with
``--only INDEX``. Allowed: an InstanceError, or a body that pydicom parses to its end and whose
pixel data is as long as group 0028 says. Everything else is a finding; a worker that a decoder
library killed or hung is counted by itself (the bridge parks such an instance).
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from struct import pack

from pebble import ProcessExpired, ProcessPool
from pydicom import dcmread
from pydicom.dataset import Dataset

from bridge.dicom.syntaxes import OFFERED_TARGETS, SYNTAXES
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import Action, TranscodeOptions
from tests import shared_samples
from tests.transcode_cases import WHEEL

CORPUS = shared_samples.CORPUS / "files"
FILE_BYTES_MAX = 400_000
CASE_TIMEOUT_S = 30.0
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFE)
LENGTHS = (0, 1, 2, 7, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
TOKENS = (
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xe0\x7f\x10\x00",
    b"\xff\xd9",
    b"\xff\xd8\xff",
    b"SQ\0\0\xff\xff\xff\xff",
    b"UN\0\0\xff\xff\xff\xff",
)

PARSE_FAULTS = (ValueError, TypeError, LookupError, OSError, AttributeError, NotImplementedError)

Mutation = Callable[[bytearray, random.Random], None]


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _head(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(128, min(len(data), 3000))] = rng.choice(INTERESTING)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(132, len(data)) :]


def _length(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(132, len(data) - 4)
    data[at : at + 4] = pack("<I", rng.choice(LENGTHS))


def _token(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(132, len(data))
    token = rng.choice(TOKENS)
    data[at : at + rng.choice((0, len(token)))] = token


def _block(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(132, len(data))
    stop = min(len(data), start + rng.randint(1, 600))
    source = rng.randrange(len(data))
    data[start:stop] = data[source : source + stop - start]


def _remove(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(132, len(data))
    del data[start : start + rng.randint(1, 64)]


def _description(data: bytearray, rng: random.Random) -> None:
    """Change one number of group 0028."""
    places = [i for i in range(132, min(len(data) - 10, 20_000)) if data[i : i + 2] == b"\x28\0"]
    if places:
        at = rng.choice(places)
        data[at + rng.randrange(4, 10)] = rng.choice((*INTERESTING, rng.randrange(256)))


def _label(data: bytearray, rng: random.Random) -> None:
    """Another transfer syntax UID of the same length or shorter in the header."""
    at = data.find(b"\x02\0\x10\0UI")
    if at < 0 or at + 8 > len(data):
        return
    length = data[at + 6]
    uid = rng.choice([u for u in SYNTAXES if len(u) <= length] or [""])
    data[at + 8 : at + 8 + length] = uid.encode().ljust(length, b"\0")


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _head, _cut, _length, _token, _block, _remove, _description, _label,
)  # fmt: skip


def base_files() -> list[Path]:
    """Small files of every syntax: the corpus where it is there, and the pydicom wheel."""
    folders = [folder for folder in (CORPUS, WHEEL) if folder.is_dir()]
    files = [p for folder in folders for p in sorted(folder.iterdir()) if p.is_file()]
    return [p for p in files if 300 < p.stat().st_size <= FILE_BYTES_MAX]


def mutant(seed: int, index: int) -> tuple[bytes, str]:
    """Return case ``index``: the broken file and the wanted syntax."""
    rng = random.Random(f"{seed}/{index}")
    data = bytearray(rng.choice(base_files()).read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) > 200:
            rng.choice(MUTATIONS)(data, rng)
    targets = list(OFFERED_TARGETS)
    return bytes(data), rng.choice([targets[0]] * 6 + targets)


def run_case(seed: int, index: int) -> tuple[str, str]:
    """Return ("refused" | "delivered" | "finding", detail) of one case."""
    data, wanted = mutant(seed, index)
    options = TranscodeOptions(verify="sample:4", hold_bytes_max=1 << (index % 40))
    try:
        result = transcode(data, wanted_syntax=wanted, options=options)
        body = b"".join(bytes(chunk) for chunk in result.body)
    except InstanceError as exc:
        return "refused", exc.reason.value
    if result.action is Action.UNCHANGED:
        return "delivered", "unchanged"
    if result.body.body_bytes not in (None, len(body)) or len(body) & 1:
        return "finding", f"{len(body)} bytes, {result.body.body_bytes} announced"
    complaint, ds = parsed(body)
    if ds is None:
        broken_before = parsed(data)[1] is None
        outcome = ("delivered", "unreadable for pydicom, as before")
        return outcome if broken_before else ("finding", f"pydicom: {complaint}")
    fault = pixel_fault(ds) if result.action is Action.TRANSCODED else ""
    return ("finding", fault) if fault else ("delivered", result.action.value)


def parsed(data: bytes) -> tuple[str, Dataset | None]:
    """Read a file with pydicom to its end; return its complaint, or the data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return "", dcmread(io.BytesIO(data))
        except PARSE_FAULTS as exc:
            return repr(exc), None


def pixel_fault(ds: Dataset) -> str:
    """Return what is inconsistent between pixel data and its description, or ""."""
    syntax = SYNTAXES[str(ds.file_meta.TransferSyntaxUID)]
    element = ds["PixelData"]
    if element.is_undefined_length != syntax.encapsulated:
        return "pixel data is not what the syntax says"
    bits = ds.Rows * ds.Columns * ds.get("SamplesPerPixel", 1) * ds.BitsAllocated
    size = (bits * int(ds.get("NumberOfFrames", 1) or 1) + 7) // 8
    if not syntax.encapsulated and len(element.value) != size + (size & 1):
        return f"{len(element.value)} bytes of pixels, {size} by the description"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; print a summary; return 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, help="repeat this case in this process")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}, {chosen.count} cases from {len(base_files())} files")  # noqa: T201
    if chosen.only is not None:
        print(run_case(chosen.seed, chosen.only))  # noqa: T201
        return 0
    tally, findings = campaign(chosen.seed, chosen.count, workers=chosen.workers)
    for name, number in sorted(tally.items()):
        print(f"{number:8d}  {name}")  # noqa: T201
    for finding in findings:
        print(f"FINDING  {finding}")  # noqa: T201
    return 1 if findings else 0


def campaign(seed: int, count: int, *, workers: int = 2) -> tuple[Counter[str], list[str]]:
    """Run cases 0..count-1; return how they ended, and the findings."""
    tally: Counter[str] = Counter()
    findings: list[str] = []
    with ProcessPool(max_workers=workers) as pool:
        futures = [
            pool.schedule(run_case, args=(seed, index), timeout=CASE_TIMEOUT_S)
            for index in range(count)
        ]
        for index, future in enumerate(futures):
            try:
                outcome, detail = future.result()
            except FutureTimeoutError:
                tally["worker hung"] += 1
                findings.append(f"case {index}: no end within {CASE_TIMEOUT_S} s")
                continue
            except ProcessExpired as exc:
                tally["worker died"] += 1
                findings.append(f"case {index}: the worker died ({exc.exitcode})")
                continue
            except Exception as exc:  # noqa: BLE001 - whatever escapes is the finding
                outcome, detail = "finding", f"{type(exc).__name__}: {exc}"
            tally[f"{outcome} {detail}" if outcome != "finding" else outcome] += 1
            if outcome == "finding":
                findings.append(f"case {index}: {detail}")
    return tally, findings


if __name__ == "__main__":
    sys.exit(main())

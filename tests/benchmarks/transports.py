"""``python -m tests.benchmarks.transports``: our HTTP transport, urllib3's and pyreqwest's.

The whole bridge between two Orthancs, in pairs of runs whose order turns with every round. CPU is
what holds on a machine that is used by others: user and system time of the bridge and its workers.
pyreqwest is left out where it is not installed (PYTHONPATH may name where it is).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from statistics import median

from tests.benchmarks.arena import Sample, arena, run_once
from tests.benchmarks.inputs import BY_NAME, Input
from tests.benchmarks.rival_transports import VARIABLE
from tests.benchmarks.ways import Look, Match, Way, ours
from tests.bridge_process import REPOSITORY
from tests.dicom_samples import small_ct

RUN_LIMIT_S = 60.0
MODULE = "tests.benchmarks.rival_transports"
WARM = "warm"
SMALL = Input(
    "small",
    "CT of 64 x 64, 9 kB, Explicit VR Little Endian: passed through",
    cache(lambda: small_ct(rows=64, columns=64)),
    count_share=4.0,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.transports", description=__doc__)
    parser.add_argument("--inputs", default="j2k,small")
    parser.add_argument("--rivals", default="urllib3,pyreqwest")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=240, help="CT slices in a run")
    parser.add_argument("--minutes", type=float, default=7.0, help="for each input")
    arguments = parser.parse_args()
    ways = tuple(map(_way, ["ours", *filter(_available, arguments.rivals.split(","))]))
    for name in arguments.inputs.split(","):
        what = SMALL if name == SMALL.name else BY_NAME[name]
        count = round(arguments.count * what.count_share)
        until_s = time.monotonic() + 60 * arguments.minutes
        samples = _rounds(what, ways, count, arguments.rounds, until_s)
        sys.stdout.write(_table(what, ways, count, samples))
        sys.stdout.flush()


def _available(name: str) -> bool:
    there = importlib.util.find_spec(name) is not None
    if not there:
        sys.stderr.write(f"{name}: left out, it is not installed\n")
    return there


def _way(name: str) -> Way:
    @contextmanager
    def start(match: Match) -> Iterator[Look]:
        given = [str(REPOSITORY), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        path = os.pathsep.join(str(Path(part).resolve()) for part in filter(None, given))
        with ours(match, module=MODULE, variables={VARIABLE: name, "PYTHONPATH": path}) as look:
            yield look

    begin: Callable[[Match], AbstractContextManager[Look]] = start
    return Way(name, name, begin)


def _rounds(
    what: Input, ways: Sequence[Way], count: int, rounds: int, until_s: float
) -> list[list[Sample]]:
    """Run all ways once in each round; a round with a run that failed counts for nothing."""
    done: list[list[Sample]] = []
    with arena(what, count, "transports") as made:
        for number in range(rounds):
            if time.monotonic() > until_s:
                break
            turned = [*ways[number % len(ways) :], *ways[: number % len(ways)]]
            samples = [run_once(made, way, limit_s=RUN_LIMIT_S) for way in turned]
            for sample in samples:
                sys.stderr.write(
                    f"{what.name} {number + 1} {sample.way}: "
                    f"{sample.ended or f'{sample.rate:.1f}/s, {_cpu_ms(sample):.2f} ms'}\n"
                )
            if not any(sample.ended for sample in samples):
                done.append(
                    sorted(samples, key=lambda sample: [w.name for w in ways].index(sample.way))
                )
    return done


def _cpu_ms(sample: Sample) -> float:
    return sample.cpu_ms("bridge") + sample.cpu_ms("workers")


def _all_cpu_ms(sample: Sample) -> float:
    return _cpu_ms(sample) + sample.cpu_ms("source") + sample.cpu_ms("target")


def _table(what: Input, ways: Sequence[Way], count: int, rounds: Sequence[Sequence[Sample]]) -> str:
    lines = [
        f"\n{what.name}: {what.text}; {count} instances a run, {len(rounds)} rounds\n",
        "| transport | instances/s | bridge, ms | workers, ms | servers, ms | CPU of ours "
        "(bridge and workers) | least, most | of everything |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for index, way in enumerate(ways):
        own = [samples[index] for samples in rounds]
        if not own:
            continue
        ratios = [_cpu_ms(s[index]) / _cpu_ms(s[0]) for s in rounds]
        whole = [_all_cpu_ms(s[index]) / _all_cpu_ms(s[0]) for s in rounds]
        servers = median(s.cpu_ms("source") + s.cpu_ms("target") for s in own)
        lines.append(
            f"| {way.name} | {median(s.rate for s in own):.1f} "
            f"| {median(s.cpu_ms('bridge') for s in own):.2f} "
            f"| {median(s.cpu_ms('workers') for s in own):.2f} | {servers:.2f} "
            f"| {median(ratios):.3f} | {min(ratios):.2f}, {max(ratios):.2f} "
            f"| {median(whole):.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""``make bench``: measure side by side, print, and write docs/reference/benchmarks.md.

    make bench
    make bench ARGS="--ways ours,floor --inputs j2k --count 200"
    make bench ARGS="--parts distance --rounds 1"

``ours``, ``bare`` and the codec are what ratios are made of. With a selection nothing is written
unless ``--write`` says so.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.benchmarks.backlog import measure_behind_backlog
from tests.benchmarks.bulk import measure_bulk
from tests.benchmarks.distance import CASES, measure_distance
from tests.benchmarks.growth import measure_growth
from tests.benchmarks.inputs import BY_NAME, INPUTS, TINY, Input
from tests.benchmarks.latency import measure_latency
from tests.benchmarks.report import PAGE, Report
from tests.benchmarks.sharing import measure_sharing
from tests.benchmarks.startup import measure_startup
from tests.benchmarks.throughput import measure
from tests.benchmarks.ways import WAYS, WAYS_BY_NAME, Way

PARTS = ("throughput", "latency", "sharing", "growth", "startup")
BY_HAND = ("distance", "backlog", "bulk")
"""Parts that are measured only where they are asked for: they take long."""
ALL_PARTS = (*PARTS, *BY_HAND)
GROWTH_SIZES = (1_000, 10_000, 100_000, 1_000_000)
BACKLOG_SHARE = 40
"""Of the count asked for: it must last as long as single instances are sent."""
BACKLOG_SINGLES = 50
BULK_SHARE = 40
LATENCY_COUNTS = {1.0: 100, 0.1: 120}


def main() -> None:
    arguments = _arguments()
    until_s = time.monotonic() + 60 * arguments.minutes
    given = " ".join(sys.argv[1:])
    report = Report(given, os.getloadavg()[0])
    for part in arguments.parts:
        if part == "throughput":
            _throughput(report, arguments, until_s)
        elif time.monotonic() > until_s:
            _say(f"{part}: left out, the time is over")
        else:
            _say(f"{part} ...")
            _other(report, part, arguments)
    text = report.text()
    sys.stdout.write(f"\n{text}")
    if arguments.write or not given:
        PAGE.write_text(text, encoding="utf-8")
        _say(f"written: {PAGE.name}")


def _throughput(report: Report, arguments: argparse.Namespace, until_s: float) -> None:
    for what in arguments.inputs:
        if not what.available:
            _say(f"{what.name}: left out, the corpus is not here")
        elif time.monotonic() > until_s:
            _say(f"{what.name}: left out, the time is over")
        else:
            report.results.append(
                measure(
                    what,
                    arguments.ways,
                    count=arguments.count,
                    rounds=arguments.rounds,
                    say=_say,
                )
            )


def _other(report: Report, part: str, arguments: argparse.Namespace) -> None:
    slice_ = BY_NAME["j2k"]
    if part == "latency":
        for interval_s, count in LATENCY_COUNTS.items():
            report.latencies.append(
                measure_latency(slice_, poll_interval_s=interval_s, count=count)
            )
    elif part == "sharing":
        report.sharing = measure_sharing(slice_, count=arguments.count, rounds=arguments.rounds)
    elif part == "distance":
        for far in CASES:
            report.distances.append(
                measure_distance(far, count=arguments.count, rounds=arguments.rounds)
            )
    elif part == "backlog":
        report.backlogs.append(
            measure_behind_backlog(
                TINY, backlog=BACKLOG_SHARE * arguments.count, singles=BACKLOG_SINGLES
            )
        )
    elif part == "bulk":
        for one in measure_bulk(TINY, count=BULK_SHARE * arguments.count):
            _say(f"{one.name}: {one.seconds:.1f} s")
            report.bulks.append(one)
    elif part == "growth":
        report.growths.extend(map(measure_growth, GROWTH_SIZES))
    else:
        report.startup = measure_startup(slice_)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--ways", type=_ways, default=WAYS, help=", ".join(WAYS_BY_NAME))
    parser.add_argument("--inputs", type=_inputs, default=INPUTS, help=", ".join(BY_NAME))
    parser.add_argument("--parts", type=_parts, default=PARTS, help=", ".join(ALL_PARTS))
    parser.add_argument("--count", type=int, default=240, help="CT slices in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=40.0, help="nothing is begun after it")
    parser.add_argument("--write", action="store_true", help="write docs/reference/benchmarks.md")
    return parser.parse_args()


def _ways(text: str) -> tuple[Way, ...]:
    return tuple(WAYS_BY_NAME[name] for name in text.split(","))


def _inputs(text: str) -> tuple[Input, ...]:
    return tuple(BY_NAME[name] for name in text.split(","))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(ALL_PARTS[ALL_PARTS.index(name)] for name in text.split(","))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()

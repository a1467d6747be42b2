"""docs/reference/benchmarks.md, written from what was measured and from nothing else."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bridge
from tests.benchmarks import backlog, bulk
from tests.benchmarks.distance import MEMORY_WANTED_MB, Distance, rows
from tests.benchmarks.goals import RIVALS, Goal, best_rival, other_goals, throughput_goals
from tests.benchmarks.growth import Growth
from tests.benchmarks.latency import Latency
from tests.benchmarks.sharing import Sharing
from tests.benchmarks.startup import Startup
from tests.benchmarks.throughput import ROLES, Result, Row
from tests.benchmarks.ways import CORES, WAYS_BY_NAME

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "benchmarks.md"
CODEC_TEXT = "the codec's call alone, one process for each core"


@dataclass(slots=True)
class Report:
    """Everything that one call of the benchmark has measured."""

    arguments: str
    load_before: float
    results: list[Result] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    distances: list[Distance] = field(default_factory=list)
    backlogs: list[backlog.BehindBacklog] = field(default_factory=list)
    bulks: list[bulk.Bulk] = field(default_factory=list)
    sharing: Sharing | None = None
    startup: Startup | None = None

    def text(self) -> str:
        """Return the page."""
        parts = [self._head(), *map(_throughput, self.results)]
        goals = [
            *throughput_goals(self.results),
            *other_goals(self.latencies, self.sharing, self.startup),
        ]
        if self.results:
            parts.insert(1, _summary(self.results))
            parts.append(_ways(self.results))
        if goals:
            parts.insert(1, _goals(goals))
        if self.latencies:
            parts.append(_latency(self.latencies))
        if self.sharing:
            parts.append(_sharing(self.sharing))
        if self.growths:
            parts.append(_growth(self.growths))
        if self.distances:
            parts.append(_distance(self.distances))
        if self.backlogs:
            parts.append(_backlog(self.backlogs))
        if self.bulks:
            parts.append(_bulk(self.bulks))
        if self.startup:
            parts.append(_startup(self.startup))
        return "\n\n".join(parts) + "\n"

    def _head(self) -> str:
        now = datetime.datetime.now(datetime.UTC)
        memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return (
            "# Benchmarks\n\n"
            f"Written by `make bench{self.arguments and f' ARGS={self.arguments!r}'}` on "
            f"{now:%Y-%m-%d %H:%M} UTC with orthanc-bridge {bridge.__version__}{_commit()}, Python "
            f"{platform.python_version()}. Machine: {_processor()}, {CORES} cores, "
            f"{memory_gb:.0f} GB, Linux {platform.release().split('-')[0]}; load average when it "
            f"began: {self.load_before:.1f}. Everything, both servers included, shares these "
            "cores. Compare ratios within this run, not rates with another one."
        )


def _commit() -> str:
    """Tell which source was measured, where git knows."""
    command = ["git", "-C", str(PAGE.parent), "describe", "--always", "--dirty"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return f" ({told.stdout.strip()})" if told.returncode == 0 else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _goals(goals: Sequence[Goal]) -> str:
    rows = [
        [
            goal.text,
            f"{'≥' if goal.at_least else '≤'} {goal.wanted:.2f}",
            f"{goal.measured:.2f}",
            "yes" if goal.met else "**no**",
        ]
        for goal in goals
    ]
    return "## Goals\n\n" + _table(("goal", "wanted", "measured", "met"), rows)


def _summary(results: Sequence[Result]) -> str:
    head = ("input", "ours /s", "ours / floor", "ours / chain", "ours / program", "by CPU",
            "best rival /s", "ours / rival", "a rival that died /s", "no first server /s",
            "overhead ms")  # fmt: skip
    return f"""## In short

{_table(head, map(_summary_row, results))}

- Floor: the rate when all cores do nothing but the codec's call, both servers' work, a bare GET and
  a bare POST. It is computed from the CPU that these used.
- Chain: the codec on all cores, then bare GETs and POSTs, at the rate that was measured.
- Program: the rate of a program that only GETs, calls the codec, and POSTs a result that was made
  before.
- By CPU: the floor's CPU for an instance, divided by ours. Other load on the machine changes rates,
  and hardly changes this figure.
- Best rival: the fastest way that begins at a first server, delivers uncompressed instances, and
  survived every round. The next column has the fastest one that did not survive: its rate in the
  rounds in which its target stayed alive.
- No first server: instances are posted straight to a target that transcodes. † means that it died
  in a round.
- Overhead: CPU of all processes of the bridge for an instance, without the CPU of the codec's call.
  The call costs what it costs in the program, beside both servers. In brackets: what it costs alone
  on the machine."""


def _summary_row(result: Result) -> list[str]:
    ours = result.row("ours")
    rate = ours.rate if ours else 0.0
    rivals = [row for name in RIVALS if (row := result.row(name)) is not None]
    survivor = best_rival(result)
    rival = survivor.rate if survivor else 0.0
    died = max((row.rate for row in rivals if row.ended), default=0.0)
    program, direct = result.row("floor"), result.row("direct")
    return [
        result.input.name,
        _number(rate),
        _ratio(rate, result.computed_floor),
        _ratio(rate, result.chained_floor),
        _ratio(rate, program.rate if program else 0.0),
        f"{result.cpu_share:.2f}" if result.cpu_share else "-",
        _number(rival),
        _ratio(rate, rival),
        _number(died),
        _number(direct.rate if direct else 0.0) + ("†" if direct and direct.ended else ""),
        _overhead(result),
    ]


def _overhead(result: Result) -> str:
    if result.overhead_ms is None or result.overhead_alone_ms is None:
        return "-"
    return f"{result.overhead_ms:.1f} ({result.overhead_alone_ms:.1f})"


def _throughput(result: Result) -> str:
    roles = [role for role in ROLES if any(role in row.cpu_ms for row in result.rows)]
    head = ("way", "/s", "MB/s", *(f"{role} ms" for role in roles), "all ms", "peak MB", "/ floor")
    rows = [_throughput_row(row, roles, result.computed_floor) for row in result.rows]
    floor = (
        f"Floor: {result.computed_floor:.1f}/s. " if result.computed_floor else ""
    ) + f"{result.instances} instances a round; MB are those of the uncompressed result."
    return f"## {result.input.name}: {result.input.text}\n\n{_table(head, rows)}\n\n{floor}"


def _throughput_row(row: Row, roles: Sequence[str], floor: float) -> list[str]:
    if not row.rate:
        return [row.way, row.ended or "-", *[""] * (len(roles) + 4)]
    way = f"{row.way} ({row.ended})" if row.ended else row.way
    peaks = " + ".join(f"{name} {peak:.0f}" for name, peak in row.peak_mb.items())
    return [
        way,
        _number(row.rate),
        f"{row.megabytes_s:.0f}",
        *(f"{row.cpu_ms[role]:.2f}" if role in row.cpu_ms else "" for role in roles),
        f"{row.total_cpu_ms:.1f}",
        peaks,
        _ratio(row.rate, floor) if row.way != "codec" else "",
    ]


def _ways(results: Sequence[Result]) -> str:
    seen = dict.fromkeys(row.way for result in results for row in result.rows)
    texts = {name: way.text for name, way in WAYS_BY_NAME.items()} | {"codec": CODEC_TEXT}
    lines = [f"- **{name}**: {texts[name]}." for name in seen]
    rounds = max(row.rounds for result in results for row in result.rows)
    return (
        "## The ways\n\n"
        + "\n".join(lines)
        + "\n\nEach round runs every way once, against an empty target. There were "
        f"{rounds} rounds; the tables show the median. The clock runs from the first sixth of the "
        "arrivals to the last arrival. The columns in ms are CPU for an instance, by process."
    )


def _latency(latencies: Sequence[Latency]) -> str:
    head = ("poll interval", "instances", "median s", "bound s", "p99 s", "source, idle",
            "bridge, idle")  # fmt: skip
    rows = [
        [
            f"{each.poll_interval_s:g} s",
            str(len(each.seconds)),
            f"{each.median_s:.3f}",
            f"{each.bound_s:.3f}",
            f"{each.p99_s:.3f}",
            f"{each.source_core_share:.2%}",
            f"{each.bridge_core_share:.2%}",
        ]
        for each in latencies
    ]
    return (
        "## Latency\n\n"
        + _table(head, rows)
        + "\n\nThe time runs from the source's answer to the POST to the target's first answer for "
        "the instance. One CT slice (j2k) is sent at a time, at random moments. Bound: half the "
        f"interval plus 1.3 times the bare stages ({latencies[0].stages_s * 1000:.0f} ms). Idle: "
        "share of one core while nothing arrives, with a feed of some 600 instances."
    )


def _sharing(sharing: Sharing) -> str:
    one = sharing.rates[1]
    rows = [[str(n), _number(rate), _ratio(rate, one)] for n, rate in sharing.rates.items()]
    return (
        "## Several at once\n\n"
        + _table(("workers", "/s", "/ one worker"), rows)
        + "\n\nCT slices in JPEG 2000. The servers use the same cores.\n\n"
        f"- 60 small instances: {sharing.small_alone_s:.2f} s alone, "
        f"{sharing.small_beside_long_s:.2f} s behind one of 500 frames, which took "
        f"{sharing.long_s:.2f} s.\n"
        f"- Ten series at once: every series had begun to arrive after "
        f"{sharing.burst_first_s:.2f} s, all 120 instances were there after "
        f"{sharing.burst_last_s:.2f} s."
    )


def _growth(growths: Sequence[Growth]) -> str:
    head = ("instances", "CPU us each", "wall us each", "peak MB", "later growth MB")
    rows = [
        [f"{g.instances:,}", f"{g.cpu_us:.0f}", f"{g.wall_us:.0f}", f"{g.peak_mb:.0f}",
         f"{g.late_growth_mb:.1f}"]
        for g in growths
    ]  # fmt: skip
    return (
        "## Growth\n\n"
        + _table(head, rows)
        + "\n\nA scripted feed of four changes for each instance, workers that finish at once: "
        "the pipeline, the ledger and the feed alone. Later growth: resident memory at the end "
        "beyond that at a tenth of the way."
    )


def _distance(distances: Sequence[Distance]) -> str:
    lines = (
        "## Far away",
        "",
        "Instances a second, with the server next door and behind a proxy that holds every byte",
        "for a while, each way. Memory: all workers together, each shared page counted once; at",
        f"most {MEMORY_WANTED_MB} MB is wanted.",
        "",
        *rows(distances),
    )
    return "\n".join(lines) + "\n"


def _backlog(backlogs: Sequence[backlog.BehindBacklog]) -> str:
    lines = (
        "## Behind a backlog",
        "",
        f"A single instance at a time arrives while a backlog is moved to a target that is "
        f"{backlog.DELAY_MS} ms",
        "away each way: seconds until the target has it.",
        "",
        *backlog.rows(backlogs),
    )
    return "\n".join(lines) + "\n"


def _bulk(bulks: Sequence[bulk.Bulk]) -> str:
    lines = (
        "## Commands that look at everything",
        "",
        f"Tiny instances; the target lacks each {bulk.EVERY}th. A snapshot moves what lacks.",
        "",
        *bulk.rows(bulks),
    )
    return "\n".join(lines) + "\n"


def _startup(startup: Startup) -> str:
    return (
        "## Start-up\n\n"
        f"`run` to `/readyz` 200: {startup.ready_s:.2f} s. `status`: {startup.status_s:.2f} s."
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if value else "-"


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if value and base else "-"

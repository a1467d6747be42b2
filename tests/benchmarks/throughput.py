"""Every way with every input, alternately, several rounds; medians and ratios to the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.arena import Sample, arena, run_codec, run_once
from tests.benchmarks.inputs import Input
from tests.benchmarks.ways import CORES, Way

ROLES = ("source", "target", "bridge", "workers", "client")
RUN_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """The median of a way's rounds with one input. ``ended``: how the rounds that failed ended."""

    way: str
    input: str
    rounds: int
    rate: float
    megabytes_s: float
    cpu_ms: dict[str, float]
    peak_mb: dict[str, float]
    ended: str

    @property
    def total_cpu_ms(self) -> float:
        return sum(self.cpu_ms.values())


@dataclass(frozen=True, slots=True)
class Result:
    """All rows of one input, and the floor that is computed from some of them, instances/s."""

    input: Input
    instances: int
    rows: tuple[Row, ...]

    def row(self, way: str) -> Row | None:
        return next((row for row in self.rows if row.way == way), None)

    @property
    def codec_ms(self) -> float:
        codec = self.row("codec")
        return codec.total_cpu_ms if codec else 0.0

    @property
    def computed_floor(self) -> float:
        """All cores busy with nothing but the codec, both servers, a bare GET and a bare POST."""
        bare = self.row("bare")
        if bare is None or not bare.rate or self.row("codec") is None:
            return 0.0
        return 1000 * CORES / (self.codec_ms + bare.total_cpu_ms)

    @property
    def chained_floor(self) -> float:
        """The codec on all cores, then the bare GET and POST as fast as they were measured."""
        bare = self.row("bare")
        if bare is None or not bare.rate or self.row("codec") is None:
            return 0.0
        return 1 / (self.codec_ms / 1000 / CORES + 1 / bare.rate)

    @property
    def cpu_share(self) -> float:
        """The floor's CPU for an instance in parts of ours: the ratio when no core ever waits.

        Unlike the ratio of rates it hardly feels what else the machine does.
        """
        ours, floor = self.row("ours"), self.computed_floor
        if ours is None or not ours.total_cpu_ms or not floor:
            return 0.0
        return 1000 * CORES / floor / ours.total_cpu_ms

    @property
    def overhead_ms(self) -> float | None:
        """The bridge's own CPU for an instance outside the codec, beside both servers.

        The codec's call costs more there than alone: the program of the floor tells how much.
        """
        program, bare = self.row("floor"), self.row("bare")
        if program is None or bare is None or not (program.rate and bare.rate):
            return None
        return self._less(program.cpu_ms["client"] - bare.cpu_ms["client"])

    @property
    def overhead_alone_ms(self) -> float | None:
        """The same, with the codec's call as it costs alone on the machine."""
        return self._less(self.codec_ms)

    def _less(self, codec_ms: float) -> float | None:
        ours = self.row("ours")
        if ours is None or not ours.rate or self.row("codec") is None:
            return None
        return ours.cpu_ms["bridge"] + ours.cpu_ms["workers"] - codec_ms


def measure(
    what: Input, ways: Sequence[Way], *, count: int, rounds: int, say: Callable[[str], None]
) -> Result:
    """Run every way ``rounds`` times, one after the other in each round."""
    instances = max(12, round(count * what.count_share))
    samples: list[Sample] = []
    with arena(what, instances, "benchmark") as made:
        for number in range(rounds):
            for way in ways:
                lacks = way.lacks()
                if lacks:
                    samples.append(Sample(way.name, what.name, ended=lacks))
                else:
                    sample = run_once(made, way, limit_s=RUN_LIMIT_S)
                    samples.append(sample)
                    say(_told(number, sample))
            if what.decode is not None:
                samples.append(run_codec(made))
    if what.decode is None:
        samples.append(Sample("codec", what.name, ended="nothing to decode"))
    names = dict.fromkeys(sample.way for sample in samples)
    rows = tuple(_row(name, [s for s in samples if s.way == name]) for name in names)
    return Result(what, instances, rows)


def _told(number: int, sample: Sample) -> str:
    seen = sample.ended or f"{sample.rate:.1f}/s"
    return f"round {number + 1}, {sample.input}, {sample.way}: {seen}"


def _row(way: str, samples: Sequence[Sample]) -> Row:
    good = [sample for sample in samples if sample.rate]
    roles = [role for role in ROLES if any(role in sample.cpu_s for sample in good)]
    return Row(
        way=way,
        input=samples[0].input,
        rounds=len(good),
        rate=_median(sample.rate for sample in good),
        megabytes_s=_median(s.result_bytes / s.seconds / 1e6 for s in good),
        cpu_ms={role: _median(sample.cpu_ms(role) for sample in good) for role in roles},
        peak_mb={
            role: max(sample.peak_bytes.get(role, 0) for sample in good) / 1e6 for role in roles
        },
        ended=_ended(samples),
    )


def _median(values: Iterable[float]) -> float:
    listed = list(values)
    return median(listed) if listed else 0.0


def _ended(samples: Sequence[Sample]) -> str:
    ends = [sample.ended for sample in samples if sample.ended]
    return ", ".join(f"{end} ({ends.count(end)} of {len(samples)})" for end in dict.fromkeys(ends))

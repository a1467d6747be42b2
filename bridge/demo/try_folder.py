"""``orthanc-bridge try``: any folder of DICOM files through the transcoder, each judged.

The judges are those of the demo: decoders that the bridge does not ask first, and a comparison of
every element. A decoder may take its process down or never return, so files are tried in processes
of their own. Nothing is written, and no server is asked.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from bridge.demo.compare_instance import compare_instance
from bridge.demo.instances import Sample
from bridge.dicom.file_meta import read_file_meta
from bridge.dicom.new_pixel_data import unchanged
from bridge.dicom.syntaxes import syntax_of
from bridge.dicom.transcode import transcode
from bridge.errors import InstanceError
from bridge.model import ExecutorFailed, InstanceFailed, Reason, TranscodeOptions
from bridge.worker.pool import OrderedPool

FILE_TIMEOUT_S = 300.0
FILE_MEMORY_BYTES = 4 * 1024**3
"""What a process may take beside the file: transcoder and judges together."""
JUDGE_FAULTS = (RuntimeError, ValueError, LookupError, AttributeError, TypeError, OSError)
"""What a judge raises about a file that it cannot read: its fault is no verdict."""
WEAK = {
    "OpenJPH, within 1": "it wraps what overshoots on lossy streams",
    "jpegsof3": "it reads non-interleaved scans wrongly",
}
"""Judges that are known to be wrong for some streams: their disagreement proves nothing."""
NAMED_MAX = 40
"""Files of each kind that are named in the table; all are counted."""


class Judgement(StrEnum):
    """What became of one file."""

    RIGHT = "right"
    PARKED = "parked"
    UNJUDGED = "cannot be judged"
    WRONG = "wrong"
    OTHER = "no DICOM file"


@dataclass(frozen=True, slots=True)
class Tried:
    """One file. ``why``: the reason it is parked for, what is wrong, or why nobody can judge.

    ``how``: what its pixels were compared with.
    """

    name: str
    judgement: Judgement
    syntax: str = ""
    why: str = ""
    how: str = ""


@dataclass(slots=True)
class Tally:
    """All files by syntax and judgement, and the first few that are not right."""

    by_syntax: Counter[tuple[str, str]] = field(default_factory=Counter)
    named: list[Tried] = field(default_factory=list)
    left_out: int = 0
    files: int = 0
    last: str = ""
    """The name of the last file that was added."""

    def add(self, tried: Tried) -> None:
        """Count a file."""
        self.files, self.last = self.files + 1, tried.name
        shown = f"parked: {tried.why.split(':')[0]}" if tried.judgement is Judgement.PARKED else ""
        syntax = syntax_of(tried.syntax).keyword if tried.syntax else ""
        self.by_syntax[syntax, shown or str(tried.judgement)] += 1
        if tried.judgement in (Judgement.RIGHT, Judgement.OTHER):
            return
        alike = sum(one.judgement is tried.judgement for one in self.named)
        if alike < NAMED_MAX:
            self.named.append(tried)
        else:
            self.left_out += 1

    def count(self, judgement: Judgement) -> int:
        """Files of this judgement."""
        return sum(
            count
            for (_, shown), count in self.by_syntax.items()
            if shown.startswith(str(judgement))
        )

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "files": {str(judgement): self.count(judgement) for judgement in Judgement},
            "by_syntax": [
                {"syntax": syntax, "result": shown, "files": count}
                for (syntax, shown), count in sorted(self.by_syntax.items())
            ],
            "named": [asdict(one) for one in self.named],
            "left_out": self.left_out,
        }


def files_in(folder: Path, *, after: str | None = None) -> list[Path]:
    """Return every file below a folder, in order; ``after`` a name in it only those behind it.

    Raises OSError.
    """
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if after is None or path > folder / after]


def try_file(path: Path, name: str, wanted_syntax: str) -> Tried:  # noqa: PLR0911 (a table)
    """Transcode one file to a native syntax and judge the result; runs in a process of its own."""
    try:
        data = path.read_bytes()
        meta = read_file_meta(memoryview(data))
    except OSError as exc:
        return Tried(name, Judgement.UNJUDGED, why=f"cannot be read: {exc.strerror}")
    except InstanceError:
        return Tried(name, Judgement.OTHER)
    try:
        result = transcode(data, wanted_syntax=wanted_syntax, options=TranscodeOptions())
        body = b"".join(result.body)
    except InstanceError as exc:
        judgement = Judgement.OTHER if exc.reason is Reason.NOT_DICOM else Judgement.PARKED
        return Tried(name, judgement, meta.syntax, f"{exc.reason}: {exc.message}")
    # What is passed on differs from the source by a preamble at most, which is looked at there.
    source = b"".join(unchanged(memoryview(data)))
    sample = Sample(name, "the folder", meta.syntax, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict = compare_instance(sample, body, wanted_syntax=wanted_syntax)
    except MemoryError:
        return Tried(name, Judgement.UNJUDGED, meta.syntax, "it needs more memory than there is")
    except JUDGE_FAULTS as exc:
        why = f"the judges cannot read it ({type(exc).__name__})"
        return Tried(name, Judgement.UNJUDGED, meta.syntax, why)
    weak = WEAK.get(verdict.how)
    excused = all("samples differ" in p or _lossy_mark(p) for p in verdict.problems)
    if weak and verdict.problems and excused:
        return Tried(name, Judgement.UNJUDGED, meta.syntax, f"{verdict.how} differs, but {weak}")
    if verdict.right:
        return Tried(name, Judgement.RIGHT, meta.syntax, how=verdict.how)
    return Tried(name, Judgement.WRONG, meta.syntax, "; ".join(verdict.problems), verdict.how)


def _lossy_mark(problem: str) -> bool:
    return problem.startswith("(0028,211") and problem.endswith(" added")


@dataclass(frozen=True, slots=True)
class _FileToTry:
    """A file to try."""

    path: Path
    name: str
    wanted_syntax: str


End = Tried | InstanceFailed | ExecutorFailed


def _try(function: Callable[[Path, str, str], Tried], file: _FileToTry) -> Tried:
    return function(file.path, file.name, file.wanted_syntax)


def try_folder(
    folder: Path,
    paths: Iterable[Path],
    *,
    wanted_syntax: str,
    workers: int | None = None,
    timeout_s: float = FILE_TIMEOUT_S,
    function: Callable[[Path, str, str], Tried] = try_file,
) -> Iterator[Tried]:
    """Yield what became of each of these files of a folder, in order."""
    files = (_FileToTry(path, str(path.relative_to(folder)), wanted_syntax) for path in paths)
    with OrderedPool(
        partial(_try, function),
        workers=workers or os.cpu_count() or 1,
        memory_bytes=FILE_MEMORY_BYTES,
        timeout_s=timeout_s,
    ) as pool:
        for file, end in pool.results(files):
            yield _tried(file, end)


def _tried(file: _FileToTry, end: End) -> Tried:
    match end:
        case Tried():
            return end
        case InstanceFailed(reason=Reason.TIMED_OUT):
            why = "a decoder did not return in time"
        case InstanceFailed(reason=Reason.OUT_OF_MEMORY):
            why = "it needs more memory than there is"
        case InstanceFailed() | ExecutorFailed():
            why = end.message
    return Tried(file.name, Judgement.UNJUDGED, why=why)


def rows(tally: Tally) -> Iterable[Sequence[str]]:
    """Syntax, result and count, for a table."""
    for (syntax, shown), count in sorted(tally.by_syntax.items()):
        yield syntax or "-", shown, str(count)


def named_rows(tally: Tally) -> Iterable[Sequence[str]]:
    """Name, result and reason of the files that are named, and how many are not."""
    for one in tally.named:
        yield one.name, str(one.judgement), one.why[:160]
    if tally.left_out:
        yield f"and {tally.left_out} more", "", ""

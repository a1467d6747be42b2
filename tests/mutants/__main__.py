"""``make mutants``: plant small bugs, one at a time, and see whether the nearest tests notice.

mutmut plants and runs them, in a copy of the repository below build/mutants/ for each part of
``modules.py``. A run that was interrupted goes on where it was; a file that has changed is begun
anew, and what survived is tried again when anything has changed. Survivors are printed with their
diff, but for those that equivalent.toml explains.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.modules import PARTS, Part
from tests.shared_samples import SHARED

REPOSITORY = Path(__file__).resolve().parents[2]
WORK = REPOSITORY / "build" / "mutants"
PAGE = REPOSITORY / "docs" / "reference" / "mutants.md"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
COPIED = ("bridge", "tests", "docs", "compose", "scripts")
LOG = "mutmut.log"
ROW = re.compile(r"^\| `(\w+)` \|.*$", re.MULTILINE)
SURVIVED, NO_TESTS, NOT_TRIED = "survived", "no tests", "not tried"
STATUS = {0: SURVIVED, 5: NO_TESTS, 33: NO_TESTS, None: NOT_TRIED, 2: NOT_TRIED}
"""What mutmut notes of a mutant: pytest's exit code. Any other means that it was noticed."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that no test has noticed. ``name``: mutmut's."""

    name: str
    status: str
    path: str
    diff: str

    def lines(self, sign: str) -> list[str]:
        """Return the lines that it takes out ("-") or puts in ("+")."""
        return [
            line[1:].strip()
            for line in self.diff.splitlines()
            if line.startswith(sign) and not line.startswith(sign * 3)
        ]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the mutants of a part."""

    counts: Counter[str]
    survivors: list[Survivor]
    explained: int

    @property
    def total(self) -> int:
        """All mutants."""
        return self.counts.total()

    @property
    def tried(self) -> str:
        """How many were tried, and of how many where not of all."""
        left = self.counts[NOT_TRIED]
        return f"{self.total - left} of {self.total}" if left else f"{self.total}"

    @property
    def killed(self) -> int:
        """Those that a test has noticed."""
        return self.counts["killed"]

    @property
    def share(self) -> float:
        """Killed ones among those that change something and were tried, 0 to 1."""
        tried = self.total - self.explained - self.counts[NOT_TRIED]
        return self.killed / tried if tried else 1.0


def main() -> int:
    """Run; 1 when something unexplained survived, 2 when a part could not be tried."""
    wanted = _arguments()
    lines = changed_lines(wanted.since) if wanted.since else None
    names = wanted.parts or list(PARTS)
    left, failed = 0, False
    for name in names:
        part = PARTS[name]
        files = files_of(part)
        if lines is not None:
            files = [path for path in files if lines.get(path)]
        if not files:
            continue
        functions = None if lines is None else functions_at(files, lines)
        if functions is not None and not functions:
            continue
        home = WORK / (name if lines is None else f"{name}-changed")
        prepare(home, files, tests_of(part))
        _say(f"[mutants] {name}: {len(files)} files")
        if lines is None and wanted.every > 1:
            functions = every(home, files, wanted.every)
        code = run(home, functions, jobs=wanted.jobs)
        if code != 0:
            _say(f"[mutants] {name}: mutmut ended with {code}; see {home / LOG}")
            failed = True
            continue
        result = result_of(home, files, only=None if lines is None else lines)
        left += len(result.survivors)
        show(name, part, result)
        if lines is None and not wanted.no_page:
            note(name, part, result)
    return 2 if failed else 1 if left else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {' '.join(PARTS)}")
    parser.add_argument("--since", metavar="REV", help="only lines that were changed since then")
    parser.add_argument("--every", type=int, default=1, help="only each so many-th mutant")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--no-page", action="store_true", help="leave docs as they are")
    wanted = parser.parse_args()
    unknown = sorted(set(wanted.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {' '.join(unknown)}. There are: {' '.join(PARTS)}")
    return wanted


def files_of(part: Part) -> list[str]:
    """List the files of a part, from the root of the repository. Raises FileNotFoundError."""
    return _matching("bridge", part.files)


def tests_of(part: Part) -> list[str]:
    """List the test files of a part, from the root of the repository. Raises FileNotFoundError."""
    return _matching("tests", part.tests)


def _matching(below: str, patterns: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        paths = sorted(path for path in (REPOSITORY / below).glob(pattern) if path.stat().st_size)
        if not paths:
            raise FileNotFoundError(f"tests/mutants/modules.py: nothing is {below}/{pattern}")
        found += [str(path.relative_to(REPOSITORY)) for path in paths]
    return list(dict.fromkeys(found))


# What has changed


def changed_lines(since: str) -> dict[str, set[int]]:
    """Return the lines below bridge/ that were changed since a revision, by file."""
    diff = _git("diff", "--unified=0", since, "--", "bridge")
    return lines_of_diff(diff)


def lines_of_diff(diff: str) -> dict[str, set[int]]:
    """Return the new lines that a diff without context tells of, by file."""
    found: dict[str, set[int]] = {}
    path = ""
    for line in diff.splitlines():
        if line.startswith("+++ "):
            path = line[4:].removeprefix("b/")
        elif place := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            first, count = int(place[1]), int(place[2] or 1)
            found.setdefault(path, set()).update(range(first, first + count))
    return found


def functions_at(files: list[str], lines: Mapping[str, set[int]]) -> list[str]:
    """Name the functions in which changed lines are, as mutmut's patterns."""
    found: list[str] = []
    for path in files:
        module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
        for owner, function in _functions(tree):
            if lines[path] & set(range(function.lineno, (function.end_lineno or 0) + 1)):
                mangled = f"xǁ{owner}ǁ{function.name}" if owner else f"x_{function.name}"
                found.append(f"{module}.{mangled}__mutmut_*")
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            yield from (
                (node.name, inner) for inner in node.body if isinstance(inner, ast.FunctionDef)
            )


# The copy in which mutmut works


def prepare(home: Path, files: list[str], tests: list[str]) -> None:
    """Bring the copy up to date; what has not changed keeps its times, and so its results."""
    listed = set(_git("ls-files", "-co", "--exclude-standard", *COPIED, "*.*").splitlines())
    changed = False
    for path in sorted(listed):
        origin = REPOSITORY / path
        if not origin.is_file():
            continue
        data = origin.read_bytes()
        if path in files:
            data = undecorated(data.decode("utf-8")).encode("utf-8")
        changed |= _write(home / path, data)
    for folder in COPIED:
        for copy in (home / folder).rglob("*.py"):
            if str(copy.relative_to(home)) not in listed:
                copy.unlink()
    beside = home / SHARED.name  # as it lies beside the repository
    if SHARED.is_dir() and not beside.exists():
        beside.symlink_to(SHARED)
    changed |= _write(home / "setup.cfg", configuration(files, tests).encode("utf-8"))
    if changed:
        _try_survivors_again(home, files)


def _write(path: Path, data: bytes) -> bool:
    """Write what is not there yet; returns whether it was not."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _try_survivors_again(home: Path, files: list[str]) -> None:
    """Forget what survived: other tests may notice it. What was noticed stays so."""
    (home / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    for path in files:
        meta = home / "mutants" / f"{path}.meta"
        if not meta.is_file():
            continue
        noted = json.loads(meta.read_text())
        codes = noted["exit_code_by_key"]
        again = [name for name, code in codes.items() if STATUS.get(code) in (SURVIVED, NO_TESTS)]
        noted["exit_code_by_key"] = codes | dict.fromkeys(again)
        meta.write_text(json.dumps(noted))


def configuration(files: list[str], tests: list[str]) -> str:
    """Write mutmut's configuration."""
    options = {
        "source_paths": ["bridge"],
        "only_mutate": files,
        "also_copy": [*COPIED[1:], "README.md", "Makefile", ".env.example"],
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-n", "0"],
    }
    text = "".join(
        f"{name} =\n" + "".join(f"    {value}\n" for value in values)
        for name, values in options.items()
    )
    return f"[mutmut]\n{text}"


def undecorated(source: str) -> str:
    """Write decorators as assignments: mutmut leaves a decorated function alone.

    ``@property def x`` becomes ``def x`` and ``x = property(x)``. Setters stay as they are.
    """
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    found = [
        node
        for body in bodies
        for node in body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    for node in sorted(found, key=lambda node: node.lineno, reverse=True):
        names = [ast.unparse(decorator) for decorator in node.decorator_list]
        if any(name in ("staticmethod", "classmethod") or "." in name for name in names):
            continue
        indent = " " * node.col_offset
        wrapped = node.name
        for name in reversed(names):
            wrapped = f"{name}({wrapped})"
        end = node.end_lineno or node.lineno
        lines.insert(end, f"\n{indent}{node.name} = {wrapped}\n")
        first = node.decorator_list[0].lineno
        del lines[first - 1 : node.lineno - 1]
    return "".join(lines)


def every(home: Path, files: list[str], step: int) -> list[str]:
    """Write the mutants, and name each ``step``-th of those of each file."""
    environment = os.environ | {"PYTHONPATH": str(home), "MUTANT_UNDER_TEST": "mutant_generation"}
    engine = [sys.executable, "-m", "tests.mutants.engine", "plant"]
    subprocess.run(engine, cwd=home, env=environment, stdout=subprocess.DEVNULL, check=True)
    return [name for path in files for name in list(_codes(home, path))[::step]]


def _codes(home: Path, path: str) -> dict[str, int | None]:
    """Return what became of the mutants of a file: exit codes by name."""
    meta = home / "mutants" / f"{path}.meta"
    found: dict[str, int | None] = {}
    if meta.is_file():
        found = json.loads(meta.read_text())["exit_code_by_key"]
    return found


def run(home: Path, functions: list[str] | None, *, jobs: int) -> int:
    """Run mutmut; its output goes to a file beside. Returns its exit code."""
    command = [sys.executable, "-m", "tests.mutants.engine", "run", "--max-children", str(jobs)]
    environment = os.environ | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with (home / LOG).open("w", encoding="utf-8") as log:
        code = subprocess.run(
            [*command, *(functions or ())],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if code and functions and "Filtered for specific mutants" in (home / LOG).read_text():
        return 0  # nothing in these functions can be mutated
    return code


# What came of it


def result_of(home: Path, files: list[str], *, only: Mapping[str, set[int]] | None) -> Result:
    """Read what mutmut has noted; ``only``: nothing but survivors in these lines."""
    counts: Counter[str] = Counter()
    unnoticed: dict[str, tuple[str, str]] = {}
    for path in files:
        for name, code in _codes(home, path).items():
            status = STATUS.get(code, "killed")
            if status == NOT_TRIED and only is not None:
                continue
            counts[status] += 1
            if status in (SURVIVED, NO_TESTS):
                unnoticed[name] = (status, path)
    diffs = diffs_of(home, {name: path for name, (_, path) in unnoticed.items()})
    survivors = [
        Survivor(name, status, path, diffs[name]) for name, (status, path) in unnoticed.items()
    ]
    if only is not None:
        survivors = [survivor for survivor in survivors if _touches(survivor, only[survivor.path])]
        # Those beside the changed lines are not to be counted as not noticed.
        killed = counts["killed"]
        counts = Counter(survivor.status for survivor in survivors)
        counts["killed"] = killed
    reasons = explanations()
    left = [survivor for survivor in survivors if not is_explained(survivor, reasons)]
    return Result(counts, left, explained=len(survivors) - len(left))


def _touches(survivor: Survivor, lines: set[int]) -> bool:
    text = (REPOSITORY / survivor.path).read_text(encoding="utf-8").splitlines()
    changed = {text[number - 1].strip() for number in lines if number <= len(text)}
    return any(line in changed for line in survivor.lines("-"))


def diffs_of(home: Path, paths: Mapping[str, str]) -> dict[str, str]:
    """Ask for the diffs of mutants, given each with its file."""
    if not paths:
        return {}
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.engine", "diffs"],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(home)},
        input=json.dumps(paths),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def explanations() -> list[dict[str, str]]:
    """Read equivalent.toml: mutants that change nothing, each with the reason."""
    if not EQUIVALENT.is_file():
        return []
    listed: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    return listed


def is_explained(survivor: Survivor, reasons: list[dict[str, str]]) -> bool:
    """Whether a survivor is listed: by its file, and the line before and after."""
    before, after = survivor.lines("-"), survivor.lines("+")
    return any(
        entry["file"] == survivor.path
        and entry["before"].strip() in before
        and (entry["after"].strip() in after or not (entry["after"] or after))
        for entry in reasons
    )


def show(name: str, part: Part, result: Result) -> None:
    """Print survivors with their diff, and the figures."""
    for survivor in result.survivors:
        _say(f"\n{survivor.path}: {survivor.status}: {survivor.name}")
        _say("\n".join(survivor.diff.splitlines()[3:]))
    _say(
        f"\n{name}: {result.killed} of {result.tried} noticed ({result.share:.1%}, goal "
        f"{part.goal:.0%}), {len(result.survivors)} survive, {result.explained} are explained"
    )
    if result.counts[NOT_TRIED]:
        _say(f"{name}: {result.counts[NOT_TRIED]} were not tried: they are when it is run again")


PAGE_HEAD = """# Mutants

`make mutants` plants small bugs into the code, one at a time (a condition turned round, a call left
out, a bound moved by one), and runs the nearest tests against each. A bug that no test notices
survives. Written by that command; how it works and why is in
[decision 5](../decisions/0005-mutants.md).

```
make mutants PARTS="checkpoint policy"   # parts of tests/mutants/modules.py; without: all, hours
make mutants SINCE=origin/main          # only what you have changed: minutes
make mutants PARTS=feed ARGS="--every 3"   # each third one: what is not held shows in it
```

A survivor is killed by a test, or is listed with the reason why it changes nothing in
`tests/mutants/equivalent.toml`. *Share* is what tests notice of those that change something.

| part | date | commit | mutants | noticed | explained | survive | share | goal |
|---|---|---|---|---|---|---|---|---|
"""


SIMULATION_HEAD = """
## The simulation alone

`make mutants-simulated` tries a random sample of the mutants of `loop.py`, `outcomes.py`,
`window.py`, `intake.py` (pipeline) and the parts `feed` and `gaps` against schedules of the
simulated world, each third one with an index in PostgreSQL, and runs no unit test. The goal is
70 %.

| date | commit | drawn | of | schedules for each | noticed | share |
|---|---|---|---|---|---|---|
"""


TABLES_HEAD = """
## Rows of tables

`make mutants-tables PARTS="orthanc streams"` leaves out each row of each table that stands outside
functions, exchanges it with the next one, or changes a value in it, one at a time.

| part | date | commit | changes | noticed | explained | survive |
|---|---|---|---|---|---|---|
"""


def note_simulated(*, drawn: int, of: int, seeds: int, noticed: int) -> None:
    """Write what the simulation alone has noticed into the page, below the parts."""
    date, commit = moment()
    share = noticed / max(1, drawn)
    parts, tables, _ = read_page()
    row = f"| {date} | {commit} | {drawn} | {of} | {seeds} | {noticed} | {share:.0%} |"
    write_page(parts, tables, [row])


def note_tables(name: str, *, total: int, noticed: int, explained: int) -> None:
    """Write the figures of the tables of a part into the page; all else stays."""
    date, commit = moment()
    parts, tables, simulated = read_page()
    left = total - noticed - explained
    tables[name] = f"| `{name}` | {date} | {commit} | {total} | {noticed} | {explained} | {left} |"
    write_page(parts, tables, simulated)


def read_page() -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return the rows of the page: of the parts, of their tables, of the simulation."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    text, _, simulated = text.partition(SIMULATION_HEAD)
    parts, _, tables = text.partition(TABLES_HEAD)
    by_name = [{known[1]: known[0] for known in ROW.finditer(text)} for text in (parts, tables)]
    return by_name[0], by_name[1], simulated.splitlines()


def write_page(parts: dict[str, str], tables: dict[str, str], simulated: list[str]) -> None:
    """Write the page with these rows."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    text = PAGE_HEAD + _ordered(parts)
    if tables:
        text += TABLES_HEAD + _ordered(tables)
    if simulated:
        text += SIMULATION_HEAD + "\n".join(simulated) + "\n"
    PAGE.write_text(text, encoding="utf-8")


def _ordered(rows: dict[str, str]) -> str:
    return "".join(f"{rows[known]}\n" for known in PARTS if known in rows)


def moment() -> tuple[str, str]:
    """Return the date and the commit that figures are of."""
    commit = _git("rev-parse", "--short", "HEAD").strip()
    return time.strftime("%Y-%m-%d", time.gmtime()), commit


def note(name: str, part: Part, result: Result) -> None:
    """Write the figures of a part into the page; the others keep theirs."""
    parts, tables, simulated = read_page()
    date, commit = moment()
    parts[name] = (
        f"| `{name}` | {date} | {commit} | {result.tried} | {result.killed} | {result.explained} "
        f"| {len(result.survivors)} | {result.share:.1%} | {part.goal:.0%} |"
    )
    write_page(parts, tables, simulated)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _git(*arguments: str) -> str:
    git = shutil.which("git") or "git"
    return subprocess.run(
        [git, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())

"""``make mutants-simulated``: which mutants the simulation alone notices.

A random sample of the mutants of the stateful files is tried against schedules, one after the
other until one breaks a promise or raises; no unit test runs. In each third schedule the source has
its index in PostgreSQL, so that rows come late: what is done about gaps shows only there. mutmut
makes the mutants, in the same copy for all files. The sample is drawn from a seed; what the time
allows of it is told.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bridge.config import Settings
from tests.mutants.__main__ import STATUS, WORK, diffs_of, note_simulated, prepare
from tests.mutants.modules import PARTS

FILES = (
    *(
        f"bridge/{name}"
        for name in (
            "pipeline/loop.py",
            "pipeline/outcomes.py",
            "pipeline/window.py",
            "pipeline/intake.py",
        )
    ),
    *(f"bridge/{name}" for part in ("feed", "gaps") for name in PARTS[part].files),
)
HOME = WORK / "simulated"
POSTGRESQL_EVERY = 3
"""One schedule of so many has rows that come late; with recounts and without, by turns."""
STUCK_S = 60
"""Of the processor: a mutant that makes the simulation take so long is noticed."""


def main() -> int:
    """Plant, draw, try, tell."""
    wanted = _arguments()
    if wanted.inside:
        return _try_all(json.load(sys.stdin), seeds=wanted.seeds, minutes=wanted.minutes)
    prepare(HOME, list(FILES), ["tests/unit/pipeline/test_window.py"])
    environment = os.environ | {"PYTHONPATH": str(HOME), "MUTANT_UNDER_TEST": "mutant_generation"}
    engine = [sys.executable, "-m", "tests.mutants.engine"]
    subprocess.run([*engine, "plant"], cwd=HOME, env=environment, check=True)
    paths = {
        name: path
        for path in FILES
        for name in json.loads((HOME / "mutants" / f"{path}.meta").read_text())["exit_code_by_key"]
    }
    drawn = random.Random(wanted.seed).sample(sorted(paths), wanted.sample)
    inside = [sys.executable, "-m", "tests.mutants.simulated", "--inside"]
    inside += ["--seeds", str(wanted.seeds), "--minutes", str(wanted.minutes)]
    copy = HOME / "mutants"
    done = subprocess.run(
        inside,
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "MUTANT_UNDER_TEST": ""},
        input=json.dumps(drawn),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    noticed: dict[str, bool] = json.loads(done.stdout)
    survivors = {name: paths[name] for name, seen in noticed.items() if not seen}
    for name, diff in diffs_of(HOME, survivors).items():
        print(f"\n{name}\n" + "\n".join(diff.splitlines()[3:]))  # noqa: T201
    count, total = sum(noticed.values()), len(noticed)
    print(  # noqa: T201
        f"\nthe simulation alone noticed {count} of {total} mutants, drawn of {len(paths)} "
        f"({count / max(1, total):.0%}), with {wanted.seeds} schedules for each"
    )
    note_simulated(drawn=total, of=len(paths), seeds=wanted.seeds, noticed=count)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.simulated")
    parser.add_argument("--sample", type=int, default=150, help="mutants")
    parser.add_argument("--seeds", type=int, default=300, help="schedules for each")
    parser.add_argument("--seed", type=int, default=1, help="which sample is drawn")
    parser.add_argument("--minutes", type=float, default=60.0, help="no mutant begins after that")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _try_all(names: list[str], *, seeds: int, minutes: float) -> int:
    """Try mutants, each in a fork of this process, which has imported everything."""
    from tests.simulation.bench import settings_for

    settings = {policy: settings_for(policy) for policy in ("stop", "snapshot")}
    begun_s = time.monotonic()
    noticed: dict[str, bool] = {}
    for name in names:
        if time.monotonic() - begun_s > 60 * minutes:
            break
        child = os.fork()
        if child == 0:
            _try_one(name, seeds, settings)
        _, status = os.waitpid(child, 0)
        noticed[name] = STATUS.get(status) is None
    json.dump(noticed, sys.stdout)
    return 0


def _try_one(name: str, seeds: int, settings: dict[str, Settings]) -> None:
    """End this process: with 0 when no schedule has shown anything."""
    from tests.simulation.bench import simulate
    from tests.simulation.world import World, traced_world

    os.environ["MUTANT_UNDER_TEST"] = name
    resource.setrlimit(resource.RLIMIT_CPU, (STUCK_S, STUCK_S))
    memory = Path("/dev/shm")  # noqa: S108 (a RAM disk, where there is one)
    code = 1
    try:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
            for seed in range(seeds):
                world_of = World if seed % POSTGRESQL_EVERY else traced_world
                simulate(seed, Path(directory), settings, world_of)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())

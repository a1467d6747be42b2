"""What an installation of the bridge would make of an image, to compare two of them.

``python -m bridge.worker.dask.build`` prints it as JSON. Both sides run it as a process of its own:
a codec that crashes at import takes nobody with it, and codecs stay out of the bridge's own
process.
"""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bridge
from bridge.worker.dask.values import from_plain, to_plain

TIMEOUT_S = 120.0
SAID_MAX = 300
TASK_MODULES = ("bridge.worker.transfer", "bridge.cluster.remote", "bridge.dicom.selftest")
"""Where a task begins on a worker of a cluster, and what says whether it can decode."""


@dataclass(frozen=True, slots=True)
class Build:
    """One installation. ``code``: digest of what decides about bytes and outcomes.

    ``codecs``: a line for each decoder and encoder with the version of its library.
    ``problem``: why it cannot decode everything that the table promises; empty when it can.
    """

    version: str
    code: str
    codecs: tuple[str, ...]
    problem: str = ""

    @property
    def digest(self) -> str:
        """One text that is the same for the same installation."""
        parts = (self.version, self.code, *self.codecs)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def build_of_this_installation() -> Build:
    """Ask a process of its own. Never raises: what goes wrong is the build's ``problem``."""
    try:
        done = subprocess.run(  # noqa: S603 (ourselves)
            [sys.executable, "-m", __name__],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        return from_plain(Build, json.loads(done.stdout))
    except subprocess.CalledProcessError as exc:
        # The last line of a traceback: which module is missing, or that it was killed.
        lines = exc.stderr.decode(errors="replace").strip().splitlines() or [str(exc)]
        problem = f"its codecs cannot be loaded: {lines[-1][:SAID_MAX]}"
    except subprocess.TimeoutExpired:
        problem = f"its codecs were not loaded within {TIMEOUT_S:g} s"
    except (OSError, ValueError) as exc:
        problem = f"its codecs are unknown: {type(exc).__name__}"
    return Build(bridge.__version__, "", (), problem)


def build_refusal(worker: Build, own: Build) -> str:
    """Say why a worker must not work for this bridge; empty when it may."""
    if worker.version != own.version:
        return f"It runs orthanc-bridge {worker.version}, this bridge is {own.version}."
    if own.problem:
        return (
            f"It cannot be compared, because this bridge cannot decode everything: {own.problem}."
        )
    if worker.problem:
        return f"It cannot decode everything: {worker.problem}."
    if worker.codecs != own.codecs:
        here, there = set(own.codecs), set(worker.codecs)
        differ = "; ".join(
            f"{name}: {', '.join(sorted(lines)) or 'none'}"
            for name, lines in (("there", there - here), ("here", here - there))
        )
        return f"Its codecs differ from the bridge's ({differ[:SAID_MAX]})."
    if worker.code != own.code:
        return f"Its code differs from the bridge's, although both say version {worker.version}."
    return ""


def code_digest(package: Path = Path(bridge.__file__).parent) -> str:
    """Digest the sources that decide what becomes of an instance: all that a task imports."""
    whole = hashlib.sha256()
    for path in modules_of_the_task(package):
        whole.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def modules_of_the_task(package: Path = Path(bridge.__file__).parent) -> list[Path]:
    """List our files that a task imports, directly or not, in functions too.

    They are read and not imported: what a function imports late decides as well.
    """
    found: set[Path] = set()
    due = [_file_of(package, name) for name in TASK_MODULES]
    while due:
        path = due.pop()
        if path is None or path in found:
            continue
        found.add(path)
        parts = path.relative_to(package.parent).with_suffix("").parts
        names = {".".join(parts[:length]) for length in range(1, len(parts))}
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Import(names=aliases):
                    names |= {alias.name for alias in aliases}
                case ast.ImportFrom(module=str() as module, names=aliases, level=0):
                    names |= {module} | {f"{module}.{alias.name}" for alias in aliases}
                case _:
                    pass
        due += [_file_of(package, name) for name in names]
    return sorted(found)


def _file_of(package: Path, name: str) -> Path | None:
    """Return the file of one of our modules; None for what is no module, or not ours."""
    first, *rest = name.split(".")
    if first != package.name:
        return None
    place = package.joinpath(*rest)
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file() and path != package:
            return path
    return None


def _codec_lines() -> tuple[str, ...]:
    from bridge.dicom.codecs import DECODERS, ENCODERS
    from bridge.versions import library_version

    def line(place: str, name: str, library: str) -> str:
        # zlib comes with the system, and whichever version inflates to the same bytes.
        return f"{place}/{name} {library if library == 'zlib' else library_version(library)}"

    decoders = [line(f, d.name, d.library) for f, table in DECODERS.items() for d in table]
    encoders = [line(uid, e.name, e.library) for uid, e in ENCODERS.items()]
    return (*decoders, *encoders)


def _problem() -> str:
    from bridge.dicom.codecs import DECODERS
    from bridge.dicom.selftest import decode_sample
    from bridge.errors import InstanceError

    for family in DECODERS:
        try:
            decode_sample(family)
        except InstanceError as exc:
            return f"{family}: {exc.message.rstrip('.')}"
    return ""


if __name__ == "__main__":
    made = Build(bridge.__version__, code_digest(), _codec_lines(), _problem())
    sys.stdout.write(json.dumps(to_plain(made)))

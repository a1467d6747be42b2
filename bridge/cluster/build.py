"""What an installation of the bridge would make of an image, to compare two of them.

``python -m bridge.cluster.build`` prints it as JSON. Both sides run it as a process of its own:
a codec that crashes at import takes nobody with it, and codecs stay out of the bridge's own
process.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bridge
from bridge.core.plain import from_plain, to_plain

TIMEOUT_S = 120.0
SAID_MAX = 300


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
        problem = f"its codecs cannot be asked for: {type(exc).__name__}"
    return Build(bridge.__version__, _code_digest(), (), problem)


def refusal(worker: Build, own: Build) -> str:
    """Say why a worker must not work for this bridge; empty when it may."""
    if worker.version != own.version:
        return f"It runs orthanc-bridge {worker.version}, this bridge is {own.version}."
    if own.problem:
        return f"It cannot be compared: this bridge cannot decode everything: {own.problem}."
    if worker.problem:
        return f"It cannot decode everything: {worker.problem}."
    if worker.codecs != own.codecs:
        here, there = set(own.codecs), set(worker.codecs)
        differ = "; ".join(
            f"{name}: {', '.join(sorted(lines)) or 'none'}"
            for name, lines in (("there", there - here), ("here", here - there))
        )
        return f"Its codecs are others ({differ[:SAID_MAX]})."
    if worker.code != own.code:
        return f"Its code differs although it calls itself {worker.version} too."
    return ""


def _code_digest() -> str:
    """Digest the sources that decide what becomes of an instance."""
    package = Path(bridge.__file__).parent
    paths = [*package.glob("core/*.py"), *package.glob("orthanc/*.py")]
    paths += [package / name for name in ("transfer.py", "parcels.py", "sides.py", "workers.py")]
    whole = hashlib.sha256()
    for path in sorted(paths):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def _codec_lines() -> tuple[str, ...]:
    from bridge.core.codecs import DECODERS, ENCODERS
    from bridge.libraries import library_version

    def line(place: str, name: str, library: str) -> str:
        # zlib comes with the system, and whichever version inflates to the same bytes.
        return f"{place}/{name} {library if library == 'zlib' else library_version(library)}"

    decoders = [line(f, d.name, d.library) for f, table in DECODERS.items() for d in table]
    encoders = [line(uid, e.name, e.library) for uid, e in ENCODERS.items()]
    return (*decoders, *encoders)


def _problem() -> str:
    from bridge.core.codecs import DECODERS
    from bridge.core.errors import InstanceError
    from bridge.selftest import decode_sample

    for family in DECODERS:
        try:
            decode_sample(family)
        except InstanceError as exc:
            return f"{family}: {exc.message.rstrip('.')}"
    return ""


if __name__ == "__main__":
    made = Build(bridge.__version__, _code_digest(), _codec_lines(), _problem())
    sys.stdout.write(json.dumps(to_plain(made)))

"""The figures of docs/poke.md: ``.venv/bin/python -m tests.poke_figures``, half a minute.

What poking gains (arrival at the target of a bridge that polls every 30 s) and what it costs the
source (storing, with a bridge that answers, that is not there, that hangs).
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.integration.conftest import ORTHANC, Pair

SCRIPT = Path(__file__).resolve().parents[1] / "compose" / "poke.lua"
TOKEN = "a-token-for-figures-only"  # noqa: S105
POLL_S = 30.0
ARRIVALS = 20
STORED = 200


def speaking(port: int, **options: object) -> dict[str, object]:
    """Return the configuration of an Orthanc that pokes that port."""
    bridge = {"PokeUrl": f"http://127.0.0.1:{port}/poke", "PokeToken": TOKEN}
    return ORTHANC | {"LuaScripts": [str(SCRIPT)], "OrthancBridge": bridge} | options


@contextmanager
def reserved_port(*, listening: bool = False) -> Iterator[int]:
    """Hold a port that refuses connections, or (``listening``) accepts them and never answers."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen()
        yield int(held.getsockname()[1])


@contextmanager
def pair_of(port: int, directory: Path, **options: object) -> Iterator[Pair]:
    """Start a source that pokes that port, and a target."""
    home = directory / "home"
    home.mkdir(parents=True)
    with ExitStack() as stack:
        source, target = (
            stack.enter_context(OrthancServer(name, directory / name, config=config))
            for name, config in (("source", speaking(port, **options)), ("target", ORTHANC))
        )
        pair = Pair(source, target, home, stack)
        pair.settings |= {"BRIDGE_HEALTH_PORT": str(port), "BRIDGE_POLL_INTERVAL_S": f"{POLL_S:g}"}
        yield pair


def arrival_s(pair: Pair, data: bytes, within_s: float) -> float:
    """Seconds from the source's answer to the instance at the target."""
    instance_id = pair.send(data)
    stored_s = time.monotonic()
    wait_until(lambda: pair.target.has_instance(instance_id), "it arrives", within_s)
    return time.monotonic() - stored_s


def _arrivals(directory: Path) -> list[float]:
    with reserved_port() as port, pair_of(port, directory) as pair:
        bridge = pair.start("run", POKE_TOKEN=TOKEN)
        bridge.wait_health(lambda said: bool(said["caught_up"]), "the first look is over")
        first, *others = small_series(ARRIVALS + 1)
        arrival_s(pair, first, POLL_S)  # starts the workers
        return [arrival_s(pair, data, POLL_S) for data in others]


def _storing(pair: Pair) -> list[float]:
    times = []
    for data in small_series(STORED):
        began_s = time.monotonic()
        pair.send(data)
        times.append(time.monotonic() - began_s)
    return times


def _costs(directory: Path) -> Iterator[tuple[str, list[float]]]:
    with reserved_port() as port:
        with pair_of(port, directory / "none", LuaScripts=[]) as pair:
            yield "no script", _storing(pair)
        with pair_of(port, directory / "answers") as pair:
            bridge = pair.start("run", POKE_TOKEN=TOKEN, TARGET_URL="http://127.0.0.1:9")
            bridge.wait_logged("side_down")  # it is poked and moves nothing meanwhile
            yield "the bridge answers", _storing(pair)
        with pair_of(port, directory / "refuses") as pair:
            yield "the bridge is not there", _storing(pair)
    with reserved_port(listening=True) as port:
        for timeout_s in (1, 5):
            with pair_of(port, directory / f"hangs{timeout_s}", HttpTimeout=timeout_s) as pair:
                yield f"it hangs, `HttpTimeout` {timeout_s}", _storing(pair)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        seconds = _arrivals(Path(name) / "arrivals")
        sys.stdout.write(
            f"{ARRIVALS} arrivals, polling every {POLL_S:g} s: median {median(seconds):.2f} s, "
            f"longest {max(seconds):.2f} s\n\n"
            f"| storing {STORED} instances | median | longest |\n|---|---|---|\n"
        )
        for text, times in _costs(Path(name)):
            median_ms, longest_ms = 1000 * median(times), 1000 * max(times)
            sys.stdout.write(f"| {text} | {median_ms:.1f} ms | {longest_ms:.0f} ms |\n")


if __name__ == "__main__":
    main()

"""What stands in the place of stderr: it never raises, never waits, and counts what is lost."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.standard_streams import LogStream
from tests.bridge_process import wait_until

LONG = "x" * 1000
PIPE_BYTES = 4096


class Pipe:
    """A pipe with room for little, and a stream that writes to it."""

    def __init__(self, *, lines_max: int = 20, bytes_max: int = 1_000_000) -> None:
        self.reads, self.writes = os.pipe()
        fcntl.fcntl(self.writes, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.stream = LogStream(self.writes, lines_max=lines_max, bytes_max=bytes_max)
        self._read = b""

    def read_all(self) -> list[str]:
        """Read until nothing waits any more; the lines."""

        def empty() -> bool:
            os.set_blocking(self.reads, False)
            try:
                while data := os.read(self.reads, 65_536):
                    self._read += data
            except BlockingIOError:
                pass
            return not self.stream.state().waiting

        wait_until(empty, "everything is written", 10)
        empty()
        return self._read.decode().splitlines()

    def close(self) -> None:
        os.set_blocking(self.reads, False)
        os.close(self.reads)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_lines_come_whole_and_in_order_from_the_thread(pipe: Pipe) -> None:
    pipe.stream.begin_thread()
    pipe.stream.write("a ")
    pipe.stream.write("line\nand")
    pipe.stream.write(" another\n")
    pipe.stream.write("no end")
    pipe.stream.flush()
    pipe.stream.end()
    assert pipe.read_all() == ["a line", "and another", "no end"]


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_told_in_its_place(
    pipe: Pipe,
) -> None:
    """Fails (by time) when whoever writes waits; by its lines when the gap is told elsewhere."""
    pipe.stream.lost_in_words = lambda lines: f"lost {lines}\n"
    pipe.stream.begin_thread()
    for number in range(200):
        pipe.stream.write(f"{number} {LONG}\n")
    wait_until(lambda: pipe.stream.state().stuck_s > 0.1, "it is stuck")
    state = pipe.stream.state()
    assert state.losing
    assert state.failing
    assert state.problem == ""
    lines = [line.partition(" ") for line in pipe.read_all()]
    first_lost = 200 - state.lost
    assert [number for number, *_ in lines] == [*map(str, range(first_lost)), "lost"]
    assert lines[-1][2] == str(state.lost)
    pipe.stream.write("after\n")
    assert pipe.read_all()[-1] == "after"
    after = pipe.stream.state()
    assert (after.lost, after.losing, after.failing) == (state.lost, False, False)


def test_memory_is_bounded_in_bytes_too() -> None:
    pipe = Pipe(lines_max=1_000_000, bytes_max=50_000)
    pipe.stream.begin_thread()
    for _ in range(1000):
        pipe.stream.write(f"{LONG}\n")
    assert pipe.stream.state().waiting <= 50
    assert pipe.stream.state().lost >= 900
    pipe.close()


def test_a_line_beyond_all_bounds_is_lost_alone() -> None:
    pipe = Pipe(bytes_max=100)
    pipe.stream.lost_in_words = lambda lines: f"lost {lines}\n"
    pipe.stream.begin_thread()
    pipe.stream.write(f"{LONG}\n")
    pipe.stream.write("after\n")
    assert pipe.read_all() == ["lost 1", "after"]
    pipe.close()


def test_the_end_waits_no_longer_than_it_may(pipe: Pipe) -> None:
    pipe.stream.begin_thread()
    for _ in range(10):
        pipe.stream.write(f"{LONG}\n")
    begun = time.monotonic()
    pipe.stream.end(within_s=0.3)
    assert 0.2 < time.monotonic() - begun < 5


def test_the_end_waits_for_a_reader_who_reads(pipe: Pipe) -> None:
    pipe.stream.begin_thread()
    for _ in range(10):
        pipe.stream.write(f"{LONG}\n")
    reader = threading.Timer(0.2, pipe.read_all)
    reader.start()
    pipe.stream.end(within_s=30)
    assert not pipe.stream.state().waiting
    reader.join()


@pytest.mark.parametrize("threaded", [False, True])
def test_a_full_disk_raises_in_nobody(threaded: bool) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        stream = LogStream(full.fileno())
        if threaded:
            stream.begin_thread()
        for _ in range(3):
            stream.write("a line\n")
        stream.write("no end")
        stream.flush()
        if threaded:
            wait_until(lambda: bool(stream.state().problem), "the system has answered")
            assert stream.state().problem == "No space left on device"
            assert (stream.state().waiting, stream.state().lost) == (4, 0), "it may come yet"
        else:
            assert stream.state().lost == 4
            assert not stream.state().failing, "a command has no /health"
        stream.end(within_s=0.1)
        if threaded:
            full_no = full.fileno()
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), full_no)
            wait_until(lambda: not stream.state().waiting, "there is room again")
            assert stream.state().problem == ""


def test_a_reader_that_is_gone_raises_in_nobody(pipe: Pipe) -> None:
    os.close(pipe.reads)
    pipe.stream.write("a line\n")
    assert pipe.stream.state().lost == 1
    pipe.stream.begin_thread()
    pipe.stream.write("a line\n")
    wait_until(lambda: pipe.stream.state().problem == "Broken pipe", "the system has answered")
    pipe.reads = os.open(os.devnull, os.O_RDONLY)


def test_it_takes_text_only(pipe: Pipe) -> None:
    """Typer tells a stream of bytes by this."""
    with pytest.raises(TypeError):
        pipe.stream.write(b"")  # type: ignore[arg-type]


def command(*arguments: str, redirected: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = f"{sys.executable} -m bridge {' '.join(arguments)} {redirected}"
    return subprocess.run(
        ["/bin/sh", "-c", line], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("arguments", "redirected", "code", "said"),
    [
        (("--version",), ">/dev/full", 2, "cannot be written to stdout: No space left"),
        (("docs", "logs"), ">/dev/full", 2, "cannot be written to stdout: No space left"),
        (("docs", "logs"), ">/dev/full 2>/dev/full", 2, ""),
        (("docs", "logs"), ">&-", 2, "cannot be written to stdout: Bad file descriptor"),
        (("--version",), "2>/dev/full", 0, ""),
        (("--version",), "2>&-", 0, ""),
        (("--no-such",), "2>/dev/full", 2, ""),
        (("status",), "2>/dev/full", 2, ""),
        (("status",), "2>&- >&-", 2, ""),
        (("status",), "", 2, "BRIDGE_SOURCE_URL"),
    ],
)
def test_exit_codes_stay_where_nothing_can_be_written(
    arguments: tuple[str, ...], redirected: str, code: int, said: str, tmp_path: Path
) -> None:
    """Python's own 120 and our 1 are neither."""
    done = command(*arguments, redirected=redirected, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "A bug" not in done.stderr


def test_a_reader_of_results_that_is_gone_is_no_error_to_tell(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "docs", "logs"],
        cwd=tmp_path,
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_stderr_never_becomes_another_file(tmp_path: Path) -> None:
    """Otherwise the state file may have its number, and what is meant for stderr goes into it."""
    script = (
        "import os, sys\n"
        "from bridge.standard_streams import take_stderr_over\n"
        "take_stderr_over()\n"
        "print(os.open('state', os.O_CREAT | os.O_RDWR))\n"
        "sys.stderr.write('said\\n')\n"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'{sys.executable} -c "$0" 2>&- <&-', script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) > 2
    assert (tmp_path / "state").read_bytes() == b""

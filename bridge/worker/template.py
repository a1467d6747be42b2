"""The process that workers are forked from. It has imported all that they need, and does no work.

Workers that are forks of it share the memory of the libraries: one costs some 8 MB instead of 75,
and begins in 10 ms instead of in a second. It has one thread, runs no codec and speaks with no
server, so a fork of it is safe and begins clean; each instance still has a process of its own.

    the bridge: asks for workers, and ends them (pool.py)
      template (this file): started by `spawn`, imports, forks, tells how its forks end
        workers: each with a channel to the bridge

Each ends with its parent: the template when the bridge's end of their socket is closed, a worker
when the kernel tells it that the template has ended.
"""

from __future__ import annotations

import array
import ctypes
import gc
import os
import pickle
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from bridge.orthanc.bodies import INSTANCE_BYTES_MAX
from bridge.standard_streams import STDERR, STDOUT
from bridge.worker import places
from bridge.worker.channel import read_message, write_message
from bridge.worker.places import SLOTS, Places, Waits
from bridge.worker.stages import Memory, adopt

REQUEST = struct.Struct("!cQ")
"""What is asked of the template: FORK or KILL, and the worker's number."""
FORK, KILL = b"F", b"K"
REPORT = struct.Struct("!cQq")
"""What it tells: a worker's number, and its process, its exit code, or the error of the fork."""
BEGUN, ENDED, FAILED = b"B", b"E", b"X"

TASK = struct.Struct("!Q")
"""Before a task: its number, which the worker notes when it begins."""
END = struct.Struct("!cQd")
RESULT, RAISED = b"R", b"E"
"""Before what a worker tells of a task's end: its result, or the name of what was raised; then the
task's number, and for how many seconds it waited for servers."""

Begun = ctypes.Array[ctypes.c_ulonglong]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Made:
    """What a template and its workers are made with.

    ``function``: what a worker does, pickled: what it imports may start threads, and the template
    must have seen to that before. ``begun``: where each worker notes the number of the task that
    it has begun; None where the machine has no memory to share. ``waits``: and how long each has
    waited for a place, of which there are ``places``; 0 for as many as are asked for.
    """

    function: bytes
    memory_bytes: int
    stage_memory: Memory | None
    begun: Begun | None
    parent_pid: int
    places: int = 0
    waits: Waits | None = None


def serve(control: socket.socket, made: Made) -> None:
    """Be the template, until the bridge's end of the socket is closed."""
    # SIGTERM to a whole group (systemd does that) asks the bridge to drain, not us to end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # With the pool's thread, whose child this is: a template that is stopped, or still imports,
    # would not hear that its socket is closed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # A library with threads of its own could not be forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not _takes_more(STDERR):
        _write_nothing()
    import bridge.worker.transfer  # noqa: F401

    function = pickle.loads(made.function)  # noqa: S301 (the bridge's own)
    _write_nothing()
    _name(b"worker-template")
    adopt(made.stage_memory)
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector does not write to it
    if os.getppid() == made.parent_pid:
        _Template(control, made, function).run()
    os._exit(0)


def _takes_more(file: int) -> bool:
    """Tell whether a write to a file would not wait for a reader."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(0))


def _write_nothing() -> None:
    """Send what this process and its forks write to stdout and stderr nowhere.

    Codecs write there too, and what they write may quote values of an image. A pipe that nobody
    reads would stop them, with an instance in hand.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDOUT)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)


class _Template:
    """The forks of this process, by their number."""

    def __init__(self, control: socket.socket, made: Made, function: Callable[[Any], Any]) -> None:
        self._control = control
        self._made = made
        self._function = function
        self._forks: dict[int, int] = {}
        self._places = os.memfd_create("places") if made.places else -1
        self._freed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if made.places else -1
        self._wake, self._woken = os.pipe()
        for descriptor in (self._wake, self._woken):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Fork and kill as asked, until nobody can ask any more."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        asked = True
        while asked:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            if self._control.fileno() in ready:
                asked = self._obey()
            self._tell_of_ends()
        for pid in self._forks:
            os.kill(pid, signal.SIGKILL)
        for pid in self._forks:
            os.waitpid(pid, 0)

    def _obey(self) -> bool:
        """Do one thing that is asked; False when the bridge is gone."""
        try:
            asked, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 1)
        except OSError:
            return False
        if not asked:
            return False
        what, number = REQUEST.unpack(asked)
        if what == FORK:
            self._fork(number, *descriptors)
        else:
            for pid in [pid for pid, known in self._forks.items() if known == number]:
                os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, number: int, descriptor: int) -> None:
        template_pid = os.getpid()
        try:
            pid = os.fork()
        except OSError as exc:
            os.close(descriptor)
            self._tell(FAILED, number, exc.errno or 0)
            return
        if pid == 0:
            try:
                self._become_worker(number, descriptor, template_pid)
            finally:
                os._exit(1)  # whatever was raised is told by the code: its text may quote values
        os.close(descriptor)
        self._forks[pid] = number
        self._tell(BEGUN, number, pid)

    def _become_worker(self, number: int, descriptor: int, template_pid: int) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        os.close(self._wake)
        os.close(self._woken)
        _name(b"worker")
        prepare_worker(self._made.memory_bytes, template_pid)
        made = self._made
        count = max(1, made.places)
        places.use_places(Places(self._places, count, made.waits, number, freed=self._freed))
        with socket.socket(fileno=descriptor) as end:
            work(end, number, made, self._function)
        os._exit(0)

    def _tell_of_ends(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                number = self._forks.pop(pid, None)
                if number is not None:
                    self._tell(ENDED, number, os.waitstatus_to_exitcode(status))

    def _tell(self, what: bytes, number: int, value: int) -> None:
        with suppress(OSError):  # the bridge is gone: the next look at the socket says so
            self._control.send(REPORT.pack(what, number, value))


def work(end: socket.socket, number: int, made: Made, function: Callable[[Any], Any]) -> None:
    """Do tasks, one after the other, until the bridge closes its end."""
    here, times = places.here(), _Times()
    while (message := read_message(end)) is not None:
        here.begin()
        (task_number,) = TASK.unpack_from(message)
        if made.begun is not None:
            made.begun[number % SLOTS] = task_number
        times.begin()
        kind, told = _done(function, message[TASK.size :])
        here.release()
        write_message(end, END.pack(kind, task_number, times.waited_s() - here.waited_s) + told)


def _done(function: Callable[[Any], Any], work: bytes) -> tuple[bytes, bytes]:
    try:
        result = function(pickle.loads(work))  # noqa: S301 (the bridge's own)
    except BaseException as exc:  # noqa: BLE001
        # Whatever a task leaves by must end it, and no other. Only its kind is told.
        return RAISED, type(exc).__name__.encode("utf-8", "replace")
    return RESULT, pickle.dumps(result, pickle.HIGHEST_PROTOCOL)


class _Times:
    """For how long this process neither had a processor nor waited for one."""

    def __init__(self) -> None:
        self._schedule = -1
        with suppress(OSError):  # a kernel without it: waiting for a processor counts as waiting
            self._schedule = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._begun_s = 0.0

    def begin(self) -> None:
        """Begin a task."""
        self._begun_s = self._idle_s()

    def waited_s(self) -> float:
        """Return for how many seconds of the task it waited for others."""
        return self._idle_s() - self._begun_s

    def _idle_s(self) -> float:
        queued_ns = 0
        if self._schedule >= 0:
            with suppress(OSError, ValueError, IndexError):
                queued_ns = int(os.pread(self._schedule, 100, 0).split()[1])
        return time.monotonic() - time.process_time() - queued_ns / 1e9


def request(
    control: socket.socket, what: bytes, number: int, descriptors: tuple[int, ...] = ()
) -> None:
    """Ask the template for something, in the bridge. Raises OSError when it is gone or stands."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    control.sendmsg([REQUEST.pack(what, number)], [rights] if descriptors else [])


def prepare_worker(memory_bytes: int, parent_pid: int) -> None:
    """Bound this process and tie its life to its parent's. Runs once in each worker."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Instances come and go by the megabyte: memory that is handed back to the system after each
    # costs a page fault for every 4 kB of the next.
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    # SIGTERM to a whole group (systemd does that) asks the bridge to drain, not us to die with an
    # instance in hand. The pool ends a worker with SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    bound_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def bound_memory(memory_bytes: int) -> None:
    """Bound what this process can have written to: what it asks for counts, touched or not.

    RLIMIT_DATA counts the heap and every private mapping that can be written to, which is where
    malloc, numpy and the codecs get memory from, and what is copied on write. It does not count
    a file that is mapped to be read: the instance itself, of whatever size, whose pages the
    system takes back when it needs them. What it leaves out besides is memory that is shared on
    purpose, which no codec asks for; the address space, which counts all of it, is bounded beyond
    the two largest instances that are ever mapped at once.
    """
    _lower(resource.RLIMIT_DATA, memory_bytes)
    _lower(resource.RLIMIT_AS, memory_bytes + 2 * INSTANCE_BYTES_MAX)


def _lower(limit: int, wanted: int) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    hard = resource.getrlimit(limit)[1]
    least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(limit, (least, least))


def _name(name: bytes) -> None:
    """Let this process be told from others (``ps -o comm``)."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)

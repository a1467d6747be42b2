"""A PostgreSQL of our own, and what Orthanc needs to keep its index in it.

    with Postgresql() as cluster:
        source = orthanc("source", config=cluster.orthanc_options(plugin))
        with cluster.transaction("INSERT ...") as held:
            ...
            held.commit()

The cluster listens on a Unix socket in a directory that only its user and root can enter: it
takes no port, and nobody else can reach it.
"""

from __future__ import annotations

import os
import pwd
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Self

import pytest

from bridge.demo.orthanc_server import find_orthanc
from tests.absent import absent
from tests.bridge_process import WAIT_S, wait_until

NAME = "orthanc"
USERS = ("postgres", "nobody")
"""PostgreSQL refuses to run as root."""
PLUGIN = "libOrthancPostgreSQLIndex.so"
OPTIONS = ("listen_addresses=", "fsync=off", "max_connections=200", "shared_buffers=32MB")
MARK = "the transaction is open"


def require_postgresql() -> Path:
    """Find PostgreSQL's programs, or skip; where tests must run (CI=true) fail."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    named = shutil.which("initdb")
    if not (found or named):
        absent("PostgreSQL's initdb is not here (Debian: apt-get install postgresql)")
    return (found[-1] if found else Path(str(named))).parent


def require_index_plugin() -> Path:
    """Find the index plugin that belongs to the Orthanc under test, or skip, or fail."""
    executable = os.environ.get("ORTHANC_EXECUTABLE_SOURCE") or find_orthanc()
    root = Path(executable).resolve().parent / "root"
    plugins = (root if root.is_dir() else Path("/")) / "usr/share/orthanc/plugins"
    if not (plugins / PLUGIN).exists():
        absent(f"Orthanc's {PLUGIN} is not here (Debian: apt-get install orthanc-postgresql)")
    return plugins / PLUGIN


class Postgresql:
    """A cluster with one empty database, made anew. A context manager; it leaves nothing."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix="bridge-pg-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            user = _unprivileged_user()
            os.chown(self._directory, user.pw_uid, user.pw_gid)
        initdb = [self._program("initdb"), f"--pgdata={self._data}", f"--username={NAME}"]
        subprocess.run(
            # Trust is between those who can enter the directory.
            [*self._as_user(), *initdb, "--auth=trust", "--no-sync", "--encoding=UTF8"],
            check=True,
            capture_output=True,
            cwd=self._directory,
            env=_environment(),
        )
        self.start()
        self._psql("postgres", f"CREATE DATABASE {NAME}")
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        place = f"unix_socket_directories={self._directory}"
        options = [f"--{option}" for option in (*OPTIONS, place)]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), self._program("postgres"), f"-D{self._data}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=_environment(),
            )
        ready = [self._program("pg_isready"), "--quiet", f"--host={self._directory}"]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL answers")

    def stop(self) -> None:
        """End it as a power cut would: connections break, nothing is finished. Idempotent."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: "immediate shutdown"
            self._process.wait(WAIT_S)
            self._process = None

    def orthanc_options(self, plugin: Path, *, connections: int) -> dict[str, object]:
        """Return what Orthanc's configuration needs to keep its index here."""
        login = {"Host": str(self._directory), "Database": NAME, "Username": NAME, "Password": ""}
        index = {"EnableIndex": True, "EnableStorage": False, "Lock": False}
        pool = {"IndexConnectionsCount": connections, "MaximumConnectionRetries": 3}
        return {"Plugins": [str(plugin)], "PostgreSQL": login | index | pool}

    def execute(self, statements: str) -> str:
        """Execute statements, each in its own transaction; what they answer, "|" between."""
        return self._psql(NAME, statements)

    def transaction(self, statements: str) -> HeldTransaction:
        """Execute statements in a transaction that stays open."""
        return HeldTransaction([*self._client(NAME), "--quiet"], statements)

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _program(self, name: str) -> str:
        return str(self._programs / name)

    def _client(self, database: str) -> list[str]:
        options = ["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        login = [f"--host={self._directory}", f"--username={NAME}", f"--dbname={database}"]
        return [self._program("psql"), *options, *login]

    def _psql(self, database: str, statements: str) -> str:
        done = subprocess.run(
            self._client(database),
            input=statements,
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
            timeout=WAIT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _as_user(self) -> list[str]:
        """Return how to become an ordinary user, who dies with us."""
        if os.geteuid() != 0:
            return ["setpriv", "--pdeathsig", "QUIT", "--"]
        user = _unprivileged_user()
        identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        return ["setpriv", *identity, "--pdeathsig", "QUIT", "--"]


class HeldTransaction:
    """A transaction that others cannot see yet. A context manager; rolled back unless committed."""

    def __init__(self, command: list[str], statements: str) -> None:
        self._psql = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(),
        )
        self._said: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.answer = self._ask(f"BEGIN;\n{statements}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._psql.kill()
        self._psql.wait()
        assert self._psql.stdin is not None
        self._psql.stdin.close()

    def commit(self) -> None:
        """Let everybody see it."""
        self._ask("COMMIT;")

    def _ask(self, statements: str) -> str:
        assert self._psql.stdin is not None
        self._psql.stdin.write(f"{statements}\n\\echo {MARK}\n")
        self._psql.stdin.flush()
        lines: list[str] = []
        while (line := self._said.get(timeout=WAIT_S)) != MARK:
            assert line != "", f"psql ended: {lines}"
            lines.append(line)
        return "\n".join(lines)

    def _read(self) -> None:
        assert self._psql.stdout is not None
        with self._psql.stdout as stream:
            for line in stream:
                if line.strip():
                    self._said.put(line.strip())
        self._said.put("")


def _unprivileged_user() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.fail(f"none of the users {USERS} exists here, and PostgreSQL refuses to run as root")


def _environment() -> dict[str, str]:
    """No PG* variables: they would lead elsewhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}

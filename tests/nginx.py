"""A real nginx in front of servers: free loopback ports, a directory of its own, no root needed.

The site that the tests run is the file that docs/proxies.md shows; `changed` lays a fault over it
by replacing lines that must be there.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.absent import absent
from tests.bridge_process import wait_until
from tests.certificates import Authority, Pair

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTED = ROOT / "docs" / "examples" / "nginx-orthanc.conf"
USER, PASSWORD = "bridge", "hush-hush"
START_TIMEOUT_S = 10.0

_MAIN = """
daemon off;
master_process off;
{user}
pid {here}/nginx.pid;
error_log {here}/error.log;
events {{}}
http {{
    access_log {here}/access.log;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
{sites}
}}
"""


def require_nginx() -> str:
    """Find the executable; without it fail where tests must run (CI=true), else skip."""
    # Debian keeps it in /usr/sbin, which is not on an ordinary user's PATH.
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        absent("no nginx on PATH or in /usr/sbin (Debian: apt-get install nginx)")
    return found


def changed(text: str, changes: Mapping[str, str]) -> str:
    """Replace each key, which must be there exactly once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


@dataclass(frozen=True, slots=True)
class Trust:
    """What a documented site needs beside its text: a certificate and a file of users."""

    authority: Authority
    certificate: Pair
    users: Path

    @classmethod
    def make(cls, directory: Path) -> Trust:
        """Make an authority, a certificate for 127.0.0.1 and the one user."""
        authority = Authority(directory)
        authority.create()
        users = directory / "orthanc.users"
        digest = subprocess.run(
            ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
        ).stdout
        users.write_text(f"{USER}:{digest}")
        return cls(authority, authority.issue("server"), users)

    def site(self, port: int, orthanc_port: int) -> str:
        """Return the documented site with this port, this Orthanc, and these files."""
        return changed(
            DOCUMENTED.read_text("utf-8"),
            {
                "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
                "server_name pacs.example;": "server_name 127.0.0.1;",
                "/etc/nginx/orthanc.pem": self.certificate.certificate,
                "/etc/nginx/orthanc.key": self.certificate.key,
                "/etc/nginx/orthanc.users": str(self.users),
                "http://127.0.0.1:8042/": f"http://127.0.0.1:{orthanc_port}/",
            },
        )

    def settings(self, side: str, port: int) -> dict[str, str]:
        """Return the bridge's settings for that site, names without BRIDGE_."""
        return {
            f"{side}_URL": f"https://127.0.0.1:{port}/orthanc",
            f"{side}_CA_FILE": self.authority.certificate,
            f"{side}_USERNAME": USER,
            f"{side}_PASSWORD": PASSWORD,
        }


class Nginx:
    """One nginx: a context manager. Sites are texts that listen on ports from ``port``."""

    def __init__(self, directory: Path) -> None:
        self._executable = require_nginx()
        self._here = directory
        self._here.mkdir()
        self._reserved: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        for reserved in self._reserved:
            reserved.close()

    def port(self) -> int:
        """Reserve a free port: nobody else is given it, and nginx can still listen on it."""
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        self._reserved.append(reserved)
        return int(reserved.getsockname()[1])

    def serve(self, *sites: str) -> None:
        """Serve these sites and no others from now on."""
        user = "user root;" if os.getuid() == 0 else ""
        text = _MAIN.format(here=self._here, user=user, sites="\n".join(sites))
        configuration = self._here / "nginx.conf"
        configuration.write_text(text)
        self.stop()
        # One process that ends with this one, even when pytest is killed.
        command = ["setpriv", "--pdeathsig", "KILL", self._executable]
        command += ["-p", str(self._here), "-c", str(configuration)]
        log = (self._here / "stderr.log").open("wb")
        with log:
            self._process = subprocess.Popen(
                [*command, "-e", str(self._here / "error.log")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._listens, "nginx listens", START_TIMEOUT_S)

    def stop(self) -> None:
        """End it at once; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def requests(self) -> list[str]:
        """The lines of its access log so far."""
        log = self._here / "access.log"
        return log.read_text("utf-8", "replace").splitlines() if log.exists() else []

    def _listens(self) -> bool:
        assert self._process is not None
        said = (self._here / "stderr.log").read_text("utf-8", "replace")
        assert self._process.poll() is None, said
        try:
            for reserved in self._reserved:
                socket.create_connection(reserved.getsockname(), 1.0).close()
        except OSError:
            return False
        return True

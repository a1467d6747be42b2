"""Certificates for tests: an authority, servers and clients. Made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates; ``certificate`` is what others are to trust."""

    directory: Path
    name: str = "authority"

    @property
    def certificate(self) -> str:
        return str(self.directory / f"{self.name}.pem")

    def create(self) -> None:
        """Make the authority's own certificate."""
        files = ["-keyout", f"{self.name}.key", "-out", f"{self.name}.pem"]
        extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        subject = ["-days", "2", "-subj", f"/CN={self.name}"]
        self._openssl(["req", "-x509", *_NEW_KEY, *files, *subject, *extensions])

    def issue(self, name: str, *, alternative: str = "IP:127.0.0.1", days: int = 2) -> Pair:
        """Sign a certificate for ``alternative``, e.g. "DNS:pacs.example"."""
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={alternative}\nauthorityKeyIdentifier=keyid\n"
            "basicConstraints=critical,CA:FALSE\n"
        )
        request = ["-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"]
        self._openssl(["req", "-new", *_NEW_KEY, *request])
        files = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", extensions.name]
        signer = ["-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial"]
        self._openssl(["x509", "-req", *files, *signer, "-days", str(days)])
        return Pair(str(self.directory / f"{name}.pem"), str(self.directory / f"{name}.key"))

    def _openssl(self, arguments: list[str]) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


def server_context(pair: Pair, *, clients_of: Authority | None = None) -> ssl.SSLContext:
    """Build a server's side; with ``clients_of`` it demands client certificates of that one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of.certificate)
    return context

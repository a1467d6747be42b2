"""Bare HTTP/1.1 to one server: the least that a client can do. For the floor and for looking."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

KEEP_S = 0.7
"""Orthanc closes a connection that was idle for a second."""
HEADERS = {"Accept-Encoding": "identity"}


class Line:
    """One connection, opened again when it has been idle."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=60, blocksize=1 << 20
        )
        self._used_s = 0.0

    def __call__(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the body of a 2xx answer. Raises OSError, HTTPException."""
        if time.monotonic() - self._used_s > KEEP_S:
            self._connection.close()
        self._connection.request(method, path, body, HEADERS)
        answer = self._connection.getresponse()
        data = answer.read()
        self._used_s = time.monotonic()
        if not 200 <= answer.status < 300:
            raise http.client.HTTPException(f"{answer.status} for {method} {path}")
        return data

    def json(self, method: str, path: str, body: bytes | None = None) -> Any:
        return json.loads(self(method, path, body))

    def close(self) -> None:
        self._connection.close()


class Arrivals:
    """Counts the instances that a server takes in, by its feed."""

    def __init__(self, url: str) -> None:
        self._line = Line(url)
        self._since = 0
        self.count = 0
        self.last_id = ""
        self.seen: set[str] = set()

    def look(self) -> int:
        """Return how many there are. Raises OSError, HTTPException when the server is gone."""
        while True:
            page = self._line.json("GET", f"/changes?since={self._since}&limit=1000")
            for row in page["Changes"]:
                self._since = row["Seq"]
                if row["ChangeType"] == "NewInstance":
                    self.count += 1
                    self.last_id = row["ID"]
                    self.seen.add(row["ID"])
            if page["Done"]:
                return self.count

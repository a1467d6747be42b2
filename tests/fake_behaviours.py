"""What a fake Orthanc can be told to do instead of answering honestly."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer this and do nothing. ``length`` overrides the Content-Length that is announced."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Read the request and never answer (until the server stops)."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Do the work if ``worked``, then reset the connection instead of answering."""

    worked: bool = False


@dataclass(frozen=True, slots=True)
class CutBody:
    """Answer honestly, but stop after so many bytes of the body: reset, or a clean end."""

    after_bytes: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Drip:
    """Answer honestly, one byte of the body at a time."""

    interval_s: float = 0.05


@dataclass(frozen=True, slots=True)
class StoreAs:
    """Answer an upload with another ID or Status; it is stored only when Status is Success."""

    instance_id: str | None = None
    status: str = "Success"


Behaviour = Respond | Hang | HangUp | CutBody | Drip | StoreAs

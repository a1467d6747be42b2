"""What was used to decode an instance.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Evidence:
    """What was used to decode; grows while frames are decoded."""

    decoder: str = ""
    fallbacks: list[str] = field(default_factory=list)
    verified_frames: int = 0
    checker: str = ""
    samples_sha256: str = ""

"""One diagnosis of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.core.errors import BridgeError

OK = "ok"
WARNING = "warning"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check saw. ``level`` is ok, warning or error; ``exit_code`` counts for errors."""

    level: str
    subject: str
    message: str
    advice: str = ""
    exit_code: int = 0


def error_of(subject: str, exc: BridgeError) -> Diagnosis:
    """Turn an error into a diagnosis."""
    return Diagnosis(ERROR, subject, exc.message, exc.advice, exc.exit_code)

"""One diagnosis of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.errors import BridgeError

OK = "ok"
NOTE = "note"
WARNING = "warning"
ERROR = "error"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check saw; ``exit_code`` counts for errors.

    ``level``: ok, note (the check cannot tell: a person has to look), warning or error.
    """

    level: str
    subject: str
    message: str
    advice: str = ""
    exit_code: int = 0


def error_of(subject: str, exc: BridgeError) -> Diagnosis:
    """Turn an error into a diagnosis."""
    return Diagnosis(ERROR, subject, exc.message, exc.advice, exc.exit_code)

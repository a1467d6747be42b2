"""What a person names on the command line: a study, a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Protocol

from bridge.core.errors import ConfigurationError
from bridge.orthanc import INSTANCE_ID
from bridge.values import UNITS_S

_UID = re.compile(r"[0-9.]{1,64}")


class StudyClient(Protocol):
    """What is needed of a server here."""

    def lookup(self, uid: str) -> list[tuple[str, str]]:
        """Find resources by a DICOM identifier: levels and Orthanc IDs."""

    def instances_of_study(self, study_id: str) -> list[str] | None:
        """List the instances of a study; None when the server lacks it."""


def find_study(client: StudyClient, study: str) -> tuple[set[str], set[str]]:
    """Look a study up by its Orthanc ID or Study Instance UID: Orthanc IDs, and its instances.

    A Study Instance UID that two patients share names two studies; one that the server lacks none.
    Raises ConfigurationError for what is neither, SideError.
    """
    if INSTANCE_ID.fullmatch(study):
        return {study}, set(client.instances_of_study(study) or ())
    if not _UID.fullmatch(study):
        raise ConfigurationError(
            f"--study {study} is neither an Orthanc ID nor a UID.",
            advice="Give the Orthanc ID of the study, or its Study Instance UID (0020,000D).",
        )
    studies = {study_id for level, study_id in client.lookup(study) if level == "Study"}
    found: set[str] = set()
    for study_id in studies:
        found.update(client.instances_of_study(study_id) or ())
    return studies, found


def moment_of(text: str, *, now_s: float) -> float:
    """Return epoch seconds for a moment (ISO 8601, UTC unless it says otherwise) or an age.

    An age is a number and a unit: s, m, h, d. Raises ConfigurationError.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and unit in UNITS_S:
        return now_s - int(number) * UNITS_S[unit]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is neither an age such as 24h nor a time such as 2026-11-22T08:00."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

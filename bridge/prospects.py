"""What the bridge would do with an instance, told from Orthanc's metadata.

The rules and policies are those of transfer.py. Only where the metadata does not tell (Orthanc
1.10 does not keep the syntax of HTJ2K, JPEG XL and a few others; a rule may ask for the modality)
the head of the file is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bridge.core.model import Job, Reason
from bridge.core.rules import (
    FIELDS,
    HEAD_BYTES,
    Choice,
    RuleAction,
    choose,
    facts_of_file,
    facts_of_metadata,
)
from bridge.core.syntaxes import EXPLICIT_LE, SYNTAXES, Kind, syntax_of
from bridge.core.transcode import peek_syntax

SYNTAX_HEAD_BYTES = 64 * 1024
"""More than any file meta information needs."""


class Deed(StrEnum):
    """What would be done."""

    UNCHANGED = "unchanged"
    TRANSCODE = "transcode"
    FORWARD = "forward"
    SKIP = "skip"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would become of one instance. ``target_syntax`` is "" when nothing is sent.

    ``why``: the rule that decides ("rule at line 3") or the reason to park.
    """

    deed: Deed
    source_syntax: str
    target_syntax: str
    why: str = ""


class MetadataClient(Protocol):
    """What is needed of a server here."""

    def instance_metadata(self, instance_id: str) -> dict[str, str]:
        """Return what Orthanc knows of an instance. Raises InstanceGone."""

    def head(self, instance_id: str, bytes_max: int) -> bytes:
        """Return the first bytes of its file."""


def prospect(client: MetadataClient, instance_id: str, job: Job) -> Prospect:
    """Tell what would be done with an instance of the source.

    Raises SideError, InstanceGone, and InstanceError for a file that is not DICOM.
    """
    known = client.instance_metadata(instance_id)
    facts = facts_of_metadata(known)
    choice = choose(job.rules, facts, default_to=job.wanted_syntax)
    if choice is None or (not facts.get("syntax") and choice.action is not RuleAction.SKIP):
        facts |= facts_of_file(memoryview(client.head(instance_id, HEAD_BYTES)))
        complete = dict.fromkeys(FIELDS, "") | facts
        choice = choose(job.rules, complete, default_to=job.wanted_syntax)
    if choice is None:
        raise AssertionError("a rule asks for what the complete facts do not have")
    return _prospect(choice, facts.get("syntax", ""), job)


def _prospect(choice: Choice, syntax: str, job: Job) -> Prospect:
    why = f"rule at line {choice.line}" if choice.line else ""
    if choice.action is RuleAction.SKIP:
        return Prospect(Deed.SKIP, syntax, "", why)
    if choice.action is RuleAction.FORWARD:
        return Prospect(Deed.FORWARD, syntax, syntax, why)
    if syntax == choice.to:
        return Prospect(Deed.UNCHANGED, syntax, syntax, why)
    kind = syntax_of(syntax).kind
    if kind is Kind.VIDEO:
        return _by_policy(syntax, Reason.VIDEO, forwards=job.on_video == "forward")
    if kind is Kind.UNSUPPORTED:
        forwards = job.on_undecodable == "forward"
        return _by_policy(syntax, Reason.UNSUPPORTED_SYNTAX, forwards=forwards)
    return Prospect(Deed.TRANSCODE, syntax, choice.to, why)


def _by_policy(syntax: str, reason: Reason, *, forwards: bool) -> Prospect:
    if forwards:
        return Prospect(Deed.FORWARD, syntax, syntax, str(reason))
    return Prospect(Deed.PARK, syntax, "", str(reason))


def syntax_of_head(client: MetadataClient, instance_id: str) -> str:
    """Read the transfer syntax of an instance from its file. Raises InstanceError."""
    return peek_syntax(client.head(instance_id, SYNTAX_HEAD_BYTES))


def syntax_is_right(expected: Prospect, target_syntax: str, job: Job, *, has_pixels: bool) -> bool:
    """Whether an instance at the target is in a syntax that the bridge would have sent it in.

    Beside the expected one: the source's own where undecodable pixels are forwarded, and
    Explicit VR Little Endian for an object without pixels where a compressed one is wanted.
    """
    if target_syntax == expected.target_syntax:
        return True
    if expected.deed is not Deed.TRANSCODE:
        return False
    if job.on_undecodable == "forward" and target_syntax == expected.source_syntax:
        return True
    wanted = SYNTAXES.get(expected.target_syntax)
    return (
        not has_pixels
        and target_syntax == EXPLICIT_LE
        and wanted is not None
        and wanted.encapsulated
    )

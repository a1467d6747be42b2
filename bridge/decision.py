"""What becomes of an instance: the one place that decides it.

This file must not know: sockets, files, clocks, logging, settings.

The worker decides with it what to do, and ``plan``, ``check`` and a dry run tell with it what would
be done: a difference between them would be a false report. Whoever asks gives what is known, the
cheapest first (Orthanc's metadata, then the file), and asks again with more while it is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bridge.dicom.syntaxes import EXPLICIT_LE, SYNTAXES, syntax_of, syntax_refusal
from bridge.errors import InstanceError
from bridge.model import FIELDS, Facts, Job, Reason, RuleAction, attribute_name
from bridge.rules import Choice, attributes_of, choose


class Treatment(StrEnum):
    """What is done with an instance. The names are part of the contract (``plan``)."""

    UNCHANGED = "unchanged"
    """It is in the wanted syntax already: sent as it is, once its label was looked at."""
    TRANSCODE = "transcode"
    FORWARD = "forward"
    """Sent as it is, in whatever syntax."""
    SKIP = "skip"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Handling:
    """What becomes of one instance, as far as that can be told before its pixels are decoded.

    ``target_syntax`` is "" when nothing is sent. ``reason``, ``message``: why it is parked, or sent
    as it is where it would be parked. ``line``: of the rule, 0 where none or a ``reason`` decides.
    """

    treatment: Treatment
    source_syntax: str
    target_syntax: str = ""
    reason: Reason | None = None
    message: str = ""
    line: int = 0

    @property
    def why(self) -> str:
        """The reason or the rule, for people; "" where it is what the settings ask for."""
        if self.reason is not None:
            return str(self.reason)
        return f"rule at line {self.line}" if self.line else ""

    def refusal(self) -> InstanceError:
        """Return the error that parks it."""
        return InstanceError(self.reason or Reason.INTERNAL, self.message)


def handling_of(job: Job, facts: Facts, *, file_syntax: str = "") -> Handling | None:
    """Decide what becomes of an instance; None when that depends on a fact that is not known.

    ``facts`` are what rules look at. ``file_syntax``: as the file itself tells it; it counts more
    than what the metadata says of the syntax.
    """
    choice = choose(job.rules, facts, default_to=job.wanted_syntax)
    syntax = file_syntax or facts.get("syntax", "")
    if choice is None or not (syntax or choice.action is RuleAction.SKIP):
        return None
    return _handling(job, choice, syntax)


def handling_of_file(job: Job, facts: Facts, *, file_syntax: str) -> Handling:
    """Decide once the whole file was asked: what is not known now is not there.

    ``facts`` must tell the size, where a rule looks at it.
    """
    absent = (attribute_name(tag) for tag in attributes_of(job.rules))
    complete = dict.fromkeys((*FIELDS, *absent), "") | dict(facts)
    choice = choose(job.rules, complete, default_to=job.wanted_syntax)
    if choice is None:
        raise AssertionError("a rule asks for what the complete facts do not have")
    return _handling(job, choice, file_syntax)


def _handling(job: Job, choice: Choice, syntax: str) -> Handling:
    if choice.action is RuleAction.SKIP:
        return Handling(Treatment.SKIP, syntax, line=choice.line)
    if choice.action is RuleAction.FORWARD:
        return Handling(Treatment.FORWARD, syntax, syntax, line=choice.line)
    if syntax == choice.to:
        return Handling(Treatment.UNCHANGED, syntax, syntax, line=choice.line)
    refused = syntax_refusal(syntax_of(syntax))
    if refused is None:
        return Handling(Treatment.TRANSCODE, syntax, choice.to, line=choice.line)
    if is_forwarded(job, refused.reason):
        return Handling(Treatment.FORWARD, syntax, syntax, refused.reason, refused.message)
    return Handling(Treatment.PARK, syntax, "", refused.reason, refused.message)


FORWARDABLE = (
    Reason.UNDECODABLE,
    Reason.UNSUPPORTED_SYNTAX,
    Reason.WRONG_SYNTAX_LABEL,
    Reason.VERIFICATION_FAILED,
)
"""What BRIDGE_ON_UNDECODABLE=forward sends as it is."""


def is_forwarded(job: Job, reason: Reason) -> bool:
    """Whether an instance that cannot be transcoded is sent as it is; it is parked otherwise."""
    if reason is Reason.VIDEO:
        return job.on_video == "forward"
    return reason in FORWARDABLE and job.on_undecodable == "forward"


def syntax_is_right(handling: Handling, target_syntax: str, job: Job, *, has_pixels: bool) -> bool:
    """Whether an instance at the target is in a syntax that it would have been sent in.

    Beside the expected one: the source's own where undecodable pixels are forwarded, and
    Explicit VR Little Endian for an object without pixels where a compressed one is wanted.
    """
    if target_syntax == handling.target_syntax:
        return True
    if handling.treatment is not Treatment.TRANSCODE:
        return False
    if target_syntax == handling.source_syntax and is_forwarded(job, Reason.UNDECODABLE):
        return True
    wanted = SYNTAXES.get(handling.target_syntax)
    return (
        not has_pixels
        and target_syntax == EXPLICIT_LE
        and wanted is not None
        and wanted.encapsulated
    )

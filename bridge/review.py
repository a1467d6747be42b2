"""What has become of the differences that were to be mended: the end of ``check --fix``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bridge.comparison import Known
from bridge.findings import MOVABLE, Finding, Findings, State
from bridge.listing import HoldingClient

TOGETHER = 400
"""Instances that the source lacks, for which it is looked at together."""


def reviewed(
    findings: Findings,
    *,
    source: HoldingClient,
    target: HoldingClient,
    known: Known,
    look: Callable[[], None],
) -> Findings:
    """Look again at what was to be moved: what is at the target now is fixed.

    What the source lacks is dropped when it lacks it twice; ``look`` makes sure each time that it
    is the same source. Raises SourceError, TargetError, StateError, FeedWentBackwards.
    """
    after = Findings()
    lacking: list[Finding] = []

    def ask_again() -> None:
        if not lacking:
            return
        look()
        for finding in lacking:
            if source.has_instance(finding.instance_id):
                after.add(finding)
        look()
        lacking.clear()

    for finding in findings:
        if finding.state not in MOVABLE:
            after.add(finding)
        elif target.has_instance(finding.instance_id):
            after.add(replace(finding, state=State.FIXED, detail=""))
        elif (parked := known.parked_one(finding.instance_id)) is not None:
            after.add(replace(finding, state=State.PARKED, detail=str(parked.reason)))
        elif source.has_instance(finding.instance_id):
            after.add(finding)
        else:
            lacking.append(finding)
            if len(lacking) == TOGETHER:
                ask_again()
    ask_again()
    return after

"""What has become of the differences that were to be mended: the end of ``check --fix``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bridge.comparison import Known
from bridge.findings import MOVABLE, Findings, State
from bridge.listing import HoldingClient


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

    def is_there(instance_id: str) -> bool:
        for _ in range(2):
            if source.has_instance(instance_id):
                return True
            look()
        return False

    after = Findings()
    for finding in findings:
        if finding.state not in MOVABLE:
            after.add(finding)
        elif target.has_instance(finding.instance_id):
            after.add(replace(finding, state=State.FIXED, detail=""))
        elif (parked := known.parked_one(finding.instance_id)) is not None:
            after.add(replace(finding, state=State.PARKED, detail=str(parked.reason)))
        elif is_there(finding.instance_id):
            after.add(finding)
    return after

"""Does the target keep what was deleted at the source? Some of it is looked at again.

A script of the source, a storage that replicates or a person may follow a deletion at the target,
minutes or hours later. Nobody can undo that here: the bytes are not held for so long. But what
follows is not deleted as well: before each batch, and now and then while nothing is due, the target
reads some of the files again whose originals were deleted within a day. One that is gone stops all
deletions until a person has said so.

The samples are spread: the older, the farther apart. An operator who accepts that others delete at
the target (``target-emptied``) is not stopped.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace

from bridge.ledger.lock import explained
from bridge.ledger.records import Kept
from bridge.ledger.store import Ledger
from bridge.log import log
from bridge.retention.deletion_limits import STOPPED_KEY, refuse_stopped
from bridge.retention.limits_and_risks import RetentionRules, Risk
from bridge.retention.objections import InstanceLooks, Objection

SAMPLES_KEY = "retention_samples"
"""Ledger: some of what was deleted at the source, the newest last, as JSON."""
SAMPLES_MAX = 32
LOOKED_AT = 3
"""So many are looked at before a batch."""
APART_S = 10.0
"""Two samples are deleted so far apart at least."""
SAMPLED_S = 86_400.0
"""So long after its deletion an instance is a sample."""
IDLE_S = 600.0
"""While nothing is due, each is looked at so often."""
LOST = frozenset({Objection.TARGET_LACKS, Objection.DAMAGED, Objection.ONE_FILE})


@dataclass(frozen=True, slots=True)
class DeletedSample:
    """An instance that was deleted. ``at``: when; ``looked_at``: when it was looked at last.

    Both by the age clock.
    """

    kept: Kept
    at: float
    looked_at: float


class DeletedSamples:
    """The samples of one bridge."""

    def __init__(self, looks: InstanceLooks, rules: RetentionRules) -> None:
        self._looks = looks
        self._accepted = rules.accepts(Risk.TARGET_EMPTIED)

    def note(self, ledger: Ledger, kept: Kept, *, now: float) -> None:
        """Note a deletion, if the last one that was noted is some time ago. Raises StateError."""
        samples = samples_of(ledger)
        if samples and abs(now - samples[-1].at) < APART_S:
            return
        _write(ledger, thinned([*samples, DeletedSample(kept, now, now)]))

    def look(self, ledger: Ledger, *, now: float, due: bool) -> None:
        """Have the target read some of the files again. ``due``: more is to be deleted now.

        Raises ConfigurationError where one is lost, SideError, StateError.
        """
        known = samples_of(ledger)
        if not known or self._accepted:
            return
        recent = [sample for sample in known if abs(now - sample.at) < SAMPLED_S]
        asked = [one for one in recent if due or abs(now - one.looked_at) >= IDLE_S]
        chosen = sorted(asked, key=lambda sample: sample.looked_at)[:LOOKED_AT]
        for sample in chosen:
            objection = self._looks.target_objection(sample.kept)
            if objection in LOST:
                self._stop(ledger, sample, objection, now)
        if chosen:
            looked = [replace(one, looked_at=now) if one in chosen else one for one in recent]
            _write(ledger, looked)

    @staticmethod
    def _stop(ledger: Ledger, sample: DeletedSample, objection: Objection, now: float) -> None:
        text = (
            f"Instance {sample.kept.instance_id}, which the bridge deleted at the source "
            f"{now - sample.at:.0f} s ago, is lost at the target ({objection}). Does something or "
            "somebody delete at the target what is deleted at the source? (If people may delete "
            f"at the target: BRIDGE_RETENTION_RISK={Risk.TARGET_EMPTIED}.)"
        )
        log(logging.CRITICAL, "retention_stopped", text, instance=sample.kept.instance_id)
        ledger.set_meta(STOPPED_KEY, text, durably=True)
        ledger.set_meta(SAMPLES_KEY, None)  # who confirms knows of them
        refuse_stopped(ledger)


def thinned(samples: list[DeletedSample]) -> list[DeletedSample]:
    """Drop one of more than SAMPLES_MAX: the one that is nearest to others, for its age."""
    if len(samples) <= SAMPLES_MAX:
        return samples
    newest = samples[-1].at

    def gap(place: int) -> float:
        between_s = samples[place + 1].at - samples[place - 1].at
        return between_s / max(APART_S, newest - samples[place].at)

    dropped = min(range(1, len(samples) - 1), key=gap)
    return [*samples[:dropped], *samples[dropped + 1 :]]


def samples_of(ledger: Ledger) -> list[DeletedSample]:
    """Return the samples, the oldest first. Raises StateError."""
    text = ledger.meta(SAMPLES_KEY)
    if text is None:
        return []
    with explained(ledger.path):
        return [
            DeletedSample(Kept(**told["kept"]), float(told["at"]), float(told["looked_at"]))
            for told in json.loads(text)
        ]


def _write(ledger: Ledger, samples: list[DeletedSample]) -> None:
    ledger.set_meta(SAMPLES_KEY, json.dumps([asdict(s) for s in samples]) if samples else None)

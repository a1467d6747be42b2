"""What happened, as values. Observers turn them into logs, metrics and the status page.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bridge.core.crew import NOBODY, Crew
from bridge.core.model import InstanceFailed, Move, Outcome, Reason, SideFailed, SideName


@dataclass(frozen=True, slots=True)
class Settled:
    """An instance is delivered or skipped. ``attempt`` is the number of the attempt that did it."""

    move: Move
    outcome: Outcome
    attempt: int


@dataclass(frozen=True, slots=True)
class InstanceParked:
    """An instance is given up until a person decides.

    ``source_syntax`` and ``sop_instance_uid`` are "" where they were not learned.
    """

    move: Move
    reason: Reason
    message: str
    attempts: int
    source_syntax: str = ""
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class InstanceRetried:
    """An instance will be tried again."""

    move: Move
    outcome: Outcome
    attempts: int
    after_s: float


@dataclass(frozen=True, slots=True)
class SideDown:
    """A server cannot be used; everything waits. Sent once for each outage."""

    failure: SideFailed


@dataclass(frozen=True, slots=True)
class SideStillDown:
    """The outage goes on. Sent at every probe: observers decide how often to say so."""

    failure: SideFailed
    down_s: float


@dataclass(frozen=True, slots=True)
class SideUp:
    """The server serves again."""

    side: SideName
    down_s: float


@dataclass(frozen=True, slots=True)
class PageRead:
    """A page of the feed was read: ``new`` moves to do, ``late`` among them.

    ``missing``: rows that were not there any more, what they told of having been deleted.
    """

    new: int
    late: int
    frontier: int
    missing: int = 0


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker process ended in the middle of an instance."""

    move: Move
    failure: InstanceFailed


@dataclass(frozen=True, slots=True)
class SourceSwept:
    """Delivered instances were deleted from the source; ``differing`` were spared.

    ``differing``: source or target now hold other bytes than were moved.
    """

    deleted: int
    differing: int


@dataclass(frozen=True, slots=True)
class SweepFailed:
    """Nothing can be deleted from the source at present. Sent at each sweep that fails."""

    message: str


@dataclass(frozen=True, slots=True)
class SweepWorks:
    """A sweep came to its end, whether or not there was anything to delete."""


@dataclass(frozen=True, slots=True)
class StateFailed:
    """The ledger cannot be written; nothing new is started until it can."""

    message: str


@dataclass(frozen=True, slots=True)
class StateRecovered:
    """The ledger can be written again."""


@dataclass(frozen=True, slots=True)
class FeedReset:
    """The source's feed is not the one we followed."""

    message: str


@dataclass(frozen=True, slots=True)
class Draining:
    """A stop was asked for: nothing new is started, running instances may finish."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Instances that had not finished when the time to stop was over; they are done again."""

    in_flight: int


Event = (
    Settled
    | InstanceParked
    | InstanceRetried
    | SideDown
    | SideStillDown
    | SideUp
    | PageRead
    | WorkerLost
    | SourceSwept
    | SweepFailed
    | SweepWorks
    | StateFailed
    | StateRecovered
    | FeedReset
    | Draining
    | Abandoned
)


@dataclass(frozen=True, slots=True)
class InFlight:
    """An instance under way. ``started_at`` is in epoch seconds, ``number`` that of its task."""

    instance_id: str
    sequence: int | None
    started_at: float
    attempt: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class SideView:
    """A server as the pipeline sees it. ``down_since`` is in epoch seconds.

    ``version``: Orthanc's, as last seen.
    """

    up: bool = True
    trial: bool = False
    problem: str = ""
    message: str = ""
    advice: str = ""
    down_since: float | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the pipeline is. Times are epoch seconds; None where there is nothing to tell.

    ``last`` is the feed's newest sequence as far as known. ``caught_up``: everything in the feed
    at the last look is settled. ``able_since``: since when it has had work, or has had none, with
    nothing in its way; now while something is.
    """

    checkpoint: int | None = None
    frontier: int | None = None
    last: int | None = None
    caught_up: bool = False
    oldest_open: int | None = None
    oldest_changed_at: str = ""
    waiting: int = 0
    delayed: int = 0
    in_flight: tuple[InFlight, ...] = ()
    source: SideView = SideView()
    target: SideView = SideView()
    state_error: str = ""
    executor_error: str = ""
    crew: Crew = NOBODY
    hold: str = ""
    refused: int = 0
    refusal: str = ""
    refusal_advice: str = ""
    last_progress_at: float = 0.0
    able_since: float = 0.0
    feed_read_at: float | None = None
    phase: str = "starting"


class Observer(Protocol):
    """Receives what happened. Must be quick and must not raise."""

    def on_event(self, event: Event) -> None:
        """Take note of one event."""

    def on_progress(self, progress: Progress) -> None:
        """Take note of where the pipeline is; called after each step."""

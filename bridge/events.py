"""What happened, as values. Observers turn them into logs, metrics and the status page.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bridge.model import (
    NO_GAPS,
    Delivered,
    InstanceFailed,
    Move,
    OpenGaps,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    Skipped,
)

# Who works for the bridge, as a value: its own processes, or workers on other machines.

LOCAL = "local"
REFUSED_MAX = 20
"""So many refused workers are named; all of them are counted."""


@dataclass(frozen=True, slots=True)
class RefusedWorker:
    """A worker that gets no work, and why."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Workforce:
    """How much can be done at once.

    ``threads``: instances that can be in work at the same time; 0 means that nothing can be
    started. ``threads_max``: the bridge may find that so many are worth it; 0 where their number is
    given. ``depth``: how many should be under way for each of them, so that none waits for the
    next. ``problem`` is empty or a code of /health: why nothing can be started.
    ``awaited``: a worker was asked who it is and has not answered yet.
    """

    threads: int
    workers: int
    depth: int = 3
    place: str = LOCAL
    problem: str = ""
    message: str = ""
    advice: str = ""
    refused: tuple[RefusedWorker, ...] = ()
    refused_count: int = 0
    awaited: bool = False
    threads_max: int = 0


NO_WORKERS = Workforce(threads=0, workers=0)
"""Before anything is known."""


@dataclass(frozen=True, slots=True)
class MoveTimes:
    """When the row of a move was read and its last attempt began: epoch seconds, 0.0 for unknown.

    ``number``: of the task of that attempt.
    """

    read_at: float = 0.0
    started_at: float = 0.0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """An instance is delivered or skipped. ``attempt`` is the number of the attempt that did it.

    ``rules``: the generation of the rules by which it was done; "" without rules.
    """

    move: Move
    outcome: Outcome
    attempt: int
    rules: str = ""
    times: MoveTimes = field(default=MoveTimes(), compare=False)


@dataclass(frozen=True, slots=True)
class InstanceParked:
    """An instance is given up, until the policy tries it again or a person decides.

    ``source_syntax`` and ``sop_instance_uid`` are "" where they were not learned. ``retries``: it
    was parked before, and the policy has tried it again so often; 0 where it is parked anew.
    ``rules``: the generation of the rules of the last attempt; "" without rules.
    """

    move: Move
    reason: Reason
    message: str
    attempts: int
    source_syntax: str = ""
    sop_instance_uid: str = ""
    retries: int = 0
    rules: str = ""
    times: MoveTimes = field(default=MoveTimes(), compare=False)


@dataclass(frozen=True, slots=True)
class ParkedRetried:
    """The policy has tried a parked instance again.

    ``reason``: what it was parked for. ``result``: ``delivered``, ``skipped`` or ``parked``.
    """

    move: Move
    reason: Reason
    result: str


@dataclass(frozen=True, slots=True)
class InstanceRetried:
    """An instance will be tried again."""

    move: Move
    outcome: Outcome
    attempts: int
    after_s: float


@dataclass(frozen=True, slots=True)
class SideDown:
    """A server cannot be used; everything waits. Sent once for each outage.

    ``instance_id``: of the instance that it failed at; "" when it failed at something else.
    """

    failure: SideFailed
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class SideStillDown:
    """The outage goes on. Sent at every probe: observers decide how often to say so."""

    failure: SideFailed
    down_s: float
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class SideUp:
    """The server serves again."""

    side: SideName
    down_s: float


@dataclass(frozen=True, slots=True)
class PageRead:
    """A page of the feed was read: ``new`` moves to do, ``late`` among them.

    ``missing``: rows that were not there any more, what they told of having been deleted.
    ``refused``: rows of new instances whose ID is none; they are passed over.
    """

    new: int
    late: int
    frontier: int
    missing: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ListCompared:
    """A page of instances was compared with the target, which lacks some: the others stay."""

    instances: int
    lacking: int


@dataclass(frozen=True, slots=True)
class GapsClosed:
    """Gaps of the feed came to an end; counted in sequences.

    ``filled``: a row appeared. ``expired``: none did for as long as gaps are kept. ``given_up``:
    dropped before that, for want of room.
    """

    filled: int
    expired: int
    given_up: int


@dataclass(frozen=True, slots=True)
class InstanceDropped:
    """A person dropped a parked instance: it has not arrived, and is not tried again."""

    move: Move
    reason: Reason


@dataclass(frozen=True, slots=True)
class ActionTaken:
    """A person has acted over HTTP. ``who``: the name of the token, never the token.

    ``detail``: what it is about, in identifiers and numbers. ``result``: "begins" before it is
    done, "done" after it; of a command that was started, how it ended.
    """

    who: str
    action: str
    detail: str
    result: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker process ended in the middle of an instance."""

    move: Move
    failure: InstanceFailed


@dataclass(frozen=True, slots=True)
class SourceDeletes:
    """An instance is about to be deleted at the source: sent before it is.

    The sums and names are those of both files: as they were delivered, and as they were seen just
    now. ``age_s``: it was delivered at least so long ago.
    """

    instance_id: str
    source_md5: str
    target_md5: str
    source_file: str
    target_file: str
    age_s: float


@dataclass(frozen=True, slots=True)
class SourceKept:
    """The deletion that the event before this announced did not succeed, as far as is known."""

    instance_id: str
    message: str


@dataclass(frozen=True, slots=True)
class SourceSwept:
    """Delivered instances were deleted from the source.

    ``differing``: so many were spared, because a server now holds other bytes than were moved.
    """

    deleted: int
    differing: int


@dataclass(frozen=True, slots=True)
class SweepFailed:
    """Nothing can be deleted from the source at present. Sent at each sweep that fails."""

    message: str


@dataclass(frozen=True, slots=True)
class SweepWaits:
    """Nothing is deleted for a while, and nothing has failed since. Sent at each sweep that waits.

    ``message``: what it waits for.
    """

    message: str


@dataclass(frozen=True, slots=True)
class SweepWorks:
    """A sweep came to its end, whether or not there was anything to delete."""


@dataclass(frozen=True, slots=True)
class CopyFound:
    """A verification has found that a copy at the target is not as it should be, looked at twice.

    ``state``: of CopyState (mirror/judge_copy.py). ``advice``: what to do, where that is no repair.
    """

    instance_id: str
    state: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class CopyReplaces:
    """A copy at the target is about to be replaced: sent before anything is deleted there.

    What takes its place is prepared: ``source_md5`` of the source's file, ``target_md5`` of what is
    sent. ``before_md5``: of the copy that goes, as the target noted it; "" for one that is missing.
    """

    instance_id: str
    state: str
    source_md5: str
    target_md5: str
    before_md5: str


@dataclass(frozen=True, slots=True)
class CopyRepaired:
    """The target holds what was prepared, and has read its file."""

    instance_id: str
    state: str


@dataclass(frozen=True, slots=True)
class CopyNotRepaired:
    """A repair came to nothing; the next verification finds what is left to do."""

    instance_id: str
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class TargetDeletes:
    """A copy at the target is about to be deleted, as its instance was at the source.

    ``lacking_s``: the source is known to lack it for so long.
    """

    instance_id: str
    target_md5: str
    lacking_s: float


@dataclass(frozen=True, slots=True)
class TargetKept:
    """The deletion that the event before this announced did not succeed, as far as is known."""

    instance_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A verification of both servers came to its end. ``counts``: instances by state.

    ``differences``: among them, those that were repaired included.
    """

    instances: int
    counts: Mapping[str, int]
    differences: int
    repaired: int
    failed: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Carried:
    """Something that lies beside a file was written at the target: how much, by its kind."""

    resource_id: str
    written: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CarryLeft:
    """Something beside a file stays as it is at the target.

    ``name``: as an operator has listed it. ``why``: of LEFT_REASONS (mirror/carry.py).
    """

    resource_id: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class CarryFailed:
    """Something beside a file could not be brought; it is tried again."""

    resource_id: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class CarryRoundEnded:
    """A round over what lies beside the files came to its end.

    ``left``: so many values stay as they are at the target. ``failed``: so many resources wait.
    """

    resources: int
    left: int
    failed: int


@dataclass(frozen=True, slots=True)
class CarryStopped:
    """Nothing can be brought beside the files at present."""

    message: str


@dataclass(frozen=True, slots=True)
class CarryWorks:
    """A part of it was done."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What was delivered is signed at the source. ``kind``: label or metadata."""

    instance_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class SignLeft:
    """What was delivered has no sign. ``why``: of SIGN_LEFT_REASONS (mirror/delivered_sign.py)."""

    instance_id: str
    why: str


@dataclass(frozen=True, slots=True)
class SignFailed:
    """A sign could not be set; it is tried again."""

    instance_id: str
    message: str


@dataclass(frozen=True, slots=True)
class SignStopped:
    """Nothing can be signed at present."""

    message: str


@dataclass(frozen=True, slots=True)
class SignWorks:
    """A part of it was done."""


@dataclass(frozen=True, slots=True)
class VerificationFailed:
    """Both servers cannot be verified at present. Sent once for each reason."""

    message: str


@dataclass(frozen=True, slots=True)
class VerificationWorks:
    """A part of a verification was done: so many instances of it in all, where that is counted."""

    instances: int | None = None


@dataclass(frozen=True, slots=True)
class Recounted:
    """The source's own count was compared with what its feed has told, and nothing is missing now.

    ``held``: how many instances the source holds; None when the count could not be compared.
    ``unexplained``: of so many the feed has not told, and a search has not found them.
    """

    held: int | None
    unexplained: int


@dataclass(frozen=True, slots=True)
class MissedFound:
    """An instance of which the feed had not told was found by a recount, and moved or parked."""

    move: Move


@dataclass(frozen=True, slots=True)
class RecountFailed:
    """The source's instances cannot be counted at present. Sent once for each reason."""

    message: str


@dataclass(frozen=True, slots=True)
class RulesRead:
    """The rules file has changed and holds from now on. ``generation``: the word for it."""

    generation: str
    rules: int


@dataclass(frozen=True, slots=True)
class RulesRefused:
    """The rules file has changed and cannot be used: the rules of ``generation`` still hold."""

    message: str
    generation: str


@dataclass(frozen=True, slots=True)
class NoticeSent:
    """An event has reached its receiver. ``kind``: which; ``way``: where to."""

    kind: str
    way: str


@dataclass(frozen=True, slots=True)
class NoticeFailed:
    """An event could not be sent; it waits in the outbox, and is sent again."""

    kind: str
    way: str
    message: str


@dataclass(frozen=True, slots=True)
class NoticesDropped:
    """So many events were dropped unsent: they were too old, or too many."""

    count: int


@dataclass(frozen=True, slots=True)
class TellingFailed:
    """What events tell cannot be learned at present. Sent once for each reason."""

    message: str


@dataclass(frozen=True, slots=True)
class TellingWorks:
    """What events tell can be learned again."""


@dataclass(frozen=True, slots=True)
class StateFailed:
    """The ledger cannot be written; nothing new is started until it can."""

    message: str


@dataclass(frozen=True, slots=True)
class StateRecovered:
    """The ledger can be written again."""


@dataclass(frozen=True, slots=True)
class FeedDoubted:
    """A look at the source's feed contradicts what is known of it.

    Nothing new is moved, and nothing is deleted at either server, until FeedTrusted or FeedReset.
    """

    message: str


@dataclass(frozen=True, slots=True)
class FeedTrusted:
    """The source's feed is the one that was followed after all."""


@dataclass(frozen=True, slots=True)
class FeedReset:
    """The source's feed is not the one that was followed."""

    message: str


@dataclass(frozen=True, slots=True)
class Draining:
    """A stop was asked for: nothing new is started, running instances may finish."""

    in_flight: int


@dataclass(frozen=True, slots=True)
class Abandoned:
    """These had not finished when the time to stop was over; the next start does them again."""

    in_flight: int


Event = (
    Settled
    | InstanceParked
    | ParkedRetried
    | InstanceDropped
    | ActionTaken
    | InstanceRetried
    | SideDown
    | SideStillDown
    | SideUp
    | PageRead
    | ListCompared
    | GapsClosed
    | WorkerLost
    | SourceDeletes
    | SourceKept
    | SourceSwept
    | SweepFailed
    | SweepWaits
    | SweepWorks
    | CopyFound
    | CopyReplaces
    | CopyRepaired
    | CopyNotRepaired
    | TargetDeletes
    | TargetKept
    | Verified
    | Carried
    | CarryLeft
    | CarryFailed
    | CarryRoundEnded
    | CarryStopped
    | CarryWorks
    | Signed
    | SignLeft
    | SignFailed
    | SignStopped
    | SignWorks
    | VerificationFailed
    | VerificationWorks
    | Recounted
    | MissedFound
    | RecountFailed
    | RulesRead
    | RulesRefused
    | NoticeSent
    | NoticeFailed
    | NoticesDropped
    | TellingFailed
    | TellingWorks
    | StateFailed
    | StateRecovered
    | FeedDoubted
    | FeedTrusted
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
class CameBack:
    """Instances that this bridge has delivered and that came to the source again soon after.

    ``instance_id`` and ``at`` (epoch seconds) are of the last one.
    """

    count: int = 0
    instance_id: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """An instance that waits because a server answered it with an error, or our disk is too small.

    ``alone``: the server serves others meanwhile; when False, this may be an outage. ``since`` is
    in epoch seconds, ``times`` counts the answers. ``side`` is "" for our disk.
    """

    instance_id: str
    sequence: int | None
    side: str
    message: str
    advice: str
    since: float
    times: int
    alone: bool


@dataclass(frozen=True, slots=True)
class SideView:
    """A server as the pipeline sees it. ``down_since`` is in epoch seconds.

    ``version``: Orthanc's, as last seen. ``instance_id``: the instance at which it failed last, and
    ``times``: how often it failed at that one; "" when it failed at something else.
    """

    up: bool = True
    trial: bool = False
    problem: str = ""
    message: str = ""
    advice: str = ""
    down_since: float | None = None
    version: str = ""
    instance_id: str = ""
    times: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the pipeline is. Times are epoch seconds; None where there is nothing to tell.

    ``last`` is the feed's newest sequence as far as known. ``caught_up``: everything that was in
    the feed when it was read last is settled. ``able_since``: since when the pipeline has had
    work, or has had none, without anything that kept it from working; now while something does.
    ``refused_count``: instances that wait although others are served. ``refused``: the first few
    of those that a server refused, also where that may be an outage.
    """

    checkpoint: int | None = None
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
    workforce: Workforce = NO_WORKERS
    hold: str = ""
    refused_count: int = 0
    refused: tuple[Refused, ...] = ()
    came_back: CameBack = CameBack()
    last_progress_at: float = 0.0
    able_since: float = 0.0
    feed_read_at: float | None = None
    gaps: OpenGaps = NO_GAPS
    phase: str = "starting"


class Observer(Protocol):
    """Receives what happened. Must be quick and must not raise."""

    def on_event(self, event: Event) -> None:
        """Take note of one event."""

    def on_progress(self, progress: Progress) -> None:
        """Take note of where the pipeline is; called after each step."""


# What a pipeline did, for the person who started it.


@dataclass(slots=True)
class Summary:
    """Counts of finished moves, by the events that tell of them.

    Several phases of one command add to the same summary.
    """

    delivered: int = 0
    already_there: int = 0
    present: int = 0
    """Not sent, because the target was shown to hold them."""
    skipped: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    late: int = 0
    missing: int = 0
    gaps: int = 0
    """Sequences in gaps that a command was to read: they may still become instances."""
    abandoned: int = 0
    stopped: bool = False
    dry_run: bool = False
    """Nothing was moved: ``would`` counts what would have become of each instance."""
    would: Counter[str] = field(default_factory=Counter)

    def count(self, event: Event) -> None:
        """Count what happened."""
        match event:
            case Settled(outcome=Delivered() as delivered):
                self.already_there += delivered.already_there
                self.delivered += not delivered.already_there
            case Settled(outcome=Skipped(reason=reason)):
                self.skipped[reason] += 1
            case InstanceParked(reason=reason):
                self.parked[reason] += 1
            case PageRead(late=late, missing=missing):
                self.late += late
                self.missing += missing
            case ListCompared(instances=instances, lacking=lacking):
                self.present += instances - lacking
            case Abandoned(in_flight=in_flight):
                self.abandoned += in_flight
            case _:
                pass

    def stop(self) -> None:
        """Note that a stop was asked for."""
        self.stopped = True

    @property
    def settled(self) -> int:
        """How many moves were finished, in whatever way."""
        done = self.delivered + self.already_there
        return done + self.skipped.total() + self.parked.total()

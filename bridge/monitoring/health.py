"""Judge from the progress whether all is well (G6): a pure function behind /health and /readyz.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.events import Progress, SideView
from bridge.ledger.records import OutboxView
from bridge.model import LogState, SideName, SourceDoubt, epoch_of
from bridge.monitoring.kept_files import KeptView

FEED_RESET_ADVICE = (
    "The bridge now compares everything that the source holds. Make sure that it is the right "
    "server."
)
"""It is seen only while a snapshot runs: with BRIDGE_ON_FEED_RESET=stop the bridge ends."""


FEED_DOUBT_ADVICE = (
    "The bridge looks again on new connections, and moves and deletes nothing meanwhile. Make sure "
    "that BRIDGE_SOURCE_URL leads to one server only. See: orthanc-bridge docs operations "
    "backwards."
)
GAPS_ADVICE = (
    "Run orthanc-bridge check --fix: it delivers what is missing and clears this message when "
    "nothing is missing. Raise BRIDGE_FEED_GAPS_MAX if it happens again."
)
CAME_BACK_TOLD_S = 3600.0
CAME_BACK_ADVICE = (
    "If a sender has stored them again, nothing needs to be done. If not, look for another bridge, "
    "or a rule or script of the target, that sends from the target to the "
    "source, and stop it: the source's originals may be overwritten by what comes back."
)
NAMED_MAX = 3
"""So many refused instances are named in one problem."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """From where on something is wrong. 0 means no limit for ``lag_limit_s``.

    ``poll_interval_s``: an idle feed is looked at no more often than that. ``retains``: delivered
    instances are deleted at the source, and looked for at the target before.
    """

    stall_after_s: float = 600.0
    poll_interval_s: float = 0.0
    lag_limit_s: float = 0.0
    parked_limit: int = 0
    verify_every_s: float | None = None
    carries: bool = False
    signs: bool = False
    retains: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: ``code`` for machines, the rest for people."""

    code: str
    message: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the target is behind the source: 0 and 0 when all that is known of is settled.

    ``changes``: sequences of the feed above the checkpoint, up to the newest one. ``seconds``: age
    of the oldest change that was read and is not settled, by the source's clock.
    """

    changes: int
    seconds: float


def lag_of(progress: Progress, *, now: float) -> Lag:
    """Compute the lag from a report; ``now`` in epoch seconds."""
    changes = behind(progress.last, progress.checkpoint, caught_up=progress.caught_up)
    changed_at = epoch_of(progress.oldest_changed_at)
    return Lag(changes, max(0.0, now - changed_at) if changed_at is not None else 0.0)


def behind(newest: int | None, checkpoint: int | None, *, caught_up: bool = False) -> int:
    """Count the changes that are not settled: the one definition, whoever tells of it.

    ``newest``: sequence of the feed's newest change. ``caught_up``: everything up to there was
    read and is settled; what lies between then is rows of other types, or rows that are gone.
    0 where either is not known yet.
    """
    if caught_up or newest is None or checkpoint is None:
        return 0
    return max(0, newest - checkpoint)


def unready(progress: Progress) -> tuple[Problem, ...]:
    """List why the bridge cannot work now: a server or the state file. Empty when it can."""
    found = [
        problem
        for side, view in ((SideName.SOURCE, progress.source), (SideName.TARGET, progress.target))
        for problem in _side_problems(side, view)
    ]
    if progress.state_error:
        found.append(Problem("state_unwritable", progress.state_error))
    workforce = progress.workforce
    if workforce.problem:
        found.append(Problem(workforce.problem, workforce.message, workforce.advice))
    if progress.executor_error and not workforce.problem:
        advice = "Instances wait and lose no attempt. To see more: orthanc-bridge doctor."
        found.append(Problem("workers_failing", progress.executor_error, advice))
    return tuple(found)


def judge(
    progress: Progress,
    parked: Mapping[str, int],
    limits: HealthLimits,
    *,
    now: float,
    feed_reset: str = "",
    feed_doubt: str = "",
    gaps_given_up: int = 0,
) -> tuple[Problem, ...]:
    """List everything that is wrong, the gravest first. Empty when all is well.

    ``gaps_given_up``: sequences of the feed that were dropped unseen.
    """
    found = list(unready(progress))
    workforce = progress.workforce
    if feed_reset:
        found.insert(0, Problem("feed_went_backwards", feed_reset, FEED_RESET_ADVICE))
    if feed_doubt:
        found.insert(0, Problem("feed_in_doubt", feed_doubt, FEED_DOUBT_ADVICE))
    if gaps_given_up:
        text = (
            f"The bridge dropped {gaps_given_up} sequences of the feed before their rows became "
            "visible. They may have been instances."
        )
        found.append(Problem("feed_gaps_given_up", text, GAPS_ADVICE))
    found.extend(_stall(progress, limits, now=now))
    lag = lag_of(progress, now=now)
    if limits.lag_limit_s and lag.seconds > limits.lag_limit_s:
        text = f"The oldest unfinished change is {lag.seconds:.0f} s old."
        found.append(Problem("lag_above_limit", text, "See: orthanc-bridge docs operations lags."))
    if workforce.refused_count and workforce.problem != "no_workers":
        first = f"{workforce.refused[0].address}: {workforce.refused[0].reason}"
        text = f"{workforce.refused_count} workers of the cluster are refused; {first}"
        found.append(Problem("workers_refused", text, "See: orthanc-bridge docs cluster refused."))
    if progress.refused_count:
        found.append(_refused_problem(progress))
    back = progress.came_back
    if back.count and abs(now - back.at) <= CAME_BACK_TOLD_S:
        many = "1 instance" if back.count == 1 else f"{back.count} instances"
        text = (
            f"{many} that this bridge delivered came to the source again, as the target holds "
            f"them; the last one is {back.instance_id}. They are not moved again."
        )
        found.append(Problem("instances_came_back", text, CAME_BACK_ADVICE))
    total = sum(parked.values())
    if total > limits.parked_limit:
        text = "1 instance is parked." if total == 1 else f"{total} instances are parked."
        found.append(Problem("parked", text, "To see why: orthanc-bridge parked list."))
    return tuple(found)


VERIFY_GRACE_S = 86_400.0
"""So long after it was due a verification is missed: it goes at a rate, and heeds quiet hours."""
VERIFY_FAILING_S = 3600.0
"""So long a verification may fail before it is told: an outage has a reason of its own."""


SOURCE_DOUBTS = {
    SourceDoubt.RECYCLES: (
        "The source recycles (MaximumStorageSize or MaximumPatientCount): what it lacks may have "
        "its last copy at the target. Nothing that it lacks is deleted there "
        "(BRIDGE_MIRROR_DELETIONS).",
        "Set MaximumStorageMode to Reject at the source, or BRIDGE_MIRROR_DELETIONS=off.",
    ),
    SourceDoubt.UNTOLD: (
        "The source does not say whether it recycles (Orthanc 1.12 and newer do): what it lacks "
        "may have its last copy at the target. Nothing that it lacks is deleted there "
        "(BRIDGE_MIRROR_DELETIONS).",
        "If MaximumStorageSize and MaximumPatientCount are 0 at the source, or MaximumStorageMode "
        "is Reject, set BRIDGE_RETENTION_RISK=source-limits-untold. Otherwise set "
        "BRIDGE_MIRROR_DELETIONS=off.",
    ),
    SourceDoubt.SHARED: (
        "The source or the target has its index in a database (a plugin for PostgreSQL, MySQL or "
        "ODBC). Several Orthancs may serve one database, and a bridge at one of them does not see "
        "the notes of a bridge at another, which may rely on the copies at the target. Nothing "
        "that the source lacks is deleted there (BRIDGE_MIRROR_DELETIONS).",
        "If one Orthanc serves each database, or no other bridge uses the other Orthancs, set "
        "BRIDGE_RETENTION_RISK=shared-database. Otherwise set BRIDGE_MIRROR_DELETIONS=off.",
    ),
}
"""Why deletions at the source are not followed, and what to do."""


@dataclass(frozen=True, slots=True)
class MirrorView:
    """What is known of verifications. Times: epoch seconds; None where there was none.

    ``counts``: instances of the last complete one by state, ``unresolved``: its differences that
    were not repaired. ``held``: repairs and deletions that wait for a person's word. ``done``: how
    many instances the one under way has looked at. ``failing_since``, ``failure``: it cannot go on.
    ``unfinished``: a repair is not at its end, so that the target may lack a copy. ``doubt``: why
    deletions at the source are not followed. ``source_damaged``: instances whose file is damaged at
    the source, as far as that was found.
    """

    begun_at: float | None = None
    ended_at: float | None = None
    instances: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    unresolved: int = 0
    repaired: int = 0
    deleted: int = 0
    held: int = 0
    done: int | None = None
    failing_since: float | None = None
    failure: str = ""
    unfinished: bool = False
    doubt: SourceDoubt | None = None
    source_damaged: int = 0


def mirror_problems(
    view: MirrorView,
    every_s: float | None,
    *,
    started_at: float,
    now: float,
    clock_set_at: float = 0.0,
) -> tuple[Problem, ...]:
    """List what is wrong with the verification of both servers. Empty when there is none to be.

    ``started_at``: of this process, ``clock_set_at``: when the machine's clock was set since, 0
    where it was not; epoch seconds.
    """
    if every_s is None:
        return _unfinished(view)
    found = []
    if view.held:
        text = (
            f"BRIDGE_REPAIR_LIMIT is reached: {counted(view.held, 'repair or deletion')} "
            f"at the target {'waits' if view.held == 1 else 'wait'}."
        )
        advice = "Look at both servers. To allow more for one day: orthanc-bridge check --confirm."
        found.append(Problem("repairs_held", text, advice))
    if view.doubt is not None:
        text, advice = SOURCE_DOUBTS[view.doubt]
        found.append(Problem("deletions_refused", text, advice))
    if view.source_damaged:
        files = counted(view.source_damaged, "file")
        text = f"{files} of the source {'is' if view.source_damaged == 1 else 'are'} damaged."
        advice = (
            "The log names them (copy_found, source_damaged). Put them back at the source from a "
            "backup, or send the instances there again. See: orthanc-bridge docs mirror."
        )
        found.append(Problem("damaged_at_source", text, advice))
    unresolved = view.unresolved - view.counts.get("source_damaged", 0)
    if unresolved > 0:
        found.append(_differing(view, unresolved))
    begun_at = started_at if view.begun_at is None or view.begun_at > now else view.begun_at
    verified_at = max(begun_at, clock_set_at)
    late_s = now - verified_at - every_s
    if late_s > max(every_s, VERIFY_GRACE_S):
        text = (
            f"No verification that began in the last {lasting(now - verified_at)} has been "
            "completed."
        )
        advice = "Raise BRIDGE_VERIFY_RATE, or BRIDGE_VERIFY_EVERY."
        if now - started_at <= max(every_s, VERIFY_GRACE_S):
            advice = "The bridge did not run, or the clock was set. The next one is due now."
        found.append(Problem("verification_late", text, advice))
    since = view.failing_since
    if since is not None and now - since >= VERIFY_FAILING_S:
        advice = "See: orthanc-bridge docs mirror."
        found.append(Problem("verification_failing", view.failure, advice))
    return tuple(found)


LOST_ADVICE = (
    "Restore what is lost from a backup. If it was deleted at the target on purpose: "
    "orthanc-bridge check --forget-lost."
)
NEVER_REPAIRED = ("not_ours", "lost", "undecided", "unverifiable")
"""States of copies that are differences, and that no repair touches: a person must act."""


def _differing(view: MirrorView, unresolved: int) -> Problem:
    """Tell of differences, in which states they are, and what helps against these."""
    left = {state: view.counts.get(state, 0) for state in NEVER_REPAIRED}
    told = ", ".join(f"{count:,} {state}" for state, count in left.items() if count)
    text = f"The last verification found {counted(unresolved, 'difference')}"
    text += f", of these {told}." if told else "."
    repair = "To repair them: orthanc-bridge check --repair."
    look = "No repair changes these states. The log names the instances (copy_found)."
    advice = [repair] if unresolved > sum(left.values()) else []
    advice += [look] if told else []
    advice += [LOST_ADVICE] if left["lost"] else []
    return Problem("copies_differ", text, " ".join([*advice, DIFFERING_DOCS]))


DIFFERING_DOCS = "What each state means: orthanc-bridge docs mirror found."


CARRY_GRACE_S = 3600.0
"""So long something beside the files may wait, or nothing of it be brought, before it is told."""
CARRY_ADVICE = "Deliveries do not wait for it. See: orthanc-bridge docs mirror labels."


@dataclass(frozen=True, slots=True)
class CarryView:
    """What is known of what lies beside the files. Times: epoch seconds; None where not known.

    ``caught_up_at``: when nothing was left to be brought. ``waiting``: resources that are tried
    again, ``waiting_since`` the first of them. ``compared_at``: when the last round ended,
    ``resources`` and ``left`` what it found. ``stopped_since``, ``stopped``: nothing can be done.
    """

    caught_up_at: float | None = None
    waiting: int = 0
    waiting_since: float | None = None
    compared_at: float | None = None
    resources: int = 0
    left: int = 0
    stopped_since: float | None = None
    stopped: str = ""


def carry_problems(
    view: CarryView, *, idle_at: float, held: bool, now: float
) -> tuple[Problem, ...]:
    """Say whether what lies beside the files lags.

    ``idle_at``: when it could not go on last, or this process began. ``held``: by an operator.
    """
    stopped = view.stopped_since
    if stopped is not None and now - stopped >= CARRY_GRACE_S:
        text = (
            f"No labels, metadata or attachments were copied for {lasting(now - stopped)}: "
            f"{view.stopped}"
        )
        return (Problem("carry_late", text, CARRY_ADVICE),)
    since = _not_after(view.waiting_since, now, idle_at)
    if since is not None and now - since >= CARRY_GRACE_S:
        count = counted(view.waiting, "resource")
        text = f"Labels, metadata or attachments of {count} could not be copied to the target."
        advice = "The log says why (carry_failed). See: orthanc-bridge docs mirror labels."
        return (Problem("carry_late", text, advice),)
    behind_s = now - latest(idle_at, view.caught_up_at or 0.0, now=now)
    if not held and behind_s >= CARRY_GRACE_S:
        text = (
            "Labels, metadata and attachments at the target have been behind for "
            f"{lasting(behind_s)}."
        )
        return (Problem("carry_late", text, CARRY_ADVICE),)
    return ()


@dataclass(frozen=True, slots=True)
class SignView:
    """What is known of signs at the source. Times: epoch seconds; None where not known.

    ``waiting``: deliveries that are to be signed, ``waiting_since`` the first of them,
    ``refused_since`` the first of those that were tried in vain.
    ``stopped_since``, ``stopped``: nothing can be signed.
    """

    waiting: int = 0
    waiting_since: float | None = None
    refused_since: float | None = None
    stopped_since: float | None = None
    stopped: str = ""


SIGN_ADVICE = "No delivery waits for it. What it needs: orthanc-bridge docs mirror."


def sign_problems(view: SignView, *, idle_at: float, held: bool, now: float) -> tuple[Problem, ...]:
    """Say whether what was delivered cannot be signed. Arguments as those of ``carry_problems``.

    What only waits for its turn, while much is delivered, is no problem.
    """
    stopped, since = view.stopped_since, _not_after(view.refused_since, now, idle_at)
    if stopped is not None and now - stopped >= CARRY_GRACE_S:
        text = f"Nothing was signed at the source for {lasting(now - stopped)}: {view.stopped}"
        return (Problem("sign_late", text, SIGN_ADVICE),)
    if since is not None and not held and now - max(since, idle_at) >= CARRY_GRACE_S:
        text = f"Delivered instances could not be signed at the source for {lasting(now - since)}."
        advice = f"The log says why (sign_failed). {SIGN_ADVICE}"
        return (Problem("sign_late", text, advice),)
    return ()


def sign_in_words(view: SignView, *, now: float) -> str:
    """Say how much is still to be signed."""
    if view.waiting_since is None:
        return "all that was delivered is signed"
    since = UNKNOWN_TIME if view.waiting_since > now else lasting(now - view.waiting_since)
    return f"{counted(view.waiting, 'delivered instance')} to be signed, the first since {since}"


def carry_in_words(view: CarryView, *, now: float) -> str:
    """Say when everything was compared last, and what was left."""
    if view.compared_at is None:
        last = "not everything has been compared yet"
    else:
        last = f"all compared {_ago(view.compared_at, now)}, {counted(view.resources, 'resource')}"
        last += f", {view.left:,} left because others wrote them" if view.left else ""
    waiting = ""
    if view.waiting:
        waiting = (
            f"; {counted(view.waiting, 'resource')} {'waits' if view.waiting == 1 else 'wait'}"
        )
    return f"{last}{waiting}"


EVENTS_GRACE_S = 900.0
"""So long an event may wait to be sent, or what events tell be unknown, before it is told."""


def events_problems(
    outbox: OutboxView, failing: tuple[float, str] | None, *, now: float
) -> tuple[Problem, ...]:
    """List what keeps events from being told. ``now``: epoch seconds.

    ``failing``: since when it cannot be learned what they tell, epoch seconds, and why.
    """
    advice = "Deliveries continue. See: orthanc-bridge docs events."
    found = []
    oldest_at = outbox.oldest_at
    if oldest_at is not None and now - oldest_at > EVENTS_GRACE_S:
        text = f"{counted(sum(outbox.waiting.values()), 'event')} could not be sent, the oldest "
        text += f"for {lasting(now - oldest_at)}"
        text += f": {outbox.problem}." if outbox.problem else "."
        advice = f"To test it: orthanc-bridge events test. {advice}"
        found.append(Problem("events_failing", text, advice))
    elif failing is not None and now - failing[0] > EVENTS_GRACE_S:
        found.append(Problem("events_failing", f"Studies cannot be judged: {failing[1]}", advice))
    return tuple(found)


def _unfinished(view: MirrorView) -> tuple[Problem, ...]:
    """Tell of a repair that a command has left, where nothing is verified: it must come to its end.

    With verifications it is told when it cannot be ended: one is under way again and again.
    """
    if not view.unfinished:
        return ()
    text = "A repair is unfinished: the target may lack the copy that was to be replaced."
    text += f" {view.failure}" if view.failure else ""
    advice = (
        "The bridge keeps the new copy beside the state file. To finish the repair: "
        "orthanc-bridge check --repair."
    )
    return (Problem("verification_failing", text, advice),)


def verification_in_words(view: MirrorView, *, now: float) -> str:
    """Say when both servers were verified last, and what was found."""
    if view.ended_at is None:
        last = "no verification completed yet"
    else:
        ago = _ago(view.ended_at, now)
        found = counted(view.unresolved, "difference")
        last = f"last complete verification: {ago}, {counted(view.instances, 'instance')}, "
        last += found
        last += f", {view.repaired:,} repaired" if view.repaired else ""
        last += f", {view.deleted:,} deleted at the target" if view.deleted else ""
    under_way = "" if view.done is None else f"; one is running, {view.done:,} done"
    unfinished = "; a repair is unfinished" if view.unfinished else ""
    return f"{last}{under_way}{unfinished}"


def log_problems(log: LogState) -> tuple[Problem, ...]:
    """Say whether the log is lost, or waits for room or for a reader."""
    if not log.failing:
        return ()
    lost = f" {counted(log.lost, 'line')} lost." if log.lost else ""
    if log.problem:
        text = f"The log cannot be written: {log.problem}.{lost}"
    else:
        text = f"Nobody reads the log, or too slowly.{lost}"
    advice = "Deliveries do not wait for it. See: orthanc-bridge docs logs cannot be written."
    return (Problem("log_failing", text, advice),)


AUDIT_ADVICE = (
    "Lines wait in memory, so let the bridge run until there is room again. Nothing is deleted "
    "meanwhile. See: orthanc-bridge docs audit."
)


def audit_problems(failure: str) -> tuple[Problem, ...]:
    """Say that the audit file cannot be written; ``failure``: why, "" when it can be."""
    return (Problem("audit_failing", failure, AUDIT_ADVICE),) if failure else ()


def missed_problem(instances: int) -> Problem:
    """Tell that the feed had not told of instances; they have been moved since."""
    many = "1 instance" if instances == 1 else f"{instances} instances"
    text = f"{many} came to the source but were not in its feed; a recount found and moved them."
    advice = "Run orthanc-bridge check. See: orthanc-bridge docs operations report."
    return Problem("feed_incomplete", text, advice)


def lacking_problem(instances: int) -> Problem:
    """Tell that the target lacks what this bridge has delivered, as retention has found."""
    text = f"The target lacks {counted(instances, 'instance')} that this bridge delivered, or"
    text += " cannot read the file. They stay at the source."
    advice = (
        "Was the target restored from a backup? To deliver what is missing: orthanc-bridge check "
        "--fix. To replace what is damaged: orthanc-bridge check --repair."
    )
    return Problem("delivered_lacking", text, advice)


def kept_problem(kept: KeptView) -> Problem:
    """Tell that the target kept its own file of instances that the bridge sent."""
    many = counted(kept.count, "instance")
    text = (
        f"The target already had {'more than ' if kept.full else ''}{many} with other bytes than "
        f"the bridge sent, and kept its own file; the last one is {kept.instance_id}."
    )
    advice = (
        "To compare: orthanc-bridge check --deep. To have the target take the newer file: set "
        "OverwriteInstances there, and deliver it again. To have such instances parked: "
        "BRIDGE_PROOF=stored."
    )
    return Problem("other_bytes_kept", text, advice)


def marks_problem(marks: Sequence[str]) -> Problem:
    """Tell that marks which were set at a server could not be removed."""
    names = ", ".join(marks[:NAMED_MAX])
    more = len(marks) - NAMED_MAX
    text = (
        "The bridge cannot remove marks that it set at a server to tell source and target "
        f"apart: {names}"
    )
    text += f" and {more} more." if more > 0 else "."
    advice = (
        "The server's log may say why. The bridge tries again. Remove them yourself, or make the "
        "bridge forget them: orthanc-bridge retention --confirm."
    )
    return Problem("marks_left", text, advice)


def _refused_problem(progress: Progress) -> Problem:
    count = progress.refused_count
    many = "1 instance is" if count == 1 else f"{count} instances are"
    alone = [refused for refused in progress.refused if refused.alone]
    names = ", ".join(refused.instance_id for refused in alone[:NAMED_MAX])
    text = f"{many} refused by a server that serves others: {names}"
    more = count - len(alone[:NAMED_MAX])
    text += f" and {more} more." if more else "."
    if not alone:
        return Problem("instances_refused", text)
    return Problem("instances_refused", f"{text} {alone[-1].message}", alone[-1].advice)


def _side_problems(side: SideName, view: SideView) -> tuple[Problem, ...]:
    if view.up:
        return ()
    text = view.message
    if view.instance_id:
        times = "once" if view.times == 1 else f"{view.times} times"
        text += (
            f" It failed {times} at instance {view.instance_id}. Until it has served another "
            "instance, the bridge cannot tell an outage from a problem with this instance."
        )
    return (Problem(f"{side}_{view.problem}", text, view.advice),)


def _stall(progress: Progress, limits: HealthLimits, *, now: float) -> tuple[Problem, ...]:
    if not (progress.source.up and progress.target.up) or progress.state_error:
        return ()
    if progress.hold or progress.workforce.problem:
        return ()  # told already; or somebody wanted it so: pause, quiet hours, a rate limit
    advice = "Read the log. If it does not say why, restart the bridge: nothing is lost."
    busy = bool(progress.waiting or progress.delayed or progress.in_flight)
    # An idle night, a pause and an outage are no standstill: it begins when work could be done.
    still_s = now - latest(progress.last_progress_at, progress.able_since, now=now)
    if busy and still_s > limits.stall_after_s:
        text = f"There is work, but no instance was finished for {still_s:.0f} s."
        return (Problem("stalled", text, advice),)
    read_at = progress.feed_read_at
    if busy or read_at is None:
        return ()
    unread_s = now - latest(read_at, progress.able_since, now=now)
    if unread_s > limits.stall_after_s + limits.poll_interval_s:
        text = f"The feed was not read for {unread_s:.0f} s."
        return (Problem("stalled", text, advice),)
    return ()


def latest(*times: float, now: float) -> float:
    """Return the latest of times that is not after now: the clock was ahead when that was noted."""
    return max((at for at in times if at <= now), default=now)


def _not_after(at: float | None, now: float, otherwise: float) -> float | None:
    """Return a stored time; ``otherwise`` where it is after now: the clock was ahead then."""
    return at if at is None or at <= now else otherwise


UNKNOWN_TIME = "an unknown time (the clock was ahead then)"


def _ago(at: float, now: float) -> str:
    """Say how long ago something was; not so where that time is still to come."""
    return f"at {UNKNOWN_TIME}" if at > now else f"{lasting(now - at)} ago"


def counted(number: int, thing: str) -> str:
    """Write a number and what it counts."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def lasting(seconds: float) -> str:
    """Write a duration in its two largest units."""
    whole = round(seconds)
    for unit_s, unit, part_s, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // part_s} {part}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"

"""``orthanc-bridge check --repair`` and ``--confirm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.commands.output import Format, print_result, say
from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.events import Event, Progress

COLUMNS = ("instance", "state", "result", "detail")
REPAIRED = "repaired"
NOT_REPAIRED = "not_repaired"
SEE_PARKED = "See: orthanc-bridge parked list, and parked list --dropped"


class FoundCopies:
    """An observer that keeps what a verification finds, and what became of it, on disk."""

    def __init__(self) -> None:
        from bridge.checks.disk_lists import Spool

        self.rows = Spool()
        self._waiting: dict[str, dict[str, object]] = {}

    def on_event(self, event: Event) -> None:
        """Note a difference, or its end. At most a batch of them is held in memory."""
        from bridge.events import CopyFound, CopyNotRepaired, CopyRepaired, VerificationWorks

        match event:
            case CopyFound(instance_id=instance_id, state=state, advice=advice):
                row: dict[str, object] = {"instance": instance_id, "state": state}
                self._waiting[instance_id] = row | {"result": "", "detail": advice}
            case CopyRepaired(instance_id=instance_id):
                self._end(instance_id, REPAIRED, "")
            case CopyNotRepaired(instance_id=instance_id, message=message):
                self._end(instance_id, NOT_REPAIRED, message)
            case VerificationWorks():
                self.flush()
            case _:
                pass

    def on_progress(self, progress: Progress) -> None:
        """Do nothing: nothing is moved by a pipeline."""

    def flush(self) -> None:
        """Write what is held: the batch is over."""
        for row in self._waiting.values():
            self.rows.add(row)
        self._waiting.clear()

    def _end(self, instance_id: str, result: str, detail: str) -> None:
        row = self._waiting.get(instance_id)
        if row is not None:
            row.update(result=result, detail=detail)


def repair_copies(settings: Settings, how: Format, *, deep: bool, beyond_limit: bool) -> int:
    """Verify both servers and repair what differs; prints what was found.

    Exit code 3 when differences remain; a parked or dropped instance is one of them.
    """
    from bridge.checks.disk_lists import spooling
    from bridge.commands.lifecycle import count_at_source, draining_on_signals
    from bridge.commands.progress_bar import VerifyingProgress, showing
    from bridge.ledger.store import Ledger
    from bridge.ledger.verifications import held_repairs
    from bridge.mirror.judge_copy import CopyState
    from bridge.monitoring.health import counted
    from bridge.monitoring.logs import LogObserver
    from bridge.service import Service

    with spooling(), Ledger(settings.state_path, create=False) as ledger:
        found = FoundCopies()
        with (
            showing("check") as show,
            Service(
                settings,
                (LogObserver(), found, VerifyingProgress(show, count_at_source(settings))),
                bounded=True,
            ) as service,
            draining_on_signals(service.stop) as interruption,
        ):
            service.preflight()
            service.check_history(ledger)
            ended = service.verify(ledger, repair=True, deep=deep, beyond_limit=beyond_limit)
        found.flush()
        held = held_repairs(ledger)
        parked = 0 if ended is None else ended.counts.get(CopyState.PARKED, 0)
        # `check` counts a parked instance as a difference too: scripts run either command.
        remain = 0 if ended is None else ended.differences - ended.repaired + parked
        summary: dict[str, object] = {"finished": ended is not None}
        if ended is not None:
            summary |= {
                "instances": ended.instances,
                "found": dict(ended.counts),
                REPAIRED: ended.repaired,
                NOT_REPAIRED: ended.failed,
                "repairs_held": held,
                "differences": remain,
            }
        print_result(
            how,
            summary=summary,
            name="findings",
            rows=found.rows,
            columns=COLUMNS,
            matters=lambda row: row["result"] != REPAIRED,
        )
    if interruption.signal_number is not None:
        say("check: interrupted; run check --repair again to repair what still differs", err=True)
        return EXIT_INTERRUPTED
    if ended is None:
        say(
            "check: not finished; the errors above say why. The list shows what was found", err=True
        )
    if held:
        text = "BRIDGE_REPAIR_LIMIT is reached. To repair them: check --repair --beyond-limit"
        say(f"check: {counted(held, 'repair')} left to do: {text}", err=True)
    if parked:
        text = f"check: not at the target, parked or dropped: {counted(parked, 'instance')}."
        say(f"{text} check --repair does not deliver these. {SEE_PARKED}", err=True)
    return EXIT_INCOMPLETE if remain or ended is None else EXIT_DONE


def confirm(settings: Settings) -> int:
    """Let a running bridge repair and delete beyond its limit for a day."""
    from bridge.ledger.store import Ledger
    from bridge.ledger.verifications import confirm_repairs
    from bridge.retention.age_clock import AgeClock

    with Ledger(settings.state_path, create=False) as ledger:
        confirm_repairs(ledger, AgeClock().now_s(ledger))
    say("A running bridge may repair and delete beyond BRIDGE_REPAIR_LIMIT for one day.")
    return EXIT_DONE

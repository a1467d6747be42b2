"""``orthanc-bridge replay``."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED


def replay(
    first: Annotated[
        int, typer.Option("--from", min=0, metavar="SEQ", help="First sequence to deliver again.")
    ],
    last: Annotated[
        int | None,
        typer.Option(
            "--to", min=0, metavar="SEQ", help="Last sequence; default: the end of the feed."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done; transfer nothing.")
    ] = False,
    skip_present: Annotated[
        bool,
        typer.Option(
            "--skip-present",
            help="Leave out what the target holds: it is asked in bulk, and nothing of it is "
            "fetched. With BRIDGE_PROOF=stored, only if the MD5 there is the one on record.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Deliver a range of changes again.

    A sequence is the number of a change in the source's feed; the log and parked list show it.
    Safe while a bridge runs: its checkpoint does not move. Replaces no copy at the target,
    unless the target itself overwrites (OverwriteInstances). Exit code 3 if instances are parked.
    """
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import on_terminal, print_summary
    from bridge.commands.progress_bar import RangeProgress, showing
    from bridge.config import load_settings
    from bridge.errors import SideError
    from bridge.feed.pages import check_order
    from bridge.ledger.store import Ledger
    from bridge.monitoring.logs import LogObserver
    from bridge.service import Service

    check_order(start=first, end=last)
    options = " --dry-run" * dry_run + " --skip-present" * skip_present
    settings = load_settings()
    # A progress bar and a line for each instance do not go together.
    begin(settings, level="warning" if on_terminal() else None)
    with (
        Ledger(settings.state_path) as ledger,
        showing("replay") as show,
        Service(
            settings,
            (LogObserver(), progress := RangeProgress(show, "replay", first)),
            bounded=True,
        ) as service,
        draining_on_signals(service.stop) as interruption,
    ):
        service.preflight()
        end = service.replay_end(start=first, end=last)
        progress.begin(end)
        try:
            summary = service.replay(
                ledger, start=first, end=end, dry_run=dry_run, skip_present=skip_present
            )
        except SideError:
            tell_where_to_go_on(progress.next, end, options)
            raise
    print_summary(summary, as_json=as_json)
    if summary.stopped or interruption.signal_number is not None:
        tell_where_to_go_on(progress.next, end, options)
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if summary.parked or summary.gaps else EXIT_DONE


def tell_where_to_go_on(first: int, last: int, options: str) -> None:
    """Say on stderr, for a replay that has not come to its end, which command does the rest.

    ``options``: those beside the range, each with a blank before it.
    """
    from bridge.commands.output import say

    if first > last:
        say("replay: the whole range is done", err=True)
        return
    command = f"orthanc-bridge replay --from {first} --to {last}{options}"
    say(f"replay: to continue, run: {command}", err=True)

"""``orthanc-bridge replay``."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED


def replay(
    first: Annotated[
        int, typer.Option("--from", min=0, metavar="SEQ", help="First change to do again.")
    ],
    last: Annotated[
        int | None,
        typer.Option(
            "--to", min=0, metavar="SEQ", help="Last one; without it, to the end of the feed."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; transfer nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> int:
    """Do the changes of a range again. The checkpoint of a running bridge is untouched."""
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import on_terminal, print_summary
    from bridge.commands.progress import range_progress
    from bridge.config import load_settings
    from bridge.core.errors import ConfigurationError
    from bridge.ledger import Ledger
    from bridge.logs import LogObserver
    from bridge.service import Service

    if last is not None and last < first:
        raise ConfigurationError(f"--to {last} is below --from {first}.")
    settings = load_settings()
    # A progress bar and a line for each instance do not go together.
    begin(settings, level="warning" if on_terminal() else None)
    with (
        Ledger(settings.state_path) as ledger,
        range_progress(first) as progress,
        Service(settings, (LogObserver(), progress), bounded=True) as service,
        draining_on_signals(service.stop) as interruption,
    ):
        service.preflight()
        end = service.replay_end(start=first, end=last)
        progress.begin(end)
        summary = service.replay(ledger, start=first, end=end, dry_run=dry_run)
    print_summary(summary, as_json=as_json)
    if interruption.signal_number is not None:
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if summary.parked else EXIT_DONE

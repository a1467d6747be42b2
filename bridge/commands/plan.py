"""``orthanc-bridge plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.output import Format, chosen_format, print_result
from bridge.errors import EXIT_DONE

if TYPE_CHECKING:
    from bridge.checks.plan import Plan

COLUMNS = ("source_syntax", "does", "to", "why", "instances", "megabytes", "work_s", "estimate")


def plan(
    first: Annotated[
        int | None,
        typer.Option(
            "--from", min=0, metavar="SEQ", help="First sequence; default: after the checkpoint."
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--to", min=0, metavar="SEQ", help="Last sequence; default: the end of the feed."
        ),
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> int:
    """Show what a run would do and how long it may take. Transfers nothing."""
    from bridge.checks.ask_both_servers import BothServers, inspector
    from bridge.checks.disk_lists import spooling
    from bridge.checks.plan import as_fields, make_plan, next_sequence
    from bridge.checks.throughput import load_throughput
    from bridge.commands.lifecycle import begin
    from bridge.commands.progress_bar import counting
    from bridge.config import load_settings
    from bridge.feed.pages import check_order, range_end
    from bridge.ledger.lock import there_may_be
    from bridge.ledger.store import Ledger
    from bridge.model import SideName

    check_order(start=first, end=last)
    settings = load_settings()
    begin(settings)
    checkpoint, measured = None, {}
    if there_may_be(settings.state_path):
        with Ledger(settings.state_path, create=False) as ledger:
            checkpoint, measured = ledger.checkpoint(), load_throughput(ledger)
    with (
        spooling(),
        BothServers(lambda side: inspector(settings.endpoint(side))) as servers,
        counting("plan") as show,
    ):
        end = range_end(servers.client(SideName.SOURCE), start=first, end=last)
        begun = next_sequence(checkpoint, start=settings.start, end=end)
        made = make_plan(
            servers,
            job=settings.job(),
            first=begun if first is None else first,
            last=end,
            page_size=settings.page_size,
            measured=measured,
            show=show,
        )
    print_result(
        chosen_format(how, as_json=as_json),
        summary=_summary(made, settings.workers),
        name="plan",
        rows=map(as_fields, made.rows),
        columns=COLUMNS,
    )
    return EXIT_DONE


def basis(measured_share: float, workers: int) -> str:
    """Say how good the estimate is; ``measured_share``: of its time, 0 to 1."""
    if not measured_share:
        return f"rough estimate: nothing measured yet (orthanc-bridge docs plan); {workers} workers"
    share = f"{measured_share:.0%} of it is measured by this bridge"
    rest = ", the rest is assumed" if measured_share < 1 else ""
    return f"{share}{rest} (orthanc-bridge docs plan); {workers} workers"


def _summary(made: Plan, workers: int) -> dict[str, object]:
    from bridge.checks.plan import MEGABYTE
    from bridge.decision import Treatment

    seconds = made.seconds(workers)
    share = made.measured_share
    return {
        "changes": f"{made.first}..{made.last}" if made.last >= made.first else "none",
        "instances": made.changes,
        "gone": made.gone,
        "unreadable": dict(made.unreadable),
        "cannot_be_decoded_here": sum(
            r.instances for r in made.rows if r.treatment == Treatment.PARK
        ),
        "megabytes_to_read": round(made.source_bytes / MEGABYTE, 1),
        "estimated_seconds": round(seconds),
        "estimate_rests_on": basis(share, workers),
    }

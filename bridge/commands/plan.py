"""``orthanc-bridge plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.results import Format, chosen_format, print_result
from bridge.core.errors import EXIT_DONE, ConfigurationError

if TYPE_CHECKING:
    from bridge.planning import Plan

COLUMNS = ("source_syntax", "does", "to", "why", "instances", "megabytes", "work_s", "estimate")


def plan(
    first: Annotated[
        int | None,
        typer.Option(
            "--from", min=0, metavar="SEQ", help="First change; without it, after the checkpoint."
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--to", min=0, metavar="SEQ", help="Last one; without it, to the end of the feed."
        ),
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="Print it as.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> int:
    """Say what would be done from here, and how long it may take. Transfers nothing."""
    from bridge.commands.counting import counting
    from bridge.commands.lifecycle import begin
    from bridge.config import load_settings
    from bridge.core.model import SideName
    from bridge.feed_reader import feed_end
    from bridge.ledger import Ledger
    from bridge.lookers import Lookers, inspector
    from bridge.planning import as_fields, make_plan, next_sequence
    from bridge.state_file import there_may_be
    from bridge.throughput import load_throughput

    if first is not None and last is not None and last < first:
        raise ConfigurationError(f"--to {last} is below --from {first}.")
    settings = load_settings()
    begin(settings)
    checkpoint, measured = None, {}
    if there_may_be(settings.state_path):
        with Ledger(settings.state_path, create=False) as ledger:
            checkpoint, measured = ledger.checkpoint(), load_throughput(ledger)
    with (
        Lookers(lambda side: inspector(settings.endpoint(side))) as lookers,
        counting("plan") as show,
    ):
        end = feed_end(lookers.client(SideName.SOURCE), at_least=last or 0)
        begun = next_sequence(checkpoint, start=settings.start, end=end)
        made = make_plan(
            lookers,
            job=settings.job(),
            first=begun if first is None else first,
            last=end if last is None else min(last, end),
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


def _summary(made: Plan, workers: int) -> dict[str, object]:
    from bridge.planning import MEGABYTE
    from bridge.prospects import Deed

    seconds = made.seconds(workers)
    share = made.measured_share
    return {
        "changes": f"{made.first}..{made.last}" if made.last >= made.first else "none",
        "instances": made.changes,
        "gone": made.gone,
        "unreadable": dict(made.unreadable),
        "cannot_be_decoded_here": sum(r.instances for r in made.rows if r.deed == Deed.PARK),
        "megabytes_to_read": round(made.source_bytes / MEGABYTE, 1),
        "estimated_seconds": round(seconds),
        "estimate_rests_on": f"{share:.0%} measurements, {1 - share:.0%} assumptions "
        f"(docs/plan.md), {workers} workers",
    }

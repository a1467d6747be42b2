"""``orthanc-bridge check``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.results import Format, chosen_format, print_result
from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from bridge.commands.counting import Show
    from bridge.comparison import Check
    from bridge.config import Settings
    from bridge.findings import Findings
    from bridge.ledger import Ledger

COLUMNS = ("instance", "state", "source_syntax", "target_syntax", "detail")


def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Fetch both files and compare every pixel.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Move what is missing, then say what still differs.")
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option("--sample", min=1, metavar="N", help="Compare the pixels of N at random."),
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="Print it as.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> int:
    """Compare the two servers: what is missing, extra, in the wrong syntax, or another image.

    Exit code 3 when differences remain.
    """
    from bridge.commands.counting import counting
    from bridge.commands.lifecycle import begin
    from bridge.commands.output import on_terminal
    from bridge.config import load_settings
    from bridge.ledger import Ledger
    from bridge.spool import spooling
    from bridge.state_file import there_may_be

    settings = load_settings()
    begin(settings, level="warning" if on_terminal() else None)
    interrupted = False
    with spooling(), ExitStack() as stack:
        path = settings.state_path
        ledger = stack.enter_context(Ledger(path)) if fix or there_may_be(path) else None
        with counting("check") as show:
            result = _compare(stack, settings, ledger, show, deep=deep, sample=sample)
        findings = result.findings
        if fix and ledger is not None:
            findings, interrupted = _fix(stack, settings, ledger, findings)
        remain = _print(chosen_format(how, as_json=as_json), settings, result, findings)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if remain else EXIT_DONE


def _compare(
    stack: ExitStack,
    settings: Settings,
    ledger: Ledger | None,
    show: Show,
    *,
    deep: bool,
    sample: int | None,
) -> Check:
    """Compare; what is found lives as long as ``stack``."""
    from bridge.comparison import Check
    from bridge.images import ImageChecks
    from bridge.lookers import Lookers, inspector

    job = settings.job()
    images = None
    if deep or sample is not None:
        memory_bytes = settings.worker_memory_mb * 1024 * 1024
        images = stack.enter_context(
            ImageChecks(job, workers=settings.workers, memory_bytes=memory_bytes)
        )
    lookers = stack.enter_context(Lookers(lambda side: inspector(settings.endpoint(side))))
    found = Check(
        lookers,
        job=job,
        known=ledger,
        page_size=settings.page_size,
        show=show,
        images=images,
        sample=sample,
        start=settings.start,
    )
    stack.enter_context(found)
    found.run()
    return found


def _fix(
    stack: ExitStack, settings: Settings, ledger: Ledger, findings: Findings
) -> tuple[Findings, bool]:
    """Move what is missing; returns what is to be said then, and whether it was interrupted."""
    from bridge.commands.lifecycle import draining_on_signals
    from bridge.core.model import SideName
    from bridge.findings import MOVABLE
    from bridge.listing import place_of
    from bridge.logs import LogObserver
    from bridge.lookers import inspector
    from bridge.review import reviewed
    from bridge.service import Service

    if not any(findings.counts[state] for state in MOVABLE):
        return findings, False
    with (
        Service(settings, (LogObserver(),), bounded=True) as service,
        draining_on_signals(service.stop) as interruption,
    ):
        service.preflight()
        source, target = (
            stack.enter_context(inspector(settings.endpoint(side)))
            for side in (SideName.SOURCE, SideName.TARGET)
        )
        # As it was before anything is moved: another one lacks what is to be moved.
        place = place_of(source)
        service.retry(ledger, findings.moves())
        after = stack.enter_context(
            reviewed(
                findings,
                source=source,
                target=target,
                known=ledger,
                look=place.look,
            )
        )
    return after, interruption.signal_number is not None


def _print(how: Format, settings: Settings, result: Check, findings: Findings) -> bool:
    """Print the result; returns whether differences remain."""
    from bridge.findings import State

    totals = result.totals
    # A source that lets go of what was delivered is meant to hold less than the target.
    harmless = {State.FIXED} | ({State.EXTRA} if settings.retention_s is not None else set())
    remain = sum(count for state, count in findings.counts.items() if state not in harmless)
    counts = {str(state): findings.counts[state] for state in State if findings.counts[state]}
    summary: dict[str, object] = {
        "source_instances": totals.source,
        "target_instances": totals.target,
        "on_both": totals.on_both,
        "skipped_by_rule": totals.skipped_by_rule,
        "images_compared": totals.images_compared,
        "found": counts,
        "differences": remain,
        "seconds": round(totals.seconds, 1),
        "instances_per_second": round(totals.rate),
    }
    rows = (
        {
            "instance": finding.instance_id,
            "state": str(finding.state),
            "source_syntax": finding.source_syntax,
            "target_syntax": finding.target_syntax,
            "detail": finding.detail,
        }
        for finding in findings
    )
    print_result(
        how,
        summary=summary,
        name="findings",
        rows=rows,
        columns=COLUMNS,
        matters=lambda row: row["state"] not in harmless,
    )
    return remain > 0

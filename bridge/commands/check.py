"""``orthanc-bridge check``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.output import Format, chosen_format, print_result
from bridge.errors import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    ConfigurationError,
)

if TYPE_CHECKING:
    from bridge.checks.ask_both_servers import Show
    from bridge.checks.compare import Check
    from bridge.checks.differences import Differences
    from bridge.config import Settings
    from bridge.ledger.store import Ledger

COLUMNS = ("instance", "state", "source_syntax", "target_syntax", "detail")


def check(  # noqa: PLR0917 (typer gives them by name)
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Fetch the files of both servers and compare every pixel."),
    ] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Deliver what is missing, then list what still differs. Replaces no copy and "
            "delivers no parked instance.",
        ),
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=1, metavar="N", help="Compare the pixels of N random instances."
        ),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Deliver what is missing; replace copies that are damaged, older or in the wrong "
            "syntax: DELETES such a copy at the target, then sends the source's instance. "
            "Delivers no parked instance. Makes the target read all its files. Replaces no "
            "more than BRIDGE_REPAIR_LIMIT allows.",
        ),
    ] = False,
    beyond_limit: Annotated[
        bool,
        typer.Option("--beyond-limit", help="With --repair: exceed BRIDGE_REPAIR_LIMIT."),
    ] = False,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm",
            help="Allow a running bridge to repair and delete beyond BRIDGE_REPAIR_LIMIT for one "
            "day. Compares nothing.",
        ),
    ] = False,
    forget_lost: Annotated[
        bool,
        typer.Option(
            "--forget-lost",
            help="Forget what is lost on purpose: instances that neither server holds, because "
            "they were deleted at the target after retention. Lists them once more.",
        ),
    ] = False,
    how: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> int:
    """Compare both servers: list what is missing, extra or different.

    Changes nothing without --fix or --repair. Compares pixels with --deep or --sample only. Exit
    code 3 if differences remain; each parked instance that the target lacks is one.
    """
    from bridge.checks.differences import State
    from bridge.checks.disk_lists import spooling
    from bridge.commands.check_repair import confirm as confirm_repairs
    from bridge.commands.check_repair import repair_copies
    from bridge.commands.lifecycle import begin
    from bridge.commands.output import on_terminal, say
    from bridge.commands.progress_bar import counting
    from bridge.config import load_settings
    from bridge.ledger.lock import there_may_be
    from bridge.ledger.store import Ledger

    if (fix or sample is not None or confirm) and repair:
        raise ConfigurationError(
            "--repair cannot be combined with --fix, --sample or --confirm.",
            advice="Give --repair alone: it also delivers what is missing.",
        )
    if forget_lost and (repair or fix or confirm):
        raise ConfigurationError(
            "--forget-lost cannot be combined with --repair, --fix or --confirm.",
            advice="Run check first and read its list. Then run check --forget-lost.",
        )
    if beyond_limit and not repair:
        raise ConfigurationError(
            "--beyond-limit works with --repair only.",
            advice="To allow a running bridge more repairs: orthanc-bridge check --confirm",
        )
    settings = load_settings()
    begin(settings, level="warning" if on_terminal() else None)
    chosen = chosen_format(how, as_json=as_json)
    if confirm:
        return confirm_repairs(settings)
    if repair:
        return repair_copies(settings, chosen, deep=deep, beyond_limit=beyond_limit)
    interrupted = False
    with spooling(), ExitStack() as stack:
        path = settings.state_path
        ledger = stack.enter_context(Ledger(path)) if fix or there_may_be(path) else None
        given_up = ledger.gaps_given_up() if ledger is not None else 0
        with counting("check") as show:
            result = _compare(stack, settings, ledger, show, deep=deep, sample=sample)
        differences = result.differences
        if fix and ledger is not None:
            differences, interrupted = _fix(stack, settings, ledger, differences)
        complete = not interrupted and not differences.counts[State.MISSING]
        if given_up and ledger is not None and complete:
            ledger.answer_given_up(given_up)
        compared = result.totals.images_compared if deep or sample is not None else None
        forgotten = None
        if forget_lost and ledger is not None:
            forgotten = _forget_lost(ledger, differences)
        remain = _print(
            chosen,
            settings,
            result,
            differences,
            images_compared=compared,
            forgotten=forgotten,
        )
    if interrupted:
        say("check: interrupted; run check --fix again to deliver what is still missing", err=True)
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
    from bridge.checks.ask_both_servers import BothServers, inspector
    from bridge.checks.compare import Check
    from bridge.checks.pixels import ImageComparer

    job = settings.job()
    images = None
    if deep or sample is not None:
        memory_bytes = settings.worker_memory_mb * 1024 * 1024
        images = stack.enter_context(
            ImageComparer(job, workers=settings.workers, memory_bytes=memory_bytes)
        )
    servers = stack.enter_context(BothServers(lambda side: inspector(settings.endpoint(side))))
    found = Check(
        servers,
        job=job,
        known=ledger,
        page_size=settings.page_size,
        show=show,
        images=images,
        sample=sample,
        start=settings.start,
        finds_lost=ledger is not None
        and ledger.has_delivered_to(settings.target_url)
        and not settings.target_may_lose,
    )
    stack.enter_context(found)
    found.run()
    return found


def _fix(
    stack: ExitStack, settings: Settings, ledger: Ledger, differences: Differences
) -> tuple[Differences, bool]:
    """Move what is missing; returns what is to be said then, and whether it was interrupted."""
    from bridge.checks.ask_both_servers import inspector
    from bridge.checks.compare import reviewed
    from bridge.checks.differences import MOVABLE
    from bridge.commands.lifecycle import draining_on_signals
    from bridge.commands.progress_bar import MovesProgress, showing
    from bridge.feed.sources import place_of
    from bridge.model import SideName
    from bridge.monitoring.logs import LogObserver
    from bridge.service import Service

    movable = sum(differences.counts[state] for state in MOVABLE)
    if not movable:
        return differences, False
    with (
        showing("check") as show,
        Service(
            settings,
            (LogObserver(), MovesProgress(show, "delivering", movable)),
            bounded=True,
        ) as service,
        draining_on_signals(service.stop) as interruption,
    ):
        service.preflight()
        source, target = (
            stack.enter_context(inspector(settings.endpoint(side)))
            for side in (SideName.SOURCE, SideName.TARGET)
        )
        # As it was before anything is moved: another one lacks what is to be moved.
        place = place_of(source)
        service.retry(ledger, differences.moves())
        after = stack.enter_context(
            reviewed(
                differences,
                source=source,
                target=target,
                known=ledger,
                look=place.look,
            )
        )
    return after, interruption.signal_number is not None


def _forget_lost(ledger: Ledger, differences: Differences) -> int:
    """Forget what is lost, and have /health forget it; returns how many records were forgotten.

    Nothing while the target holds nothing of what was delivered: it may be another server.
    """
    from bridge.checks.differences import State
    from bridge.checks.target_holds import HOLDS_NOTHING
    from bridge.ledger.verifications import answer_lost

    lost = (each for each in differences if each.state is State.LOST)
    sure = (each for each in lost if not each.detail.startswith(HOLDS_NOTHING))
    forgotten = sum(ledger.forget_released(each.instance_id) for each in sure)
    if forgotten == differences.counts[State.LOST]:
        answer_lost(ledger)
    return forgotten


def _print(
    how: Format,
    settings: Settings,
    result: Check,
    differences: Differences,
    *,
    images_compared: int | None,
    forgotten: int | None,
) -> bool:
    """Print the result; returns whether differences remain.

    ``images_compared`` None: nobody asked for it. A person is told how to ask. ``forgotten``: so
    many that are lost are no difference any more; None where nobody asked for it.
    """
    from bridge.checks.differences import State

    totals = result.totals
    # A source from which delivered instances are deleted holds less than the target.
    harmless = {State.FIXED} | ({State.EXTRA} if settings.retention_s is not None else set())
    remain = sum(count for state, count in differences.counts.items() if state not in harmless)
    remain -= forgotten or 0
    counts = {str(state): differences.counts[state] for state in State if differences.counts[state]}
    summary: dict[str, object] = {
        "source_instances": totals.source,
        "target_instances": totals.target,
        "on_both": totals.on_both,
        "skipped_by_rule": totals.skipped_by_rule,
        "images_compared": images_compared,
        "found": counts,
        "differences": remain,
        "seconds": round(totals.seconds, 1),
        "instances_per_second": round(totals.rate),
    }
    if forgotten is not None:
        summary["forgotten"] = forgotten
    if images_compared is None and how is not Format.JSON:
        summary["images_compared"] = "none; to compare pixels, add --deep or --sample N"
    rows = (
        {
            "instance": difference.instance_id,
            "state": str(difference.state),
            "source_syntax": difference.source_syntax,
            "target_syntax": difference.target_syntax,
            "detail": difference.detail,
        }
        for difference in differences
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

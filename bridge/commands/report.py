"""``orthanc-bridge report``."""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.output import Format, chosen_format, print_result, say
from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bridge.checks.ask_both_servers import BothServers
    from bridge.checks.audit_reader import Line, Records
    from bridge.checks.report import Arrival
    from bridge.config import Settings
    from bridge.orthanc import OrthancClient

COLUMNS = (
    "instance",
    "fate",
    "how",
    "sequence",
    "delivered_at",
    "at_source",
    "at_target",
    "sop_instance_uid",
    "source_syntax",
    "target_syntax",
    "decoder",
    "trusted",
    "samples_sha256",
    "target_md5",
)
TABLE_COLUMNS = ("instance", "fate", "sequence", "delivered_at", "how")
COLUMNS_WITHOUT_AUDIT = ("instance", "fate", "how")


def report(
    *,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="ID", help="Orthanc ID or Study Instance UID."),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--from", min=0, metavar="SEQ", help="First sequence.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=0, metavar="SEQ", help="Last sequence.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Everything settled since then: 24h, 7d, 2026-11-22T08:00 (UTC).",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Have the target read each file of which nothing but the MD5 is known.",
        ),
    ] = False,
    how: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
) -> int:
    """Report whether each instance arrived as the same image.

    Names the evidence for each. Exit code 3 if one has not arrived or differs.
    """
    from bridge.checks.ask_both_servers import BothServers, inspector
    from bridge.checks.audit_reader import Records
    from bridge.checks.disk_lists import SortedTexts, Spool, spooling
    from bridge.checks.pixels import ImageComparer
    from bridge.checks.report import WELL, Report, arrivals
    from bridge.commands.lifecycle import begin
    from bridge.commands.progress_bar import counting
    from bridge.config import load_settings
    from bridge.feed.pages import check_order

    ranged = first is not None or last is not None
    if sum([study is not None, ranged, since is not None]) != 1:
        raise ConfigurationError(
            "Give one of --study, --from and --to, or --since.",
            advice="See orthanc-bridge report --help.",
        )
    check_order(start=first, end=last)
    settings = load_settings()
    begin(settings)
    done = Report()
    with spooling(), ExitStack() as stack:
        servers = stack.enter_context(BothServers(lambda side: inspector(settings.endpoint(side))))
        asked = Records(stack.enter_context(SortedTexts()))
        if study is not None:
            _ask_for_study(settings, asked, study)
        elif ranged:
            _ask_for_range(settings, servers, asked, first or 0, last)
        else:
            _ask_since(settings, asked, since or "")
        rows = Spool()
        stack.callback(rows.close)
        memory_bytes = settings.worker_memory_mb * 1024 * 1024
        images = stack.enter_context(
            ImageComparer(settings.job(), workers=settings.workers, memory_bytes=memory_bytes)
        )
        with counting("report") as show:
            parked_as = _parked(stack, settings)
            told = arrivals(asked, servers, images, done, show, parked_as=parked_as, verify=verify)
            for arrival in told:
                rows.add(_fields(arrival))
        wanted = chosen_format(how, as_json=as_json)
        shown = TABLE_COLUMNS if settings.audit_path is not None else COLUMNS_WITHOUT_AUDIT
        print_result(
            wanted,
            summary={
                "instances": done.counts.total(),
                **{str(fate): count for fate, count in sorted(done.counts.items())},
                "everything_is_well": "yes" if done.everything_is_well else "no",
            },
            name="instances",
            rows=rows,
            columns=shown if wanted is Format.TABLE else COLUMNS,
            matters=lambda row: row["fate"] not in WELL,
        )
    if wanted is Format.TABLE and settings.audit_path is None:
        say(
            "Sequences and times of delivery are not shown: they are in the audit file, and "
            "BRIDGE_AUDIT_PATH is not set.",
            err=True,
        )
    return EXIT_DONE if done.everything_is_well else EXIT_INCOMPLETE


def _parked(stack: ExitStack, settings: Settings) -> Callable[[str], str | None]:
    """Return what tells why an instance is parked, from the state file if there is one."""
    from bridge.ledger.lock import there_may_be
    from bridge.ledger.store import Ledger

    if not there_may_be(settings.state_path):
        return lambda _: None
    ledger = stack.enter_context(Ledger(settings.state_path, create=False))

    def reason(instance_id: str) -> str | None:
        parked = ledger.parked_one(instance_id)
        if parked is None:
            return "dropped by a person" if ledger.is_put_aside(instance_id) else None
        return str(parked.reason)

    return reason


def _lines(settings: Settings, *, needed: bool) -> Iterator[Line]:
    from bridge.checks.audit_reader import read_lines

    if settings.audit_path is not None:
        return read_lines(settings.audit_path)
    if needed:
        raise ConfigurationError(
            "BRIDGE_AUDIT_PATH is not set, so there is no record of deliveries.",
            advice="Use --study, which needs only the two servers.",
        )
    return iter(())


def _ask_for_study(settings: Settings, asked: Records, study: str) -> None:
    from bridge.checks.ask_both_servers import inspector
    from bridge.model import SideName

    studies: set[str] = set()
    found: set[str] = set()
    for side in SideName:
        with inspector(settings.endpoint(side)) as client:
            study_ids, instance_ids = find_study(client, study)
        studies |= study_ids
        found |= instance_ids
    asked.ask(found)
    # What was deleted on both servers was once delivered: the audit file knows to which study.
    on_record = asked.add(
        _lines(settings, needed=False),
        lambda line: line["instance"] in found or line.get("study") in studies,
    )
    if not (found or on_record):
        raise ConfigurationError(
            f"Neither server has a study {study}, and no line of an audit file is about it.",
            advice="If both servers have lost it, give its Orthanc ID: the audit file has no "
            "other name of it.",
        )


def _ask_for_range(
    settings: Settings, servers: BothServers, asked: Records, first: int, last: int | None
) -> None:
    from bridge.feed.pages import range_end
    from bridge.feed.sources import ReplayRange, pages_of
    from bridge.model import SideName

    client = servers.client(SideName.SOURCE)
    end = range_end(client, start=first, end=last)
    feed = ReplayRange(client, start=first, end=end, page_size=settings.page_size)
    for page in pages_of(feed):
        asked.ask(move.instance_id for move in page.moves)

    def inside(line: Line) -> bool:
        sequence = line.get("sequence")
        # Rows go with their instances: what is on record beyond the newest row counts all the same.
        return (
            isinstance(sequence, int) and first <= sequence and (last is None or sequence <= last)
        )

    asked.add(_lines(settings, needed=False), inside)


def _ask_since(settings: Settings, asked: Records, since: str) -> None:
    import time

    from bridge.audit import stamp

    start = stamp(moment_of(since, now_s=time.time()))
    asked.add(_lines(settings, needed=True), lambda line: str(line.get("time", "")) >= start)


def _fields(arrival: Arrival) -> dict[str, object]:
    record = arrival.record
    copied = ("sop_instance_uid", "source_syntax", "target_syntax", "decoder", "trusted")
    return {
        "instance": record.instance_id,
        "fate": str(arrival.fate),
        "how": arrival.how,
        "sequence": (record.line or {}).get("sequence"),
        "delivered_at": record.delivered_at,
        "at_source": arrival.at_source,
        "at_target": arrival.at_target,
        **{name: record.text(name) for name in (*copied, "samples_sha256", "target_md5")},
    }


# What a person names on the command line: a study, a moment.

AGE_DIGITS_MAX = 12
"""Of an age: more is older than anything."""

_UID = re.compile(r"[0-9.]{1,64}")


def find_study(client: OrthancClient, study: str) -> tuple[set[str], set[str]]:
    """Look a study up by its Orthanc ID or Study Instance UID: Orthanc IDs, and its instances.

    A Study Instance UID that two patients share names two studies; one that the server lacks none.
    Raises ConfigurationError for what is neither, SideError.
    """
    from bridge.orthanc import INSTANCE_ID

    if INSTANCE_ID.fullmatch(study):
        return {study}, set(client.instances_of_study(study) or ())
    if not _UID.fullmatch(study):
        raise ConfigurationError(
            f"--study {study} is neither an Orthanc ID nor a UID.",
            advice="Give the Orthanc ID of the study, or its Study Instance UID (0020,000D).",
        )
    studies = {study_id for level, study_id in client.lookup(study) if level == "Study"}
    found: set[str] = set()
    for study_id in studies:
        found.update(client.instances_of_study(study_id) or ())
    return studies, found


def moment_of(text: str, *, now_s: float) -> float:
    """Return epoch seconds for a moment (ISO 8601, UTC unless it says otherwise) or an age.

    An age is a number and a unit: s, m, h, d. One that began before 1970 begins then: nothing is on
    record from before. Raises ConfigurationError, for a time after ``now_s`` too.
    """
    from bridge.config import UNITS_S

    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and unit in UNITS_S:
        age_s = int(number) * UNITS_S[unit] if len(number) <= AGE_DIGITS_MAX else math.inf
        return max(0.0, now_s - age_s)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is neither an age such as 24h nor a time such as 2026-11-22T08:00."
        ) from None
    moment_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if moment_s > now_s:
        raise ConfigurationError(
            f"{text!r} is in the future.",
            advice="Times are UTC unless they say otherwise, such as 2026-11-22T08:00+01:00.",
        )
    return max(0.0, moment_s)

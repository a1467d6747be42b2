"""``orthanc-bridge report``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.results import Format, chosen_format, print_result
from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.config import Settings
    from bridge.lookers import Lookers
    from bridge.records import Line, Records
    from bridge.reporting import Answer

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
    "samples_sha256",
    "target_md5",
)
TABLE_COLUMNS = ("instance", "fate", "sequence", "delivered_at", "how")


def report(
    *,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="ID", help="Orthanc ID or Study Instance UID."),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--from", min=0, metavar="SEQ", help="From this change on.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=0, metavar="SEQ", help="Up to this change.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Settled since: 24h, 7d, 2026-11-22T08:00 (UTC)."
        ),
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="Print it as.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> int:
    """Say of each instance whether it arrived and is the same image, with what that rests on.

    Exit code 3 when not.
    """
    from bridge.commands.counting import counting
    from bridge.commands.lifecycle import begin
    from bridge.config import load_settings
    from bridge.images import ImageChecks
    from bridge.lookers import Lookers, inspector
    from bridge.records import Records, records
    from bridge.reporting import WELL, Report, answers
    from bridge.spool import Spool, spooling

    ranged = first is not None or last is not None
    if sum([study is not None, ranged, since is not None]) != 1:
        raise ConfigurationError("Give one of --study, --from and --to, or --since.")
    settings = load_settings()
    begin(settings)
    done = Report()
    with spooling(), ExitStack() as stack:
        lookers = stack.enter_context(Lookers(lambda side: inspector(settings.endpoint(side))))
        asked = Records(stack.enter_context(records()))
        if study is not None:
            _ask_for_study(settings, asked, study)
        elif ranged:
            _ask_for_range(settings, lookers, asked, first or 0, last)
        else:
            _ask_since(settings, asked, since or "")
        rows = Spool()
        stack.callback(rows.close)
        memory_bytes = settings.worker_memory_mb * 1024 * 1024
        images = stack.enter_context(
            ImageChecks(settings.job(), workers=settings.workers, memory_bytes=memory_bytes)
        )
        with counting("report") as show:
            for answer in answers(asked, lookers, images, done, show):
                rows.add(_fields(answer))
        wanted = chosen_format(how, as_json=as_json)
        print_result(
            wanted,
            summary={
                "instances": done.counts.total(),
                **{str(fate): count for fate, count in sorted(done.counts.items())},
                "everything_is_well": "yes" if done.everything_is_well else "no",
            },
            name="instances",
            rows=rows,
            columns=TABLE_COLUMNS if wanted is Format.TABLE else COLUMNS,
            matters=lambda row: row["fate"] not in WELL,
        )
    return EXIT_DONE if done.everything_is_well else EXIT_INCOMPLETE


def _lines(settings: Settings, *, needed: bool) -> Iterator[Line]:
    from bridge.records import read_lines

    if settings.audit_path is not None:
        return read_lines(settings.audit_path)
    if needed:
        raise ConfigurationError(
            "BRIDGE_AUDIT_PATH is not set: there is no record to report from.",
            advice="Ask with --study, which needs the two servers only.",
        )
    return iter(())


def _ask_for_study(settings: Settings, asked: Records, study: str) -> None:
    from bridge.core.model import SideName
    from bridge.lookers import inspector
    from bridge.studies import find_study

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
            advice="If both servers have lost it: the audit file knows it by its Orthanc ID only.",
        )


def _ask_for_range(
    settings: Settings, lookers: Lookers, asked: Records, first: int, last: int | None
) -> None:
    from bridge.core.model import SideName
    from bridge.feed import ReplayRange
    from bridge.feed_reader import feed_end

    client = lookers.client(SideName.SOURCE)
    end = feed_end(client, at_least=max(first, last or 0))
    if first > end:
        raise ConfigurationError(f"The range begins beyond the feed: its last change is {end}.")
    end = end if last is None else min(last, end)
    feed = ReplayRange(client, start=first, end=end, page_size=settings.page_size)
    ended = False
    while not ended:
        page = feed.next_page()
        asked.ask(move.instance_id for move in page.moves)
        ended = page.ended

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
    from bridge.studies import moment_of

    start = stamp(moment_of(since, now_s=time.time()))
    asked.add(_lines(settings, needed=True), lambda line: str(line.get("time", "")) >= start)


def _fields(answer: Answer) -> dict[str, object]:
    record = answer.record
    copied = ("sop_instance_uid", "source_syntax", "target_syntax", "decoder")
    return {
        "instance": record.instance_id,
        "fate": str(answer.fate),
        "how": answer.how,
        "sequence": (record.line or {}).get("sequence"),
        "delivered_at": record.delivered_at,
        "at_source": answer.at_source,
        "at_target": answer.at_target,
        **{name: record.text(name) for name in (*copied, "samples_sha256", "target_md5")},
    }

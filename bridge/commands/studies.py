"""``orthanc-bridge studies list / show``."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError

studies_app = typer.Typer(
    help="Show how many instances of each study arrived at the target.", no_args_is_help=True
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@studies_app.command("list")
def list_studies(
    *,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Only studies with parked or dropped instances.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="List at most this many.")
    ] = 50,
    as_json: JsonOption = False,
) -> int:
    """List studies, the latest arrival first.

    A study is on record for BRIDGE_KEEP_STUDIES_DAYS after its last instance.
    """
    from bridge.commands.output import moment, print_json, print_table, say
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger
    from bridge.monitoring.studies import study_fields

    with Ledger(load_settings().state_path, create=False) as ledger:
        found = ledger.studies(limit=limit, incomplete=incomplete)
    if as_json:
        print_json([study_fields(one) for one in found])
    elif not found:
        say("No study lacks instances." if incomplete else "No study is on record.")
    else:
        print_table(
            ("STUDY", "ARRIVED", "PARKED", "SKIPPED", "STABLE", "LAST"),
            (
                (
                    one.study.uid,
                    f"{one.delivered} of {one.seen}",
                    one.parked,
                    one.skipped,
                    "yes" if one.stable else "no",
                    moment(one.last_at),
                )
                for one in found
            ),
        )
    return EXIT_DONE


@studies_app.command("show")
def show_study(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Study Instance UID or Orthanc ID.")
    ],
    as_json: JsonOption = False,
) -> int:
    """Show how many instances of a study arrived, and which are parked.

    Exit code 3 if instances are parked or were dropped.
    """
    from bridge.commands.output import moment, print_json, print_pairs, print_table, say
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger
    from bridge.monitoring.studies import PARKED_MAX, parked_fields, study_fields

    with Ledger(load_settings().state_path, create=False) as ledger:
        found = ledger.find_studies(study, limit=1)
        if not found:
            raise ConfigurationError(
                f"No study {study} is on record.",
                advice="Give the Study Instance UID or the Orthanc ID of a study that got an "
                "instance within BRIDGE_KEEP_STUDIES_DAYS.",
            )
        (record,) = found
        parked = list(itertools.islice(ledger.parked_of_study(record.study.uid), PARKED_MAX))
    if as_json:
        print_json(study_fields(record) | {"parked_instances": [parked_fields(p) for p in parked]})
    else:
        moments = {"first_at": moment(record.first_at), "last_at": moment(record.last_at)}
        print_pairs(study_fields(record) | moments)
        if parked:
            say()
            print_table(
                ("INSTANCE", "REASON", "PARKED", "MESSAGE"),
                ((p.move.instance_id, p.reason, moment(p.parked_at), p.message) for p in parked),
            )
    return EXIT_INCOMPLETE if record.parked else EXIT_DONE

"""``orthanc-bridge parked list / show / retry / drop`` (``export`` is in parked_export.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.parked_export import export_parked
from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED, ConfigurationError
from bridge.core.model import Reason

if TYPE_CHECKING:
    from bridge.entry import Parked
    from bridge.ledger import Ledger
    from bridge.selection import Selection

parked_app = typer.Typer(
    help="The instances that were given up: look at them, try them again, or let them go.",
    no_args_is_help=True,
)

ReasonOption = Annotated[
    Reason | None, typer.Option("--reason", help="Only those parked for this reason.")
]
OlderOption = Annotated[
    float | None,
    typer.Option("--older-than", min=0, metavar="HOURS", help="Only those parked before."),
]
NewerOption = Annotated[
    float | None,
    typer.Option("--newer-than", min=0, metavar="HOURS", help="Only those parked since."),
]
FromOption = Annotated[
    int | None,
    typer.Option("--from", min=0, metavar="SEQ", help="Only those from this change on."),
]
ToOption = Annotated[
    int | None, typer.Option("--to", min=0, metavar="SEQ", help="Only those up to this change.")
]
SyntaxOption = Annotated[
    str | None,
    typer.Option(
        "--syntax", metavar="SYNTAX", help="Only those of this transfer syntax: keyword or UID."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
InstanceArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[INSTANCE]...", help="Orthanc instance IDs.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]


@parked_app.command("list")
def list_parked(
    *,
    reason: ReasonOption = None,
    older_than_h: OlderOption = None,
    newer_than_h: NewerOption = None,
    first: FromOption = None,
    last: ToOption = None,
    syntax: SyntaxOption = None,
    as_json: JsonOption = False,
) -> int:
    """List the parked instances."""
    from bridge.commands.output import moment, on_terminal, print_json, print_table
    from bridge.core.syntaxes import syntax_of

    selection = _selection(reason, older_than_h, newer_than_h, first, last, syntax)
    with _ledger() as ledger:
        rows = list(selection.chosen(ledger))
    if as_json:
        print_json([_fields(parked) for parked in rows])
    elif not rows:
        typer.echo("Nothing is parked." if selection.is_empty else "Nothing like that is parked.")
    else:
        print_table(
            ("INSTANCE", "SEQUENCE", "REASON", "ATTEMPTS", "PARKED", "SYNTAX"),
            (
                (
                    p.move.instance_id,
                    "-" if p.move.sequence is None else p.move.sequence,
                    p.reason,
                    p.attempts,
                    moment(p.parked_at),
                    syntax_of(p.source_syntax).keyword if p.source_syntax else "-",
                )
                for p in rows
            ),
        )
        if on_terminal():
            hint = "orthanc-bridge parked show INSTANCE says why; parked retry tries again."
            typer.echo(hint, err=True)
    return EXIT_DONE


@parked_app.command("show")
def show_parked(
    instance: Annotated[str, typer.Argument(help="Orthanc instance ID.")],
    as_json: JsonOption = False,
) -> int:
    """Show what a bug report needs of one parked instance; nothing of it names a person."""
    from bridge.bugreport import describe_bridge, describe_instance
    from bridge.commands.output import print_json, print_pairs
    from bridge.config import load_settings
    from bridge.core.model import SideName
    from bridge.sides import SideClient

    settings = load_settings()
    with _ledger() as ledger:
        parked = ledger.parked_one(instance)
    if parked is None:
        raise _not_parked([instance])
    client = SideClient(settings.endpoint(SideName.SOURCE))
    try:
        described = describe_instance(client, parked)
    finally:
        client.close()
    told = _fields(parked) | {
        "bridge": describe_bridge(parked, settings.transfer_syntax),
        "source": described,
    }
    if as_json:
        print_json(told)
    else:
        print_pairs(_flattened(told))
    return EXIT_DONE


@parked_app.command("retry")
def retry_parked(
    instances: InstanceArguments = None,
    *,
    every: AllOption = False,
    reason: ReasonOption = None,
    older_than_h: OlderOption = None,
    newer_than_h: NewerOption = None,
    first: FromOption = None,
    last: ToOption = None,
    syntax: SyntaxOption = None,
    as_json: JsonOption = False,
) -> int:
    """Try parked instances again, now. Those that arrive are not parked any more."""
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import print_summary
    from bridge.config import load_settings
    from bridge.logs import LogObserver
    from bridge.service import Service

    selection = _selection(reason, older_than_h, newer_than_h, first, last, syntax)
    settings = load_settings()
    begin(settings)
    with _ledger() as ledger:
        chosen = _named(ledger, instances, selection, every=every)
        with (
            Service(settings, (LogObserver(),), bounded=True) as service,
            draining_on_signals(service.stop) as interruption,
        ):
            service.preflight()
            service.check_history(ledger)
            summary = service.retry(ledger, [parked.move for parked in chosen])
    print_summary(summary, as_json=as_json)
    if interruption.signal_number is not None:
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if summary.parked else EXIT_DONE


@parked_app.command("drop")
def drop_parked(
    instances: InstanceArguments = None,
    *,
    every: AllOption = False,
    reason: ReasonOption = None,
    older_than_h: OlderOption = None,
    newer_than_h: NewerOption = None,
    first: FromOption = None,
    last: ToOption = None,
    syntax: SyntaxOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let parked instances go: they will not reach the target unless replayed."""
    from bridge.commands.output import print_json
    from bridge.entry import Entry

    selection = _selection(reason, older_than_h, newer_than_h, first, last, syntax)
    with _ledger() as ledger:
        chosen = _named(ledger, instances, selection, every=every)
        dropped = [parked.move.instance_id for parked in chosen]
        ledger.commit(Entry(unparked=tuple(dropped)))
    if as_json:
        print_json({"dropped": dropped})
    else:
        typer.echo(f"dropped {len(dropped)}")
    return EXIT_DONE


parked_app.command("export")(export_parked)


def _ledger() -> Ledger:
    from bridge.config import load_settings
    from bridge.ledger import Ledger

    return Ledger(load_settings().state_path, create=False)


def _selection(  # noqa: PLR0917 (one for each option)
    reason: Reason | None,
    older_than_h: float | None,
    newer_than_h: float | None,
    first: int | None,
    last: int | None,
    syntax: str | None,
) -> Selection:
    from bridge.selection import Selection, syntax_uid

    uid = syntax_uid(syntax)
    return Selection(reason, older_than_h, newer_than_h, first, last, uid)


def _named(
    ledger: Ledger, instances: list[str] | None, selection: Selection, *, every: bool
) -> list[Parked]:
    """Return what the arguments name; raises ConfigurationError when they name nothing."""
    filtered = every or not selection.is_empty
    if bool(instances) == filtered:
        raise ConfigurationError(
            "Name the instances, or choose them with --all, --reason, --older-than, "
            "--newer-than, --from, --to or --syntax."
        )
    if not instances:
        return list(selection.chosen(ledger))
    found = {instance: ledger.parked_one(instance) for instance in instances}
    missing = [instance for instance, parked in found.items() if parked is None]
    if missing:
        raise _not_parked(missing)
    return [parked for parked in found.values() if parked is not None]


def _not_parked(instances: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"Not parked: {', '.join(instances)}.", advice="See: orthanc-bridge parked list"
    )


def _fields(parked: Parked) -> dict[str, object]:
    from bridge.commands.output import moment

    return {
        "instance": parked.move.instance_id,
        "sequence": parked.move.sequence,
        "changed_at": parked.move.changed_at,
        "reason": str(parked.reason),
        "message": parked.message,
        "attempts": parked.attempts,
        "first_failed_at": moment(parked.first_failed_at),
        "parked_at": moment(parked.parked_at),
        "source_syntax": parked.source_syntax,
        "sop_instance_uid": parked.sop_instance_uid,
    }


def _flattened(told: dict[str, object], before: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{before}{name} ")
        else:
            flat[f"{before}{name}"] = value
    return flat

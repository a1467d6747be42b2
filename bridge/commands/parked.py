"""``orthanc-bridge parked list / show / retry / drop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, EXIT_INTERRUPTED, ConfigurationError
from bridge.core.model import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.ledger import Ledger, Parked

parked_app = typer.Typer(
    help="The instances that were given up: look at them, try them again, or let them go.",
    no_args_is_help=True,
)

ReasonOption = Annotated[
    Reason | None, typer.Option("--reason", help="Only those parked for this reason.")
]
AgeOption = Annotated[
    float | None,
    typer.Option("--older-than", min=0, metavar="HOURS", help="Only those parked before."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
InstanceArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[INSTANCE]...", help="Orthanc instance IDs.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]


@parked_app.command("list")
def list_parked(
    reason: ReasonOption = None, older_than_h: AgeOption = None, as_json: JsonOption = False
) -> int:
    """List the parked instances."""
    from bridge.commands.output import moment, print_json, print_table

    with _ledger() as ledger:
        rows = list(_chosen(ledger, reason, older_than_h))
    if as_json:
        print_json([_fields(parked) for parked in rows])
    elif not rows:
        typer.echo("Nothing is parked.")
    else:
        print_table(
            ("INSTANCE", "SEQUENCE", "REASON", "ATTEMPTS", "PARKED"),
            (
                (
                    p.move.instance_id,
                    "-" if p.move.sequence is None else p.move.sequence,
                    p.reason,
                    p.attempts,
                    moment(p.parked_at),
                )
                for p in rows
            ),
        )
    return EXIT_DONE


@parked_app.command("show")
def show_parked(
    instance: Annotated[str, typer.Argument(help="Orthanc instance ID.")],
    as_json: JsonOption = False,
) -> int:
    """Show everything known of one parked instance."""
    from bridge.commands.output import print_json, print_pairs

    with _ledger() as ledger:
        parked = ledger.parked_one(instance)
    if parked is None:
        raise _not_parked([instance])
    if as_json:
        print_json(_fields(parked))
    else:
        print_pairs(_fields(parked))
    return EXIT_DONE


@parked_app.command("retry")
def retry_parked(
    instances: InstanceArguments = None,
    every: AllOption = False,
    reason: ReasonOption = None,
    older_than_h: AgeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Try parked instances again, now. Those that arrive are not parked any more."""
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import print_summary
    from bridge.config import load_settings
    from bridge.logs import LogObserver
    from bridge.service import Service

    settings = load_settings()
    begin(settings)
    with _ledger() as ledger:
        chosen = _named(ledger, instances, every, reason, older_than_h)
        with (
            Service(settings, (LogObserver(),), bounded=True) as service,
            draining_on_signals(service.stop) as interruption,
        ):
            service.preflight()
            summary = service.retry(ledger, [parked.move for parked in chosen])
    print_summary(summary, as_json=as_json)
    if interruption.signal_number is not None:
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if summary.parked else EXIT_DONE


@parked_app.command("drop")
def drop_parked(
    instances: InstanceArguments = None,
    every: AllOption = False,
    reason: ReasonOption = None,
    older_than_h: AgeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Let parked instances go: they will not reach the target unless replayed."""
    from bridge.commands.output import print_json
    from bridge.ledger import Entry

    with _ledger() as ledger:
        dropped = [
            parked.move.instance_id
            for parked in _named(ledger, instances, every, reason, older_than_h)
        ]
        ledger.commit(Entry(unparked=tuple(dropped)))
    if as_json:
        print_json({"dropped": dropped})
    else:
        typer.echo(f"dropped {len(dropped)}")
    return EXIT_DONE


def _ledger() -> Ledger:
    from bridge.config import load_settings
    from bridge.ledger import Ledger

    return Ledger(load_settings().state_path, create=False)


def _chosen(ledger: Ledger, reason: Reason | None, older_than_h: float | None) -> Iterator[Parked]:
    import time

    before = None if older_than_h is None else time.time() - older_than_h * 3600
    return ledger.parked(reason=reason, parked_before=before)


def _named(
    ledger: Ledger,
    instances: list[str] | None,
    every: bool,
    reason: Reason | None,
    older_than_h: float | None,
) -> list[Parked]:
    """Return what the arguments name; raises ConfigurationError when they name nothing."""
    filtered = every or reason is not None or older_than_h is not None
    if bool(instances) == filtered:
        raise ConfigurationError(
            "Name the instances, or choose them with --all, --reason or --older-than."
        )
    if not instances:
        return list(_chosen(ledger, reason, older_than_h))
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

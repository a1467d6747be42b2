"""``orthanc-bridge parked list / show / retry / drop / export``."""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.errors import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    ConfigurationError,
    InstanceError,
)
from bridge.ledger.parked_selection import Selection
from bridge.ledger.records import Parked
from bridge.ledger.store import Ledger
from bridge.model import NEVER_PARKED, Reason

if TYPE_CHECKING:
    from bridge.pipeline.parked_policy import NextRetry


def syntax_uid(name_or_uid: str | None) -> str | None:
    """Return the UID of any transfer syntax, given its keyword or UID. Raises ConfigurationError.

    "" asks for instances whose syntax is not known.
    """
    from bridge.dicom.syntaxes import SYNTAXES

    if name_or_uid in (None, ""):
        return name_or_uid
    wanted = str(name_or_uid).strip()
    for uid, syntax in SYNTAXES.items():
        if wanted == uid or wanted.lower() == syntax.keyword.lower():
            return uid
    if all(character in "0123456789." for character in wanted):
        return wanted
    raise ConfigurationError(
        f"--syntax {wanted} is neither a UID nor the keyword of a transfer syntax.",
        advice="For example JPEG2000Lossless or 1.2.840.10008.1.2.4.90.",
    )


OFFERED = ", ".join(reason for reason in Reason if reason not in NEVER_PARKED)


def _parking_reason(given: str) -> Reason:
    found = next((reason for reason in Reason if reason == given.strip().lower()), None)
    if found is None or found in NEVER_PARKED:
        raise typer.BadParameter(f"no instance is parked as {given!r}. Choose: {OFFERED}.")
    return found


FILTERS = {
    "reason": Annotated[
        Reason | None,
        typer.Option(
            "--reason",
            metavar="REASON",
            parser=_parking_reason,
            help=f"Only instances with this reason: {OFFERED}.",
        ),
    ],
    "older_than_h": Annotated[
        float | None,
        typer.Option(
            "--older-than", min=0, metavar="HOURS", help="Only instances parked earlier than that."
        ),
    ],
    "newer_than_h": Annotated[
        float | None,
        typer.Option(
            "--newer-than", min=0, metavar="HOURS", help="Only instances parked later than that."
        ),
    ],
    "first": Annotated[
        int | None,
        typer.Option("--from", min=0, metavar="SEQ", help="Only instances from this sequence on."),
    ],
    "last": Annotated[
        int | None,
        typer.Option("--to", min=0, metavar="SEQ", help="Only instances up to this sequence."),
    ],
    "syntax": Annotated[
        str | None,
        typer.Option(
            "--syntax",
            metavar="SYNTAX",
            help="Only instances with this transfer syntax (keyword or UID).",
        ),
    ],
    "study": Annotated[
        str | None,
        typer.Option(
            "--study",
            metavar="STUDY",
            help="Only instances of this study (Study Instance UID or Orthanc ID).",
        ),
    ],
}
"""The options that make a Selection, by its fields."""


def selecting(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of FILTERS where its signature has ``selection``."""
    signature = inspect.signature(command, eval_str=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in FILTERS.items()
    ]
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        parameters += options if name == "selection" else [parameter]

    @functools.wraps(command)
    def selected(**given: Any) -> int:  # noqa: ANN401 (what the options hold)
        filters = {name: given.pop(name) for name in FILTERS}
        filters["syntax"] = syntax_uid(filters["syntax"])
        return command(**given, selection=Selection(**filters))

    selected.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    selected.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
    return selected


# ``orthanc-bridge parked export``.

QUESTION = (
    "This writes a file made from a patient's image. Names, dates, identifiers, private and "
    "unknown elements are removed and all UIDs are replaced. The pixels stay as they are. Continue?"
)


def export_parked(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Orthanc instance ID.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    confirmed: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Write an anonymised copy of a source instance, for a bug report.

    Pixel data stays byte for byte: look at the image for burned-in names before you send it. Exit
    code 3 if the instance cannot be anonymised with certainty.
    """
    from bridge.checks.bugreport import export, why_not_exported
    from bridge.commands.output import print_json, print_pairs, say
    from bridge.config import load_settings
    from bridge.model import SideName
    from bridge.orthanc.session import connect
    from bridge.untrusted_text import visible

    settings = load_settings()
    if not confirmed:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "An export must be confirmed.", advice="Answer at a terminal, or give --yes."
            )
        typer.confirm(QUESTION, abort=True, err=True)
    with connect(settings.endpoint(SideName.SOURCE)) as client:
        try:
            done = export(
                client,
                instance,
                out,
                spool_above_bytes=settings.spool_above_mb * 1024 * 1024,
                deadline_s=settings.task_timeout_s,
            )
        except InstanceError as exc:
            say(f"orthanc-bridge: {visible(why_not_exported(exc))}", err=True)
            return EXIT_INCOMPLETE
    told: dict[str, object] = {
        "file": str(done.path),
        "bytes": done.file_bytes,
        "syntax": done.syntax,
        "elements_removed": done.removed,
        "elements_replaced": done.replaced,
    }
    if as_json:
        print_json(told | {"warnings": list(done.warnings)})
    else:
        print_pairs(told)
    for warning in done.warnings:
        say(f"WARNING: {visible(warning)}", err=True)
    return EXIT_DONE


parked_app = typer.Typer(
    help="List, retry or drop instances that could not be delivered.",
    no_args_is_help=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
InstanceArguments = Annotated[
    list[str] | None, typer.Argument(metavar="INSTANCE", help="Orthanc instance IDs.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
DroppedOption = Annotated[
    bool, typer.Option("--dropped", help="List dropped instances that have not arrived since.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All parked instances.")]


@parked_app.command("list")
@selecting
def list_parked(
    *,
    selection: Selection,
    dropped: DroppedOption = False,
    as_json: JsonOption = False,
) -> int:
    """List parked instances: those that could not be delivered.

    The originals stay at the source. A parked instance does not stop others.
    """
    from bridge.commands.output import moment, on_terminal, print_json, print_table, say
    from bridge.dicom.syntaxes import syntax_of

    told_next = _next_retries()
    with _ledger() as ledger:
        rows = list(selection.chosen(ledger, dropped=dropped))
    if as_json:
        print_json([_fields(parked, None if dropped else told_next) for parked in rows])
    elif not rows:
        what = "dropped" if dropped else "parked"
        say(f"Nothing {'is' if selection.is_empty else 'like that is'} {what}.")
    else:
        print_table(
            ("INSTANCE", "SEQUENCE", "REASON", "ATTEMPTS", "PARKED", "SYNTAX", "NEXT RETRY"),
            (
                (
                    p.move.instance_id,
                    "-" if p.move.sequence is None else p.move.sequence,
                    p.reason,
                    p.attempts,
                    moment(p.parked_at),
                    syntax_of(p.source_syntax).keyword if p.source_syntax else "-",
                    "-" if dropped else _in_short(told_next(p)),
                )
                for p in rows
            ),
        )
        if on_terminal() and not dropped:
            hint = (
                "Why: orthanc-bridge parked show INSTANCE. Try again: orthanc-bridge parked retry."
            )
            say(hint, err=True)
    return EXIT_DONE


@parked_app.command("show")
def show_parked(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="Orthanc instance ID.")],
    as_json: JsonOption = False,
) -> int:
    """Show why an instance is parked, and what a bug report needs.

    Prints no patient data.
    """
    from bridge.checks.bugreport import describe_bridge, describe_instance
    from bridge.commands.output import print_json, print_pairs
    from bridge.config import load_settings
    from bridge.model import SideName
    from bridge.orthanc.session import SideClient

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
    told = _fields(parked, _next_retries()) | {
        "bridge": describe_bridge(parked, settings.transfer_syntax),
        "source": described,
    }
    if as_json:
        print_json(told)
    else:
        print_pairs(_flattened(told))
    return EXIT_DONE


@parked_app.command("retry")
@selecting
def retry_parked(
    instances: InstanceArguments = None,
    *,
    every: AllOption = False,
    selection: Selection,
    as_json: JsonOption = False,
) -> int:
    """Try parked instances again now.

    Delivered instances leave the list; the others stay parked. Exit code 3 if one stays.
    """
    from bridge.commands.lifecycle import begin, draining_on_signals
    from bridge.commands.output import on_terminal, print_summary, say
    from bridge.commands.progress_bar import MovesProgress, showing
    from bridge.config import load_settings
    from bridge.monitoring.logs import LogObserver
    from bridge.service import Service

    settings = load_settings()
    begin(settings, level="warning" if on_terminal() else None)
    with _ledger() as ledger:
        chosen = _named(ledger, instances, selection, every=every)
        with (
            showing("parked retry") as show,
            Service(
                settings,
                (LogObserver(), MovesProgress(show, "retry", len(chosen))),
                bounded=True,
            ) as service,
            draining_on_signals(service.stop) as interruption,
        ):
            service.preflight()
            service.check_history(ledger)
            summary = service.retry(ledger, [parked.move for parked in chosen])
    print_summary(summary, as_json=as_json)
    if interruption.signal_number is not None:
        left = f"{len(chosen) - summary.settled} of {len(chosen)} were not tried"
        say(f"parked retry: {left} and are parked still: orthanc-bridge parked list", err=True)
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if summary.parked else EXIT_DONE


@parked_app.command("drop")
@selecting
def drop_parked(
    instances: InstanceArguments = None,
    *,
    every: AllOption = False,
    selection: Selection,
    confirmed: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Drop parked instances: the bridge stops trying to deliver them.

    Nothing is deleted on either server. Asks before it drops more than one. Dropped instances stay
    on record (parked list --dropped). replay and check --fix still deliver them.
    """
    from bridge.audit import audit_trails
    from bridge.commands.lifecycle import begin
    from bridge.commands.output import print_json, say
    from bridge.config import load_settings
    from bridge.monitoring.health import counted
    from bridge.monitoring.logs import LogObserver
    from bridge.pipeline.orders import drop

    settings = load_settings()
    begin(settings)
    with _ledger() as ledger:
        chosen = _named(ledger, instances, selection, every=every)
        dropped = [parked.move.instance_id for parked in chosen]
        if len(dropped) > 1 and not confirmed:
            _confirm(f"Drop {counted(len(dropped), 'instance')}? They were not delivered.")
        trails = audit_trails(settings)
        try:
            drop(ledger, chosen, (*trails, LogObserver()), now=time.time())
        finally:
            for trail in trails:
                trail.close()
    if as_json:
        print_json({"dropped": dropped})
    else:
        say(f"Dropped {counted(len(dropped), 'instance')}.")
    return EXIT_DONE


def _confirm(question: str) -> None:
    """Ask at a terminal. Raises ConfigurationError where nobody can answer, typer.Abort on no."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "Dropping more than one instance must be confirmed.",
            advice="Answer at a terminal, or give --yes.",
        )
    typer.confirm(question, abort=True, err=True)


parked_app.command("export")(export_parked)


def _ledger() -> Ledger:
    from bridge.config import load_settings

    return Ledger(load_settings().state_path, create=False)


def _named(
    ledger: Ledger, instances: list[str] | None, selection: Selection, *, every: bool
) -> list[Parked]:
    """Return what the arguments name; raises ConfigurationError when they name nothing."""
    filtered = every or not selection.is_empty
    if bool(instances) == filtered:
        raise ConfigurationError(
            "Name the instances, or choose them with --all, --reason, --older-than, "
            "--newer-than, --from, --to, --syntax or --study."
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


def _next_retries() -> Callable[[Parked], NextRetry]:
    """Return what tells when an instance is tried again, with the settings and what is installed.

    A bridge that runs with other settings, or on another machine, may know it otherwise.
    """
    from bridge.config import load_settings
    from bridge.pipeline.parked_policy import NextRetry, Trigger, next_retry
    from bridge.wiring import present_versions

    if load_settings().parked_retry == "off":
        return lambda _: NextRetry(Trigger.NONE, "BRIDGE_PARKED_RETRY is off")
    return functools.partial(next_retry, now_with=present_versions(), now=time.time())


def _in_short(told: NextRetry) -> str:
    from bridge.commands.output import moment
    from bridge.pipeline.parked_policy import Trigger

    if told.at is not None:
        return "due" if told.at <= time.time() else moment(told.at)
    if told.trigger is Trigger.NONE:
        return "never"
    return (
        "when the bridge changes" if told.trigger is Trigger.BRIDGE else ("when the codecs change")
    )


def _fields(parked: Parked, told_next: Callable[[Parked], NextRetry] | None) -> dict[str, object]:
    """Return what is known of one. ``told_next`` None: it was dropped, and nothing follows."""
    from bridge.commands.output import moment

    known: dict[str, object] = {
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
    if told_next is None:
        return known
    told = told_next(parked)
    return known | {
        "retries": parked.retries,
        "tried_at": moment(parked.tried_at),
        "next_retry": str(told.trigger),
        "next_retry_at": None if told.at is None else moment(told.at),
        "next_retry_why": told.why,
    }


def _flattened(told: dict[str, object], before: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f"{before}{name} ")
        else:
            flat[f"{before}{name}"] = value
    return flat

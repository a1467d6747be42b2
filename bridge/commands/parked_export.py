"""``orthanc-bridge parked export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError, InstanceError

QUESTION = (
    "This writes a file made from a patient's image. Names, dates, identifiers, private and "
    "unknown elements are removed and all UIDs are new; the pixels stay as they are. Go on?"
)


def export_parked(
    instance: Annotated[str, typer.Argument(help="Orthanc instance ID.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    confirmed: Annotated[
        bool, typer.Option("--yes", help="Do not ask; I know that it is made from an image.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> int:
    """Write an anonymised copy of an instance of the source, to show a fault with.

    Pixel data is kept byte for byte. Exit code 3 when it cannot be anonymised with certainty.
    """
    import sys

    from bridge.bugreport import export, refusal
    from bridge.commands.output import print_json, print_pairs
    from bridge.config import load_settings
    from bridge.core.model import SideName
    from bridge.sides import connect

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
            typer.echo(f"orthanc-bridge: {refusal(exc)}", err=True)
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
        typer.echo(f"WARNING: {warning}", err=True)
    return EXIT_DONE

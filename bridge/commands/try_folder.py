"""``orthanc-bridge try``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    ConfigurationError,
)


def try_(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder with DICOM files, searched at any depth."),
    ],
    syntax: Annotated[
        str, typer.Option("--to", metavar="SYNTAX", help="Uncompressed transfer syntax.")
    ] = "ExplicitVRLittleEndian",
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="FILE",
            help="Only files behind this one, as an interrupted try says.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Decode your own files and check the results.

    Other decoders check each result. Uses no server and writes nothing. Exit code 0: all results
    are right. 1: a result is wrong; please report it. 2: no DICOM file was found. 3: a file would
    be parked, or no other decoder can check it.
    """
    from bridge.commands.output import print_json, print_table
    from bridge.commands.progress_bar import showing
    from bridge.demo.try_folder import Judgement, Tally, files_in, named_rows, rows, try_folder
    from bridge.dicom.syntaxes import OFFERED_TARGETS, target_syntax_uid

    try:
        wanted = target_syntax_uid(syntax)
    except ValueError as exc:
        raise ConfigurationError(f"--to {syntax}: {exc}") from exc
    if OFFERED_TARGETS[wanted].encapsulated:
        raise ConfigurationError(
            f"--to {syntax}: choose an uncompressed syntax; only those can be checked."
        )
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder.")
    tally = Tally()
    interrupted = False
    try:
        paths = files_in(folder, after=after)
        with showing("try") as show:
            show("try", 0, len(paths), parked=0)
            for tried in try_folder(folder, paths, wanted_syntax=wanted):
                tally.add(tried)
                show("try", tally.files, len(paths), parked=tally.count(Judgement.PARKED))
    except OSError as exc:
        raise ConfigurationError(f"{folder} cannot be read: {exc.strerror}.") from exc
    except KeyboardInterrupt:
        interrupted = True
    if as_json:
        print_json(tally.as_json())
    else:
        print_table(("syntax", "result", "files"), rows(tally))
        if tally.named:
            print_table(("file", "result", "why"), named_rows(tally))
    if interrupted:
        _tell_where_to_go_on(folder, tally.last or after, syntax)
        return EXIT_INTERRUPTED
    if not any(tally.count(one) for one in Judgement if one is not Judgement.OTHER):
        behind = "" if after is None else f" behind {after}"
        raise ConfigurationError(f"{folder} contains no DICOM file{behind}.")
    if tally.count(Judgement.WRONG):
        return EXIT_BUG
    unsure = tally.count(Judgement.PARKED) + tally.count(Judgement.UNJUDGED)
    return EXIT_INCOMPLETE if unsure else EXIT_DONE


def _tell_where_to_go_on(folder: Path, last: str | None, syntax: str) -> None:
    """Say on stderr that the table is of some files only, and which command tries the others."""
    from bridge.commands.output import say

    options = [str(folder), "--to", syntax, *([f"--after={last}"] if last else [])]
    command = shlex.join(["orthanc-bridge", "try", *options])
    say(f"try: interrupted; the table is of the files so far. The others: {command}", err=True)

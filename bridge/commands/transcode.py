"""``orthanc-bridge transcode``."""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError, InstanceError

if TYPE_CHECKING:
    from bridge.dicom.transcode import Transcoded


class WrongLabel(StrEnum):
    """As BRIDGE_ON_WRONG_LABEL."""

    PARK = "park"
    DECODE = "decode"


def transcode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A DICOM file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    *,
    syntax: Annotated[
        str, typer.Option("--to", metavar="SYNTAX", help="Transfer syntax: keyword or UID.")
    ] = "ExplicitVRLittleEndian",
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check lossless pixels with a second decoder."),
    ] = False,
    on_wrong_label: Annotated[
        WrongLabel,
        typer.Option(
            "--on-wrong-label", help="What to do with a JPEG that contradicts its transfer syntax."
        ),
    ] = WrongLabel.PARK,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Convert one file to another transfer syntax, without a server.

    Exit code 3 if the file cannot be converted with certainty; OUT is not written then.
    """
    from bridge.commands.output import print_json, print_pairs, say
    from bridge.dicom.syntaxes import target_syntax_uid
    from bridge.dicom.transcode import transcode as transcode_bytes
    from bridge.model import TranscodeOptions
    from bridge.untrusted_text import visible

    try:
        wanted = target_syntax_uid(syntax)
    except ValueError as exc:
        raise ConfigurationError(f"--to {syntax}: {exc}") from exc
    try:
        data = source.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{source} cannot be read: {exc.strerror}.") from exc
    options = TranscodeOptions(
        verify="all" if verify else "off", on_wrong_label=on_wrong_label.value
    )
    try:
        result = transcode_bytes(data, wanted_syntax=wanted, options=options)
        written = _write(result, target)
    except InstanceError as exc:
        say(f"orthanc-bridge: {exc.reason}: {visible(exc.message)}", err=True)
        return EXIT_INCOMPLETE
    done: dict[str, object] = {
        "action": str(result.action),
        "source_syntax": result.source_syntax,
        "target_syntax": result.target_syntax,
        "sop_instance_uid": result.sop_instance_uid,
        "decoder": result.decoder,
        "fallbacks": ", ".join(result.fallbacks),
        "trusted": result.evidence.trusted,
        "verified": _verified(result) if verify else "not asked for",
        "source_bytes": len(data),
        "target_bytes": written,
    }
    if as_json:
        print_json(done)
    else:
        print_pairs(done)
    return EXIT_DONE


def _verified(result: Transcoded) -> str:
    if result.verified:
        return "yes"
    return "no: there is no second decoder for it" if result.decoder else "no pixels were decoded"


def _write(result: Transcoded, target: Path) -> int:
    """Write beside the target and rename: OUT is whole or not there.

    A link is followed, but none that another user has put there: it leads where that user wants.
    A device or a pipe is written to: a rename would replace it, and root may replace /dev/null. One
    that another user has put into a shared directory is not: that user reads it.
    The file has the mode that this user's files have: it is an image of a patient.
    """
    from bridge.own_files import open_device, real_path

    try:
        target = real_path(target)
        if target.exists() and not (target.is_file() or target.is_dir()):
            with os.fdopen(open_device(target), "wb") as stream:
                return sum(stream.write(chunk) for chunk in result.body)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                written = sum(file.write(chunk) for chunk in result.body)
                os.umask(umask := os.umask(0o077))
                os.fchmod(file.fileno(), 0o666 & ~umask)  # by its name it may be another one
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"{target} cannot be written: {exc.strerror}.") from exc
    return written

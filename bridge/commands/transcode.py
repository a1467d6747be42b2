"""``orthanc-bridge transcode``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.core.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError, InstanceError

if TYPE_CHECKING:
    from bridge.core.transcode import Transcoded


def transcode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A DICOM file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    syntax: Annotated[
        str, typer.Option("--to", metavar="SYNTAX", help="Transfer syntax: keyword or UID.")
    ] = "ExplicitVRLittleEndian",
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Decode lossless pixels with a second decoder as well."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> int:
    """Bring one file into another transfer syntax. No server is needed.

    Exit code 3 when the file cannot be transcoded with certainty; OUT is then not written.
    """
    from bridge.commands.output import print_json, print_pairs
    from bridge.core.model import TranscodeOptions
    from bridge.core.syntaxes import target_syntax_uid
    from bridge.core.transcode import transcode as transcode_bytes

    try:
        wanted = target_syntax_uid(syntax)
    except ValueError as exc:
        raise ConfigurationError(f"--to {syntax}: {exc}") from exc
    try:
        data = source.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{source} cannot be read: {exc.strerror}.") from exc
    options = TranscodeOptions(verify="all" if verify else "off")
    try:
        result = transcode_bytes(data, wanted_syntax=wanted, options=options)
        written = _write(result, target)
    except InstanceError as exc:
        typer.echo(f"orthanc-bridge: {exc.reason}: {exc.message}", err=True)
        return EXIT_INCOMPLETE
    done: dict[str, object] = {
        "action": str(result.action),
        "source_syntax": result.source_syntax,
        "target_syntax": result.target_syntax,
        "sop_instance_uid": result.sop_instance_uid,
        "decoder": result.decoder,
        "fallbacks": ", ".join(result.fallbacks),
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
    return "no: no second decoder for it" if result.decoder else "no pixels were decoded"


def _write(result: Transcoded, target: Path) -> int:
    """Write beside the target and rename: OUT is whole or not there.

    A link is followed. A device or a pipe is written to: a rename would replace it, and root may
    replace /dev/null.
    """
    try:
        target = target.resolve()
        if target.exists() and not (target.is_file() or target.is_dir()):
            with target.open("wb") as stream:
                return sum(stream.write(chunk) for chunk in result.body)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                written = sum(file.write(chunk) for chunk in result.body)
            partial.chmod(0o644)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"{target} cannot be written: {exc.strerror}.") from exc
    return written

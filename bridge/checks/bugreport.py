"""What a bug report about a parked instance needs, without anything that names a person."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bridge.checks.ask_both_servers import ReadingClient
from bridge.dicom.codecs import DECODERS
from bridge.dicom.deidentify import Cleaned, deidentify
from bridge.dicom.syntaxes import syntax_of
from bridge.errors import BridgeError, ConfigurationError, InstanceError, InstanceGone
from bridge.ledger.records import Parked
from bridge.orthanc import OrthancClient
from bridge.versions import decoder_versions, reported_versions
from bridge.worker.payload import fetched

BURNED_IN_MODALITIES = ("US", "SC", "OT", "XC", "ES", "XA", "RF", "DX", "CR")
"""Modalities whose pixels often show names or dates."""
FILE_MODE = 0o600
METADATA_TOLD = ("TransferSyntax", "SopClassUid", "PixelDataOffset", "Origin")


def describe_instance(client: ReadingClient, parked: Parked) -> dict[str, object]:
    """Tell what the source knows of the instance, or why it tells nothing."""
    instance_id = parked.move.instance_id
    try:
        known = client.instance_metadata(instance_id)
        return {
            "orthanc": client.system().version,
            "file_bytes": client.attachment_size(instance_id),
            **{name: known[name] for name in METADATA_TOLD if name in known},
        }
    except BridgeError as exc:
        return {"not_available": exc.message}


def describe_bridge(parked: Parked, wanted_syntax: str) -> dict[str, object]:
    """Tell versions, and which decoders the instance's syntax has here."""
    syntax = syntax_of(parked.source_syntax)
    return {
        "source_syntax": f"{syntax.keyword} ({parked.source_syntax or 'not known'})",
        "wanted_syntax": f"{syntax_of(wanted_syntax).keyword} ({wanted_syntax})",
        "decoders": {
            decoder.name: decoder_versions(decoder.name)
            for decoder in DECODERS.get(syntax.family, ())
        },
        "versions": reported_versions(),
    }


@dataclass(frozen=True, slots=True)
class Reproducer:
    """An anonymised file that was written. ``warnings``: what a person must look at."""

    path: Path
    file_bytes: int
    syntax: str
    removed: int
    replaced: int
    warnings: tuple[str, ...]


def export(
    client: OrthancClient, instance_id: str, out: Path, *, spool_above_bytes: int, deadline_s: float
) -> Reproducer:
    """Write an anonymised copy of an instance of the source to ``out``, which must not exist.

    Raises SideError, InstanceGone, ConfigurationError (the file cannot be written), and
    InstanceError when it cannot be walked and so cannot be anonymised.
    """
    with fetched(
        client, instance_id, spool_above_bytes=spool_above_bytes, deadline_s=deadline_s
    ) as body:
        done = deidentify(body, secret=secrets.token_bytes(32))
    _write(out, done.data)
    return Reproducer(
        path=out,
        file_bytes=len(done.data),
        syntax=done.syntax,
        removed=len(done.removed),
        replaced=len(done.replaced),
        warnings=_warnings(done),
    )


def _warnings(done: Cleaned) -> tuple[str, ...]:
    """What no program can promise (PS3.15 E.3.1, Clean Pixel Data, is not done)."""
    always = (
        "The pixels are those of the instance. Look at them if you can: names and dates may be "
        "part of the picture.",
        "Compressed pixels may contain comments of their encoder.",
    )
    if done.burned_in == "NO":
        return always
    seen = f"Burned In Annotation is {done.burned_in or 'not given'}, modality {done.modality}"
    if done.burned_in == "YES" or done.modality in BURNED_IN_MODALITIES:
        return (f"{seen}: expect text in the picture.", *always)
    return always


def _write(out: Path, data: bytes) -> None:
    """Write beside the target and link: OUT is whole or not there, and nothing is replaced."""
    try:
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), FILE_MODE)  # by its name it may be another one
            os.link(partial, out)
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError as exc:
        raise ConfigurationError(f"{out} exists.", advice="Name a file that does not.") from exc
    except OSError as exc:
        raise ConfigurationError(f"{out} cannot be written: {exc.strerror}.") from exc


def why_not_exported(error: InstanceError) -> str:
    """Say why an instance cannot be exported."""
    if isinstance(error, InstanceGone):
        return error.message
    return (
        f"It cannot be exported: {error.message} A file that cannot be read to its end cannot be "
        "anonymised with certainty."
    )

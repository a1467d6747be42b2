"""``orthanc-bridge state show / backup / restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import EXIT_DONE

if TYPE_CHECKING:
    from bridge.ledger.copies import StateContents
    from bridge.ledger.store import Ledger

state_app = typer.Typer(
    help="Show, back up or restore the state file.\n\nIt records how far the bridge has come and "
    "what is parked. It holds no images.",
    no_args_is_help=True,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@state_app.command("show")
def show_state(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A backup; default: BRIDGE_STATE_PATH."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show what a state file holds. Writes nothing."""
    from bridge.config import load_settings
    from bridge.ledger.copies import look_at

    _print(look_at(file or load_settings().state_path), as_json=as_json)
    return EXIT_DONE


@state_app.command("backup")
def back_up_state(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The copy to write; an older one is replaced.")
    ],
    as_json: JsonOption = False,
) -> int:
    """Copy the state file, also while a bridge runs.

    The copy is one file that only this user may read.
    """
    from bridge.config import load_settings
    from bridge.ledger.copies import back_up

    _print(back_up(load_settings().state_path, file), as_json=as_json)
    return EXIT_DONE


@state_app.command("restore")
def restore_state(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that state backup made.")],
    as_json: JsonOption = False,
) -> int:
    """Replace the state file by a backup.

    Keeps the file that was there beside it. Refuses while a bridge runs. What was delivered since
    the backup is sent again; the target has it already, so nothing changes there.
    """
    from bridge.commands.output import print_json, print_pairs
    from bridge.config import load_settings
    from bridge.ledger.copies import look_at, restore

    path = load_settings().state_path
    aside = restore(file, path, adopt=_stay_the_same_bridge)
    told = _fields(look_at(path)) | {"kept_aside": None if aside is None else str(aside)}
    if as_json:
        print_json(told)
    else:
        print_pairs(told)
    return EXIT_DONE


def _stay_the_same_bridge(before: Ledger | None, restored: Ledger) -> None:
    """Keep the name by which both servers know this bridge, where it is the one that was here.

    With it stays what retention has noted of both servers since the backup: whose notes are there,
    what is waited for, and a first deletion that is not verified yet. A copy that is put anywhere
    else is another bridge: the first one may run on.

    The target's copies of what the backup knows as delivered stay until they are delivered anew:
    it does not know which of them retention has made the last ones since.
    """
    from bridge.retention.bridge_notes import BRIDGE_ID_KEY, stay_the_same
    from bridge.retention.deletion_limits import STOPPED_KEY
    from bridge.retention.held_deletion import take_over

    # What the source lacks now, nobody knows to be deleted there by retention since the backup.
    restored.release_all_deliveries()
    name = restored.meta(BRIDGE_ID_KEY)
    if before is not None and name is not None and before.meta(BRIDGE_ID_KEY) == name:
        stay_the_same(before, restored)
        restored.set_meta(STOPPED_KEY, before.meta(STOPPED_KEY))
        take_over(before, restored)


def _print(found: StateContents, *, as_json: bool) -> None:
    from bridge.commands.output import print_json, print_pairs

    if as_json:
        print_json(_fields(found))
    else:
        print_pairs(_fields(found))


def _fields(found: StateContents) -> dict[str, object]:
    """Return what is told of a state file: counts and sequences, no instance and no address."""
    from bridge.commands.output import moment
    from bridge.pipeline.holds import PAUSED_KEY

    checkpoint = found.meta.get("checkpoint", "")
    rows = found.rows
    return {
        "file": str(found.path),
        "bytes": found.file_bytes,
        "modified_at": moment(found.modified_at),
        "schema": found.schema,
        "checkpoint": int(checkpoint) if checkpoint.isdigit() else None,
        "settled_above": rows["settled"],
        "unfinished": rows["attempt"],
        "parked": rows["parked"],
        "dropped": rows.get("dropped", 0),
        "gaps": rows.get("gap", 0),
        "delivered": rows.get("delivered", 0),
        "kept_for_retention": rows.get("kept", 0),
        "paused": PAUSED_KEY in found.meta,
    }

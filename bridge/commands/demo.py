"""``orthanc-bridge demo``."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave servers and bridge running until interrupted."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> int:
    """Show the whole job between two real Orthancs on this machine, with real images.

    Exit code 0 only if every instance arrived and every pixel is right.
    """
    from bridge.demonstration import run

    return run(keep=keep, as_json=as_json)

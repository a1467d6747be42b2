"""``orthanc-bridge pause`` and ``resume``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from bridge.errors import EXIT_DONE

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def pause(as_json: JsonOption = False) -> int:
    """Stop starting new instances until `resume`.

    Instances in progress finish. Deletions at the source stop too. The pause survives restarts. A
    running bridge obeys within two seconds. replay and parked retry are not paused. New instances
    wait at the source; none is lost.
    """
    return _set(str(int(time.time())), as_json=as_json)


def resume(as_json: JsonOption = False) -> int:
    """Continue after `pause`."""
    return _set(None, as_json=as_json)


def _set(value: str | None, *, as_json: bool) -> int:
    from bridge.commands.output import moment, print_json, say
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger
    from bridge.pipeline.holds import PAUSED_KEY

    with Ledger(load_settings().state_path) as ledger:
        before = ledger.meta(PAUSED_KEY)
        if value is None or before is None:
            ledger.set_meta(PAUSED_KEY, value)
    if as_json:
        print_json({"paused": value is not None})
    elif value is None:
        say("resumed" if before is not None else "not paused: nothing to do")
    else:
        say("paused" if before is None else f"already paused since {moment(float(before))}")
    return EXIT_DONE

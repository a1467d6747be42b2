"""``orthanc-bridge pause`` and ``resume``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from bridge.errors import EXIT_DONE

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def pause(as_json: JsonOption = False) -> int:
    """Start no more deliveries until `resume`.

    Instances in progress finish. Deletions at the source stop too. The pause survives restarts. A
    running bridge obeys within two seconds. replay, parked retry and check --fix are not paused.
    New instances wait at the source; none is lost. Stops no process.
    """
    from bridge.commands.output import moment, print_json, say
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger
    from bridge.pipeline.orders import pause as order_pause

    with Ledger(load_settings().state_path) as ledger:
        before = order_pause(ledger, now=time.time())
    if as_json:
        print_json({"paused": True})
    else:
        said = "paused" if before is None else f"already paused since {moment(before)}"
        say(f"{said}; to continue: orthanc-bridge resume")
    return EXIT_DONE


def resume(as_json: JsonOption = False) -> int:
    """End a `pause`: the running bridge delivers again.

    Starts no bridge: without one, nothing is delivered until `run`.
    """
    from bridge.commands.output import print_json, say
    from bridge.config import load_settings
    from bridge.ledger.store import Ledger
    from bridge.pipeline.orders import resume as order_resume

    with Ledger(load_settings().state_path) as ledger:
        before = order_resume(ledger)
    if as_json:
        print_json({"paused": False})
    else:
        say(
            "resumed: a running bridge delivers again"
            if before is not None
            else "not paused: nothing to do"
        )
    return EXIT_DONE

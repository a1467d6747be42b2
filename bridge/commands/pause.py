"""``orthanc-bridge pause`` and ``resume``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from bridge.core.errors import EXIT_DONE

JsonOption = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def pause(as_json: JsonOption = False) -> int:
    """Start no more instances until resume; kept over restarts. What is under way finishes.

    A running bridge obeys within a second or two. Replays and retries that a person starts are
    not held back.
    """
    return _set(str(int(time.time())), "paused", as_json=as_json)


def resume(as_json: JsonOption = False) -> int:
    """Go on after a pause."""
    return _set(None, "resumed", as_json=as_json)


def _set(value: str | None, word: str, *, as_json: bool) -> int:
    from bridge.brake import PAUSED_KEY
    from bridge.commands.output import print_json
    from bridge.config import load_settings
    from bridge.ledger import Ledger

    with Ledger(load_settings().state_path) as ledger:
        before = ledger.meta(PAUSED_KEY)
        if value is None or before is None:
            ledger.set_meta(PAUSED_KEY, value)
    if as_json:
        print_json({"paused": value is not None})
    else:
        typer.echo(word)
    return EXIT_DONE

"""``orthanc-bridge status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.core.errors import EXIT_DONE, EXIT_FEED, SideError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.ledger import Ledger
    from bridge.sides import SideClient


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Show the checkpoint, the lag, what is in flight and parked, and both servers.

    Exit code 10 or 11 when a server cannot be used, 12 when the state file cannot be read, 13
    when the source's feed is not the one that was followed.
    """
    from bridge.commands.output import print_json
    from bridge.config import load_settings
    from bridge.ledger import Ledger
    from bridge.state_file import there_may_be

    settings = load_settings()
    found: dict[str, object] = {"state_path": str(settings.state_path)}
    exit_code = EXIT_DONE
    if there_may_be(settings.state_path):
        with Ledger(settings.state_path, create=False) as ledger:
            found.update(_from_ledger(ledger))
    else:
        found.update({"checkpoint": None, "parked": {}, "paused_since": None})
        found["bridge"] = {"running": False}
    checkpoint = found["checkpoint"] if isinstance(found["checkpoint"], int) else None
    servers, error = _servers(settings, checkpoint)
    found.update(servers)
    last = found.get("last")
    if checkpoint is not None and isinstance(last, int):
        backwards = found["feed_went_backwards"]
        found["behind"] = None if backwards else max(0, last - checkpoint)
        exit_code = EXIT_FEED if backwards else EXIT_DONE
    if error is not None:
        exit_code = error.exit_code
    if as_json:
        print_json(found)
    else:
        _print(found)
    return exit_code


def _from_ledger(ledger: Ledger) -> dict[str, object]:
    from bridge.brake import PAUSED_KEY
    from bridge.commands.output import moment
    from bridge.neighbour import MONITOR_KEY

    paused_at = ledger.meta(PAUSED_KEY)
    return {
        "paused_since": None if paused_at is None else moment(float(paused_at)),
        "checkpoint": ledger.checkpoint(),
        "settled_above": len(ledger.settled_above()),
        "parked": ledger.parked_by_reason(),
        "bridge": _running(ledger.meta(MONITOR_KEY)),
    }


def _running(url: str | None) -> dict[str, object]:
    from bridge.neighbour import ask

    told = ask(url)
    return {"running": False} if told is None else {"running": True, **told}


def _servers(
    settings: Settings, checkpoint: int | None
) -> tuple[dict[str, object], SideError | None]:
    from bridge.core.model import SideName
    from bridge.sides import SideClient

    found: dict[str, object] = {}
    first_error: SideError | None = None
    for side in SideName:
        client = SideClient(settings.endpoint(side))
        try:
            info = client.system()
            found[side] = {"reachable": True, "version": info.version, "name": info.name}
            if side is SideName.SOURCE:
                last, backwards = client.last_change().last, _went_backwards(client, checkpoint)
                found.update({"last": last, "feed_went_backwards": backwards})
        except SideError as exc:
            found[side] = {"reachable": False, "problem": exc.problem, "message": str(exc)}
            first_error = first_error or exc
        finally:
            client.close()
    return found, first_error


def _went_backwards(client: SideClient, checkpoint: int | None) -> bool:
    from bridge.core.errors import FeedWentBackwards
    from bridge.feed_reader import check_counter

    if checkpoint is None:
        return False
    page = client.changes(checkpoint, 1, only_new_instances=False)
    try:
        check_counter(page.last, position=checkpoint)
    except FeedWentBackwards:
        return True
    return False


def _pace(paused_since: object, bridge: dict[str, Any]) -> dict[str, object]:
    """Tell what holds the bridge back, if something does."""
    from bridge.core.headline import HOLDS, limits_in_words

    pairs: dict[str, object] = {}
    if paused_since is not None:
        pairs["pace"] = f"paused since {paused_since}; to go on: orthanc-bridge resume"
    elif bridge.get("hold"):
        pairs["pace"] = HOLDS.get(bridge["hold"], bridge["hold"])
    limits = limits_in_words(**bridge.get("limits", {}))
    return pairs | ({"limits": limits} if limits else {})


def _print(found: dict[str, object]) -> None:
    from bridge.commands.output import print_pairs

    bridge = found["bridge"] if isinstance(found["bridge"], dict) else {}
    parked = found["parked"] if isinstance(found["parked"], dict) else {}
    pairs: dict[str, object] = {
        "state": found["state_path"],
        "bridge": "running" if bridge.get("running") else "not running",
    }
    if bridge.get("running"):
        reasons = bridge.get("reasons") or []
        pairs["health"] = (
            "; ".join(f"{r['code']}: {r['message']}" for r in reasons) if reasons else "ok"
        )
        pairs["in flight"] = len(bridge.get("in_flight") or [])
        pairs["waiting"] = bridge.get("waiting")
        pairs["lag"] = f"{bridge.get('lag_changes')} changes, {bridge.get('lag_s')} s"
    pairs.update(_pace(found["paused_since"], bridge))
    none_yet = "none yet: nothing was settled here, see BRIDGE_START"
    pairs["checkpoint"] = none_yet if found["checkpoint"] is None else found["checkpoint"]
    pairs["last change"] = found.get("last")
    pairs["behind"] = found.get("behind")
    if found.get("feed_went_backwards"):
        pairs["behind"] = "the feed went backwards: see docs/operations.md"
    total = sum(parked.values())
    details = ", ".join(f"{reason}: {count}" for reason, count in parked.items())
    pairs["parked"] = f"{total} ({details})" if total else 0
    for side in ("source", "target"):
        view = found[side]
        if isinstance(view, dict):
            pairs[side] = (
                f"Orthanc {view['version']}" if view["reachable"] else f"{view['message']}"
            )
    print_pairs(pairs)

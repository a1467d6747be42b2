"""``orthanc-bridge status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.errors import EXIT_DONE, EXIT_FEED, SideError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.ledger.store import Ledger
    from bridge.model import CounterLag
    from bridge.orthanc.session import SideClient


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Show progress, lag, parked instances and both servers.

    Exit code 10 or 11 if a server cannot be used, 12 if the state file cannot be read, 13 if the
    source's feed was reset or replaced.
    """
    from bridge.commands.output import print_json
    from bridge.config import load_settings
    from bridge.ledger.lock import there_may_be
    from bridge.ledger.store import Ledger

    settings = load_settings()
    found: dict[str, object] = {"name": settings.name, "state_path": str(settings.state_path)}
    exit_code = EXIT_DONE
    lag: CounterLag | None = None
    if there_may_be(settings.state_path):
        with Ledger(settings.state_path, create=False) as ledger:
            found.update(_from_ledger(ledger, settings.health_cert_file))
            lag = ledger.counter_lag()
    else:
        found.update({"checkpoint": None, "parked": {}, "dropped": 0})
        found.update({"gaps": {}, "paused_since": None})
        found["bridge"] = {"running": False}
    checkpoint = found["checkpoint"] if isinstance(found["checkpoint"], int) else None
    servers, error = _servers(settings, checkpoint, lag)
    found.update(servers)
    if "last" in found and checkpoint is not None:
        found["behind"] = None if found["feed_went_backwards"] else _behind(found, checkpoint)
        exit_code = EXIT_FEED if found["feed_went_backwards"] else EXIT_DONE
    if error is not None:
        exit_code = error.exit_code
    if as_json:
        print_json(found)
    else:
        _print(found)
    return exit_code


def _behind(found: dict[str, Any], checkpoint: int) -> int:
    """Count what is not settled, of what the source and a running bridge know of.

    As the bridge itself does: what it tells is a poll interval old at most.
    """
    from bridge.monitoring.health import behind

    bridge = found["bridge"]
    told = bridge.get("last")
    caught_up = bool(bridge.get("caught_up")) and told is not None and told >= found["last"]
    found["last"] = max(found["last"], told or 0)
    return behind(found["last"], checkpoint, caught_up=caught_up)


def _from_ledger(ledger: Ledger, cert_file: str | None) -> dict[str, object]:
    import time

    from bridge.commands.output import moment
    from bridge.monitoring.board import (
        carry_fields,
        carry_view,
        gap_fields,
        mirror_fields,
        mirror_view,
        sign_fields,
        sign_view,
    )
    from bridge.pipeline.holds import MONITOR_KEY, PAUSED_KEY

    paused_at = ledger.meta(PAUSED_KEY)
    carry = carry_view(ledger)
    signs = sign_view(ledger)
    carries = carry.caught_up_at is not None or carry.waiting
    return {
        "paused_since": None if paused_at is None else moment(float(paused_at)),
        "checkpoint": ledger.checkpoint(),
        "settled_above": len(ledger.settled_above()),
        "parked": ledger.parked_by_reason(),
        "dropped": ledger.dropped_count(),
        "gaps": gap_fields(ledger.open_gaps(), ledger.gaps_given_up(), now=time.time()),
        "verification": mirror_fields(mirror_view(ledger), now=time.time()),
        "carry": carry_fields(carry if carries else None, now=time.time()),
        "signs": sign_fields(signs if signs.waiting else None, now=time.time()),
        "bridge": _running(ledger.meta(MONITOR_KEY), cert_file),
    }


def _running(url: str | None, cert_file: str | None) -> dict[str, object]:
    from bridge.monitoring.ask_running_bridge import ask_running

    told = ask_running(url, cert_file)
    return {"running": False} if told is None else {"running": True, **told}


def _servers(
    settings: Settings, checkpoint: int | None, lag: CounterLag | None
) -> tuple[dict[str, object], SideError | None]:
    from bridge.model import SideName
    from bridge.orthanc.session import SideClient

    found: dict[str, object] = {}
    first_error: SideError | None = None
    for side in SideName:
        client, url = SideClient(settings.endpoint(side)), settings.endpoint(side).url
        try:
            info = client.system()
            told = {"version": info.version, "name": info.name}
            found[side] = {"url": url, "reachable": True, **told}
            if side is SideName.SOURCE:
                found["last"] = client.last_change().last
                found["feed_went_backwards"] = _went_backwards(client, checkpoint, lag)
        except SideError as exc:
            found[side] = {
                "url": url,
                "reachable": False,
                "problem": exc.problem,
                "message": str(exc),
            }
            first_error = first_error or exc
        finally:
            client.close()
    return found, first_error


def _went_backwards(client: SideClient, checkpoint: int | None, lag: CounterLag | None) -> bool:
    from bridge.errors import FeedWentBackwards
    from bridge.feed.identity import check_reached

    if checkpoint is None:
        return False
    try:
        check_reached(client, checkpoint, lag=lag)
    except FeedWentBackwards:
        return True
    return False


def _lag(found: dict[str, object], bridge: dict[str, Any]) -> str | None:
    from bridge.monitoring.health import counted, lasting

    if found.get("feed_went_backwards"):
        return (
            "unknown: the source's feed was reset or replaced (orthanc-bridge docs operations "
            "backwards)"
        )
    behind = found.get("behind")
    if not isinstance(behind, int):
        return None
    oldest_s = bridge.get("lag_s")
    age = f", the oldest {lasting(oldest_s)} old" if behind and oldest_s else ""
    return counted(behind, "change") + age


def _left(told: object) -> str:
    """Write how long the running bridge expects to need; "" where it cannot tell."""
    from bridge.monitoring.time_left import TimeLeft, left_in_words

    return left_in_words(TimeLeft(**told)) if isinstance(told, dict) else ""


def _pace(paused_since: object, bridge: dict[str, Any]) -> dict[str, object]:
    """Tell what holds the bridge back, if something does."""
    from bridge.monitoring.headline import hold_in_words, limits_in_words, rates_in_words

    pairs: dict[str, object] = {}
    if paused_since is not None:
        pairs["pace"] = f"paused since {paused_since}; to continue: orthanc-bridge resume"
    elif bridge.get("hold"):
        allowed = bridge.get("limits", {})
        rates = rates_in_words(allowed.get("instances_s", 0), allowed.get("mbit_s", 0))
        pairs["pace"] = hold_in_words(bridge["hold"], rates)
    limits = limits_in_words(**bridge.get("limits", {}))
    return pairs | ({"limits": limits} if limits else {})


def _gaps(gaps: object) -> str:
    """Tell what is known of the feed's gaps."""
    if not isinstance(gaps, dict) or not any(gaps.get(k) for k in ("open", "given_up")):
        return "none"
    parts = []
    if gaps["open"]:
        parts.append(
            f"{gaps['sequences']} sequences have no row yet, the oldest for {gaps['oldest_s']} s "
            "(orthanc-bridge docs operations gaps)"
        )
    if gaps["given_up"]:
        parts.append(f"{gaps['given_up']} DROPPED unseen: run orthanc-bridge check --fix")
    return "; ".join(parts)


def at_once(workers: object) -> str:
    """Say how many transfers may be under way, and up to where the bridge may go by itself."""
    from bridge.monitoring.health import counted

    known = workers if isinstance(workers, dict) else {}
    if "threads" not in known:
        return "unknown"
    found = f", found by the bridge (at most {most})" if (most := known.get("threads_max")) else ""
    return counted(known["threads"], "transfer") + found


def _print(found: dict[str, object]) -> None:
    from bridge.commands.output import print_pairs

    bridge = found["bridge"] if isinstance(found["bridge"], dict) else {}
    parked = found["parked"] if isinstance(found["parked"], dict) else {}
    pairs: dict[str, object] = {"name": found["name"]} if found["name"] else {}
    pairs |= {
        "state": found["state_path"],
        "bridge": "running" if bridge.get("running") else "not running",
    }
    if bridge.get("running"):
        reasons = bridge.get("reasons") or []
        pairs["health"] = (
            "; ".join(f"{r['code']}: {r['message']}" for r in reasons) if reasons else "ok"
        )
        pairs["in flight"] = len(bridge.get("in_flight") or [])
        pairs["at once"] = at_once(bridge.get("workers"))
        pairs["waiting"] = bridge.get("waiting")
    pairs.update(_pace(found["paused_since"], bridge))
    none_yet = "none yet; the first run begins at BRIDGE_START"
    pairs["checkpoint"] = none_yet if found["checkpoint"] is None else found["checkpoint"]
    pairs["newest change"] = found.get("last")
    pairs["lag"] = _lag(found, bridge)
    if (left := _left(bridge.get("time_left"))) and not found["paused_since"]:
        pairs["time left"] = left
    pairs["gaps"] = _gaps(found["gaps"])
    verification = found.get("verification")
    if isinstance(verification, dict) and (verification["begun_at"] or verification["done"]):
        pairs["verified"] = verification["text"]
    carry = found.get("carry")
    if isinstance(carry, dict):
        pairs["beside files"] = carry["text"]
    if isinstance(signs := found.get("signs"), dict):
        pairs["signs"] = signs["text"]
    total = sum(parked.values())
    details = ", ".join(f"{reason}: {count}" for reason, count in parked.items())
    pairs["parked"] = f"{total} ({details})" if total else 0
    if found["dropped"]:
        pairs["dropped"] = f"{found['dropped']}, which have not arrived: parked list --dropped"
    for side in ("source", "target"):
        view = found[side]
        if isinstance(view, dict):
            pairs[side] = (
                f"Orthanc {view['version']} at {view['url']}"
                if view["reachable"]
                else f"{view['message']}"
            )
    print_pairs(pairs)

#!/usr/bin/env python3
"""A check for Nagios, Icinga, Checkmk, Zabbix and their kin: says whether all is well.

    check_orthanc_bridge.py [URL] [--timeout SECONDS]

URL is the monitoring server, http://127.0.0.1:8080 unless given. Prints one line with performance
data and exits with 0 (OK), 1 (WARNING: only reasons that can wait, CAN_WAIT below), 2 (CRITICAL:
anything else, or no answer) or 3 (UNKNOWN: something else answers there). Needs Python alone,
nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import sys
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

OK, WARNING, CRITICAL, UNKNOWN = range(4)
NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
CAN_WAIT = {"parked", "lag_above_limit", "feed_incomplete", "feed_gaps_given_up"}
ANSWER_BYTES_MAX = 1024 * 1024


def ask(url: str, timeout_s: float) -> object:
    """Return the JSON of /health. Raises OSError without an answer, ValueError for another one."""
    opener = build_opener(ProxyHandler({}))
    request = Request(f"{url.rstrip('/')}/health")  # noqa: S310 (the administrator's own URL)
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return json.loads(answer.read(ANSWER_BYTES_MAX))
    except HTTPError as exc:
        if exc.code == 503:
            return json.loads(exc.read(ANSWER_BYTES_MAX))
        raise ValueError(f"HTTP {exc.code}") from exc


def judge(health: object) -> tuple[int, str]:
    """Turn what /health says into a state and a line."""
    if not isinstance(health, dict):
        return UNKNOWN, "what answers there is not the bridge"
    try:
        codes = [reason["code"] for reason in health["reasons"]]
        text = health["headline"]
        data = {
            "lag_changes": health["lag_changes"],
            "lag": f"{health['lag_s']}s",
            "parked": health["parked_total"],
            "in_flight": health["in_flight"],
            "waiting": health["waiting"],
        }
    except (KeyError, TypeError):
        return UNKNOWN, "what answers there is not the bridge"
    state = OK if not codes else WARNING if set(codes) <= CAN_WAIT else CRITICAL
    shown = f" [{', '.join(codes)}]" if codes else ""
    return state, f"{text}{shown} | " + " ".join(f"{name}={n}" for name, n in data.items())


def main() -> int:
    """Check once."""
    parser = argparse.ArgumentParser(description="Check orthanc-bridge, as Nagios does.")
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    arguments = parser.parse_args()
    try:
        state, text = judge(ask(arguments.url, arguments.timeout))
    except ValueError as exc:
        state, text = UNKNOWN, f"what answers there is not the bridge ({type(exc).__name__})"
    except OSError as exc:
        state, text = CRITICAL, f"the bridge does not answer: {getattr(exc, 'reason', exc)}"
    sys.stdout.write(f"BRIDGE {NAMES[state]} - {text}\n")
    return state


if __name__ == "__main__":
    sys.exit(main())

"""What a request to act says, and from where it may come: pure functions of what was sent.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.model import Reason

PAUSE, RESUME, RETRY, DROP, REPLAY, VERIFY = (
    "pause",
    "resume",
    "retry",
    "drop",
    "replay",
    "verify",
)
FIELDS = {
    PAUSE: frozenset[str](),
    RESUME: frozenset[str](),
    RETRY: frozenset({"instances", "reason", "study", "all"}),
    DROP: frozenset({"instances", "reason", "study", "all"}),
    REPLAY: frozenset({"from", "to"}),
    VERIFY: frozenset[str](),
}
"""What the body of each action may say beside ``confirm``."""
ACTIONS = tuple(FIELDS)
INSTANCES_MAX = 100
A_MINUTE_MAX = 60
"""So many requests to act of people with a token in a minute, all together."""
SEQUENCE_MAX = 2**31 - 1
CONFIRM_CHARACTERS_MAX = 100
OURS = frozenset({"same-origin", "none"})
"""Of Sec-Fetch-Site: our own page, and what a person has typed into the browser."""
_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_UID = re.compile(r"[0-9.]{1,64}")


class BadRequestToAct(ValueError):
    """A body that says nothing we can do. Its text is for whoever sent it, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """What somebody wants. ``confirm``: what the answer before has asked to be repeated.

    ``instances``, ``reason``, ``study``, ``every``: which parked ones, exactly one of them.
    ``first``, ``last``: sequences; None for the end of the feed.
    """

    action: str
    confirm: str = ""
    instances: tuple[str, ...] = ()
    reason: Reason | None = None
    study: str = ""
    every: bool = False
    first: int = 0
    last: int | None = None


def read_request(action: str, body: object) -> ActionRequest:
    """Read a body that was JSON. Raises BadRequestToAct."""
    if not isinstance(body, dict):
        raise BadRequestToAct("The body must be a JSON object.")
    unknown = body.keys() - FIELDS[action] - {"confirm"}
    if unknown:
        raise BadRequestToAct(f"{action} takes {_named(FIELDS[action])}; there is another field.")
    confirm = body.get("confirm", "")
    if not isinstance(confirm, str) or len(confirm) > CONFIRM_CHARACTERS_MAX:
        raise BadRequestToAct("confirm must be the text from the previous answer.")
    if action in (RETRY, DROP):
        return _read_choice(action, confirm, body)
    if action == REPLAY:
        first, last = _sequence(body, "from"), _sequence(body, "to")
        if first is None:
            raise BadRequestToAct("from is missing: the first sequence of the range.")
        if last is not None and last < first:
            raise BadRequestToAct("to is below from: the range is empty.")
        return ActionRequest(action, confirm, first=first, last=last)
    return ActionRequest(action, confirm)


def _named(fields: frozenset[str]) -> str:
    return ", ".join([*sorted(fields), "confirm"])


def _read_choice(action: str, confirm: str, body: Mapping[str, object]) -> ActionRequest:
    given = [name for name in FIELDS[action] if name in body]
    if len(given) != 1:
        raise BadRequestToAct(
            "Choose the instances with exactly one of: instances, reason, study, all."
        )
    value = body[given[0]]
    match given[0], value:
        case "instances", list() as found if 1 <= len(found) <= INSTANCES_MAX:
            if all(isinstance(one, str) and _ORTHANC_ID.fullmatch(one) for one in found):
                return ActionRequest(action, confirm, instances=tuple(dict.fromkeys(found)))
        case "reason", str() as name if name in list(Reason):
            return ActionRequest(action, confirm, reason=Reason(name))
        case "study", str() as name if _UID.fullmatch(name) or _ORTHANC_ID.fullmatch(name):
            return ActionRequest(action, confirm, study=name)
        case "all", True:
            return ActionRequest(action, confirm, every=True)
    raise BadRequestToAct(
        f"instances must be 1 to {INSTANCES_MAX} Orthanc IDs, reason one of {', '.join(Reason)}, "
        "study a Study Instance UID or an Orthanc ID, all true."
    )


def _sequence(body: Mapping[str, object], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= SEQUENCE_MAX:
        raise BadRequestToAct(f"{name} must be a sequence: a number from 0 to {SEQUENCE_MAX}.")
    return value


def comes_from_elsewhere(*, site: str | None, origin: str | None, host: str) -> bool:
    """Tell whether a browser says that a request is another page's (CSRF).

    ``site``: Sec-Fetch-Site, which a browser sets and no page can. It comes with HTTPS and to this
    machine only; without it Origin is compared with Host. What sends neither is no browser, and no
    page can make a browser leave out both.
    """
    if site is not None:
        return site not in OURS
    if origin is None:
        return False
    _, separator, named = origin.partition("://")
    return not separator or named.lower() != host.lower()

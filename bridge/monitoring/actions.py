"""``POST /api/actions/...``: what a person with a token may have done over HTTP.

Whoever asks must show, in this order: that no other web page has sent it (CSRF), that it is JSON,
and a token of BRIDGE_ADMIN_TOKEN in the Authorization header. There is no cookie and no session: a
browser adds nothing by itself that lets anybody act. Wrong tokens are slowed by address, as at
/poke; here a right one waits, too, so that a guess tells nothing.

Nothing is done that was not confirmed: the first answer (409) says what would be done, and with
which text to confirm it. For what is dropped, that text names this very selection.

Orders go through the state file, as those of the commands do (pipeline/orders.py); what takes long
is the command itself, run beside the bridge (side_command.py). Each is logged, and written into
the audit file, with the name of the token.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from bridge.errors import StateError
from bridge.events import ActionTaken, Event, Progress
from bridge.ledger.parked_selection import Selection
from bridge.ledger.records import Parked
from bridge.ledger.store import Ledger
from bridge.ledger.verifications import ask_for_verification, under_way
from bridge.log import log
from bridge.monitoring.action_request import (
    A_MINUTE_MAX,
    ACTIONS,
    DROP,
    PAUSE,
    REPLAY,
    RESUME,
    RETRY,
    VERIFY,
    ActionRequest,
    BadRequestToAct,
    comes_from_elsewhere,
    read_request,
)
from bridge.monitoring.guesses import Guesses
from bridge.monitoring.health import counted
from bridge.monitoring.side_command import CommandState, SideCommand
from bridge.pipeline.orders import drop, pause, paused_since, resume
from bridge.untrusted_text import visible_values

ACTIONS_PATH = "/api/actions"
BODY_BYTES_MAX = 8 * 1024
ACTION_POSTS = {f"{ACTIONS_PATH}/{action}": BODY_BYTES_MAX for action in ACTIONS}
"""The paths that take a POST, with the most that its body may have."""
DONE, UNCONFIRMED, REFUSED, SLOWED = "done", "unconfirmed", "refused", "slowed"
ACTION_RESULTS = (DONE, UNCONFIRMED, REFUSED, SLOWED)
MINUTE_S = 60.0
DIGEST_CHARACTERS = 8


class Refusal(Exception):
    """A request that is not done: the status of the answer, and what it says."""

    def __init__(self, status: int, message: str, *, result: str = REFUSED, **more: str) -> None:
        super().__init__(message)
        self.status = status
        self.result = result
        self.body = {"message": message, **more}


@dataclass(frozen=True, slots=True)
class ActionPlan:
    """What a request would do. ``text``: for people. ``confirm``: the text that confirms it.

    ``detail``: for log and audit file. ``arguments``: of the command that does it, if one does.
    ``chosen``: what would be dropped.
    """

    text: str
    confirm: str
    detail: str = ""
    arguments: tuple[str, ...] = ()
    chosen: tuple[Parked, ...] = ()


class _Observed:
    """An observer of one thing: it passes events on, and has no use for reports."""

    def __init__(self, report: Callable[[Event], None]) -> None:
        self.on_event = report

    def on_progress(self, progress: Progress) -> None:
        """Do nothing."""


class Actions:
    """Answers requests to act.

    ``tokens``: by name. ``newest``: the last sequence of the feed that is known. ``verifies``:
    BRIDGE_VERIFY_EVERY is set. ``count``: takes an action and its result, for the metric.
    """

    def __init__(
        self,
        tokens: Mapping[str, str],
        *,
        state_path: Path,
        newest: Callable[[], int | None],
        verifies: bool,
        count: Callable[[str, str], None],
        commands: SideCommand | None = None,
        guesses: Guesses | None = None,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.commands = commands or SideCommand()
        self._tokens = {name: f"Bearer {token}".encode("latin-1") for name, token in tokens.items()}
        self._state_path = state_path
        self._newest = newest
        self._verifies = verifies
        self._count = count
        self._guesses = guesses or Guesses(steady_s)
        self._now_s = now_s
        self._steady_s = steady_s
        self._asked_s: deque[float] = deque()
        self._acting = False
        """One action at a time: each sees what the one before has done. For the server's loop."""
        self._report: Callable[[Event], None] | None = None

    def reports_to(self, report: Callable[[Event], None]) -> None:
        """Act from now on, and report each action: what cannot be recorded is not done."""
        self._report = report

    def drain(self) -> None:
        """Let the command that runs drain; safe in a signal handler."""
        self.commands.drain()

    def stop(self, within_s: float) -> None:
        """Wait for the command that runs to end, and end it if it does not."""
        self.commands.stop(within_s)

    async def answer_who(self, request: Request) -> Response:
        """Tell whoever brings a token its name, and what runs."""
        try:
            who = self._named(request)
        except Refusal as refusal:
            return _refused(refusal)
        return _json({"who": who, "actions": list(ACTIONS), "command": self.command_fields()})

    async def answer(self, request: Request) -> Response:
        """Answer one request to act."""
        action = request.url.path.rpartition("/")[2]
        try:
            if _elsewhere(request):
                raise Refusal(
                    403,
                    "This request comes from another web page, so nothing was done. If the bridge "
                    "is behind a proxy, use HTTPS, or configure the proxy to pass on the Host "
                    "header.",
                )
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                raise Refusal(415, "Send Content-Type: application/json.")
            who = self._admitted(request)
            wanted = read_request(action, _parsed(await request.body()))
            told = await self._in_turn(who, wanted)
        except ClientDisconnect:
            refusal = Refusal(400, "The body of the request did not arrive.")
        except BadRequestToAct as exc:
            refusal = Refusal(400, str(exc))
        except Refusal as exc:
            refusal = exc
        except StateError as exc:
            refusal = Refusal(503, exc.message)
        else:
            self._count(action, DONE)
            return _json(told)
        self._count(action, refusal.result)
        return _refused(refusal)

    def command_fields(self) -> dict[str, object] | None:
        """Return the command that runs, or that has run last, as JSON-ready values."""
        state = self.commands.state
        return None if state is None else asdict(state)

    def _named(self, request: Request) -> str:
        """Return the name of the token that was brought. Raises Refusal."""
        address = request.client.host if request.client else ""
        wait_s = self._guesses.wait_s(address)
        if wait_s > 0:
            text = "Too many wrong tokens from your address. Wait a few seconds."
            raise Refusal(429, text, result=SLOWED)
        given = request.headers.get("authorization", "").encode("latin-1")
        # Each is compared, in constant time: how long it takes tells nothing of any of them.
        matching = [n for n, token in self._tokens.items() if hmac.compare_digest(given, token)]
        if not matching:
            self._guesses.wrong(address)
            log(logging.WARNING, "action_refused", f"a wrong token from {address}", address=address)
            raise Refusal(401, "That is not a token of BRIDGE_ADMIN_TOKEN.")
        return matching[0]

    def _admitted(self, request: Request) -> str:
        """Return the name of who may act now: each request counts. Raises Refusal."""
        who = self._named(request)
        now_s = self._steady_s()
        while self._asked_s and self._asked_s[0] <= now_s - MINUTE_S:
            self._asked_s.popleft()
        if len(self._asked_s) >= A_MINUTE_MAX:
            text = f"More than {A_MINUTE_MAX} requests in a minute. Wait a little."
            raise Refusal(429, text, result=SLOWED)
        self._asked_s.append(now_s)
        return who

    async def _in_turn(self, who: str, wanted: ActionRequest) -> dict[str, object]:
        """Act beside the loop, unless another action is being done.

        None waits for its turn: threads that do would be lacking for /livez, and an action would
        be done long after whoever has asked for it went away.
        """
        if self._acting:
            raise Refusal(409, "Another action is being done. Try again in a moment.")
        self._acting = True
        try:
            return await run_in_threadpool(self._act, who, wanted)
        finally:
            self._acting = False

    def _act(self, who: str, wanted: ActionRequest) -> dict[str, object]:
        """Do what is wanted, if it is confirmed. Raises Refusal, StateError."""
        report = self._report
        if report is None:
            raise Refusal(503, "The bridge is starting. Try again in a moment.")
        with Ledger(self._state_path, create=False) as ledger:
            plan = self._plan(ledger, wanted)
            if wanted.confirm != plan.confirm:
                text = f"{plan.text} Nothing was done yet: please confirm."
                raise Refusal(409, text, result=UNCONFIRMED, confirm=plan.confirm)
            report(ActionTaken(who, wanted.action, plan.detail, "begins"))
            try:
                text = self._do(ledger, wanted, plan, who, report)
            except (StateError, Refusal):
                report(ActionTaken(who, wanted.action, plan.detail, "failed"))
                raise
            if not plan.arguments:
                report(ActionTaken(who, wanted.action, plan.detail, DONE))
            return {"message": text, "command": self.command_fields()}

    def _plan(self, ledger: Ledger, wanted: ActionRequest) -> ActionPlan:
        """Say what a request would do now. Raises Refusal where it cannot be done."""
        if wanted.action in (RETRY, REPLAY) and self.commands.runs:
            running = self.commands.state.text if self.commands.state else ""
            raise Refusal(409, f"Another command is running: {running}. Wait until it has ended.")
        match wanted.action:
            case "pause":
                if paused_since(ledger) is not None:
                    raise Refusal(409, "The bridge is already paused.")
                return ActionPlan(
                    "The bridge will start no new instance until somebody resumes.", PAUSE
                )
            case "resume":
                if paused_since(ledger) is None:
                    raise Refusal(409, "The bridge is not paused.")
                return ActionPlan("This ends the pause.", RESUME)
            case "verify":
                if not self._verifies:
                    raise Refusal(
                        409, "BRIDGE_VERIFY_EVERY is off. Set it, or run: orthanc-bridge check."
                    )
                if under_way(ledger) is not None:
                    raise Refusal(409, "A verification is already running.")
                text = "This compares all instances of both servers, and repairs what "
                return ActionPlan(f"{text}BRIDGE_REPAIR says.", VERIFY)
            case "replay":
                return self._plan_replay(wanted)
            case _:
                return _plan_parked(ledger, wanted)

    def _plan_replay(self, wanted: ActionRequest) -> ActionPlan:
        newest = self._newest()
        if newest is None:
            raise Refusal(
                409,
                "The bridge has not read the end of the source's feed yet. Try again in a moment.",
            )
        if max(wanted.first, wanted.last or 0) > newest:
            raise Refusal(409, f"The range is beyond the feed: its last change is {newest}.")
        end = newest if wanted.last is None else wanted.last
        number = counted(end - wanted.first + 1, "change")
        until = () if wanted.last is None else ("--to", str(wanted.last))
        arguments = ("replay", "--from", str(wanted.first), *until, "--json")
        span = f"{wanted.first} to {'the end' if wanted.last is None else wanted.last}"
        text = f"This delivers the instances of {number} again: sequences {span}."
        return ActionPlan(text, f"replay {span}", span, arguments)

    def _do(
        self,
        ledger: Ledger,
        wanted: ActionRequest,
        plan: ActionPlan,
        who: str,
        report: Callable[[Event], None],
    ) -> str:
        match wanted.action:
            case "pause":
                pause(ledger, now=self._now_s())
                return "Paused. Instances in progress finish."
            case "resume":
                resume(ledger)
                return "Resumed."
            case "verify":
                ask_for_verification(ledger)
                return "The verification begins within 30 seconds."
            case "drop":
                drop(ledger, plan.chosen, (_Observed(report),), now=self._now_s())
                return f"Dropped {counted(len(plan.chosen), 'instance')}."
            case _:
                return self._start(wanted, plan, who, report)

    def _start(
        self, wanted: ActionRequest, plan: ActionPlan, who: str, report: Callable[[Event], None]
    ) -> str:
        def ended(state: CommandState) -> None:
            report(ActionTaken(who, wanted.action, plan.detail, str(state.result)))

        text = f"{wanted.action} {plan.detail}"
        try:
            started = self.commands.start(plan.arguments, text, ended)
        except OSError as exc:
            raise Refusal(503, f"The command cannot be started: {exc.strerror}.") from exc
        if not started:
            raise Refusal(409, "Another command is running, or the bridge is stopping.")
        return f"Started: {text}."


def _plan_parked(ledger: Ledger, wanted: ActionRequest) -> ActionPlan:
    """Say which parked instances a retry or a drop is about. Raises Refusal."""
    if wanted.instances:
        found = [(one, ledger.parked_one(one)) for one in wanted.instances]
        missing = [one for one, parked in found if parked is None]
        if missing:
            raise Refusal(409, f"No longer parked: {', '.join(missing)}.")
        chosen = tuple(parked for _, parked in found if parked is not None)
        arguments, detail = wanted.instances, ", ".join(wanted.instances)
    else:
        selection = Selection(reason=wanted.reason, study=wanted.study or None)
        chosen = tuple(selection.chosen(ledger))
        if wanted.reason is not None:
            arguments = ("--reason", str(wanted.reason))
        elif wanted.study:
            arguments = ("--study", wanted.study)
        else:
            arguments = ("--all",)
        detail = " ".join(arguments).removeprefix("--")
    if not chosen:
        raise Refusal(409, "No parked instance matches.")
    number = counted(len(chosen), "parked instance")
    detail = f"{detail} ({len(chosen)})"
    if wanted.action == RETRY:
        command = ("parked", "retry", *arguments, "--json")
        return ActionPlan(f"This tries {number} again.", f"retry {len(chosen)}", detail, command)
    names = "\n".join(sorted(one.move.instance_id for one in chosen))
    digest = hashlib.sha256(names.encode()).hexdigest()[:DIGEST_CHARACTERS]
    text = (
        f"This drops {number}: the bridge stops trying to deliver them. Nothing is deleted at "
        "either server."
    )
    return ActionPlan(text, f"{DROP} {len(chosen)} {digest}", detail, chosen=chosen)


def _elsewhere(request: Request) -> bool:
    headers = request.headers
    return comes_from_elsewhere(
        site=headers.get("sec-fetch-site"),
        origin=headers.get("origin"),
        host=headers.get("host", ""),
    )


def _parsed(body: bytes) -> object:
    """Read a body. Raises BadRequestToAct."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestToAct("The body is not JSON.") from None


def _json(content: object, status: int = 200) -> JSONResponse:
    return JSONResponse(visible_values(content), status)


def _refused(refusal: Refusal) -> JSONResponse:
    answer = _json(refusal.body, refusal.status)
    if refusal.status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer

"""Are the two addresses two servers? Asked before the first move, and again and again.

One server behind two addresses looks like a perfect delivery: every instance is there already, and
with OverwriteInstances every original is replaced by its decoded copy. Names, ports and addresses
tell nothing: an alias, a proxy or a forwarder hides them. What cannot be hidden:

1. *Feeds.* One server, or two servers on one database, have one feed. The target's newest row is
   read between two looks at the source's. If it is none of those that the source had meanwhile,
   there are two databases. This only reads, and answers nearly always.
2. *Contents.* An instance that the source holds before and after the target lacks it, or whose
   file has other names in the two storage areas, proves two servers. This only reads, too.
3. *A mark.* Where feeds or contents are the same, the servers are one, or one is a copy of the
   other. Something is then written at one of them, looked for at the other, and removed again: a
   peer with a random name (in memory, in no feed), and, as two servers on one database do not
   share that, a metadata of an instance under a number that nothing uses.

What nobody can tell (both are empty, or the login may see nothing of the target) is no reason to
end while there is nothing to move. Before the first moves are handed out it is asked again, of the
very instances that are to be moved, and then nothing goes to a target that may overwrite instances
unless two servers were shown, or the operator vouches for them.

A copy of a server is two servers: only a mark that shows at the other side makes them one. Where
nothing may be written at either and all is the same, it cannot be told; the bridge then refuses,
unless the operator vouches for it (BRIDGE_SERVERS_ARE_DISTINCT).

Two servers that were told apart may seem to be one for a moment: a container is moved, a balancer
fails over, a name leads elsewhere. Nothing is moved then, and both are looked at again on new
connections for a while, before the bridge ends for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bridge.errors import BridgeError, ConfigurationError, InstanceError, SideError, side_error
from bridge.feed.gaps import Ask
from bridge.feed.pages import MovePage
from bridge.feed.polling import DOUBT_FIRST_S, Doubt
from bridge.feed.sources import MoveSource
from bridge.log import log
from bridge.marks import (
    MarkedServer,
    Marks,
    NotOnRecord,
    mark_shows,
    peer_shows,
    remove_left,
    remove_old_marks,
)
from bridge.model import Page, ServerInfo, SideName, SideProblem
from bridge.orthanc import Need, StoredFile, lacks_right

LOOKS_MAX = 5
"""Looks at feeds that move, before something else is asked."""
SAMPLED = 3
"""Instances that are compared."""
WRITE_AGAIN_S = 60.0
"""A proof that needed a mark is believed so long, unless a server was in trouble since."""
OUTAGE_BELIEVED_S = 30.0
"""A server that failed is not asked for the sake of the other so long: its own probes do that."""
COMPARED_EVERY_S = 300.0
"""Where nothing was moved and nobody had trouble, the servers are compared so often."""
REST_S = 10.0
"""A comparison that is older does not count for what is to be moved: where instances move, the
servers are compared more often."""
NOT_ON_RECORD = NotOnRecord()


class ComparedServer(MarkedServer, Protocol):
    """What is needed of both servers."""

    def last_change(self) -> Page:
        """Return the newest row of the feed."""

    def has_instance(self, instance_id: str) -> bool:
        """Tell whether the server holds an instance."""

    def stored_file(self, instance_id: str) -> StoredFile:
        """Return the name of an instance's file. Raises InstanceError."""

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""


class HowMany(StrEnum):
    """How many servers the two addresses lead to."""

    TWO = "two"
    ONE = "one"
    UNKNOWN = "unknown"


class Compared(StrEnum):
    """What a comparison that only reads tells."""

    DIFFERENT = "different"
    SAME = "same"
    NOTHING = "nothing"
    """There was nothing to compare, or it may not be looked at."""


@dataclass(frozen=True, slots=True)
class Distinction:
    """How many servers the two addresses lead to, and how that was found.

    ``suspicious``: what could be compared is the same. ``wrote``: a mark was set, and removed
    again.
    """

    how_many: HowMany
    how: str
    suspicious: bool = False
    wrote: bool = False


def tell_apart(
    source: ComparedServer,
    target: ComparedServer,
    given: Sequence[str] = (),
    *,
    marks: Marks = NOT_ON_RECORD,
) -> Distinction:
    """Find out whether the two are two servers with two databases.

    ``given``: instances of the source to compare; without them it is asked for some. ``marks``:
    where those that are set are on record.
    Raises SideError for a server that cannot be used, never for a right that is missing.
    """
    feeds = compare_feeds(source, target)
    if feeds is Compared.DIFFERENT:
        return Distinction(HowMany.TWO, "their feeds differ")
    held = compare_contents(source, target, given)
    if held is Compared.DIFFERENT:
        return Distinction(HowMany.TWO, "they hold different instances or files")
    suspicious = Compared.SAME in (feeds, held)
    seen = [peer_shows(*pair, marks) for pair in ((source, target), (target, source))]
    if True in seen:
        return Distinction(
            HowMany.ONE, "a peer that is added at one shows at the other", wrote=True
        )
    avoided = {mark.instance_id for mark in marks.left()} if suspicious else set()
    common = _common(source, target, avoided) if suspicious else ""
    if common:
        for here, there in ((source, target), (target, source)):
            shows = mark_shows(here, there, common, marks=marks)
            if shows is not None:
                text = "a metadata that is set at one {} at the other"
                how_many = HowMany.ONE if shows else HowMany.TWO
                how = text.format("shows" if shows else "does not show")
                return Distinction(how_many, how, suspicious=True, wrote=True)
    if not suspicious and False in seen:
        return Distinction(
            HowMany.TWO, "a peer that is added at one is not at the other", wrote=True
        )
    nothing = "both are empty, or do not allow the bridge to read feed and list"
    what = "both show the same feed or files" if suspicious else nothing
    return Distinction(
        HowMany.UNKNOWN,
        f"{what}, and neither allows the bridge to set a mark",
        suspicious=suspicious,
    )


def compare_feeds(source: ComparedServer, target: ComparedServer) -> Compared:
    """Compare the newest rows. Raises SideError."""
    try:
        for _ in range(LOOKS_MAX):
            before, there, after = source.last_change(), target.last_change(), source.last_change()
            if there.last < min(before.last, after.last):
                return Compared.DIFFERENT
            if there.last > max(before.last, after.last):
                return Compared.DIFFERENT
            if there in (before, after):
                return Compared.SAME if there.changes else Compared.NOTHING
            if before == after:
                return Compared.DIFFERENT
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK):
            raise
    return Compared.NOTHING


def compare_contents(
    source: ComparedServer, target: ComparedServer, given: Sequence[str] = ()
) -> Compared:
    """Compare a few instances of the source. Raises SideError."""
    found = Compared.NOTHING
    try:
        for instance_id in given[:SAMPLED] or source.list_instances(0, SAMPLED):
            if not target.has_instance(instance_id):
                if source.has_instance(instance_id) and _shows_instances(target):
                    return Compared.DIFFERENT
                continue
            here, there = _file_of(source, instance_id), _file_of(target, instance_id)
            if here and there:
                if here != there and here == _file_of(source, instance_id):
                    return Compared.DIFFERENT
                found = Compared.SAME
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK):
            raise
    return found


def _shows_instances(server: ComparedServer) -> bool:
    """Tell whether a server shows an instance that it holds. Raises SideError.

    Something on the way may answer 404 for all of them: then none that lacks proves anything.
    """
    try:
        listed = server.list_instances(0, SAMPLED)
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK):
            raise
        return exc.problem is SideProblem.FORBIDDEN  # so it says what it does not show
    return not listed or any(map(server.has_instance, listed))


def _file_of(server: ComparedServer, instance_id: str) -> str:
    """Return the name of an instance's file; "" where the server does not tell."""
    try:
        return server.stored_file(instance_id).uuid
    except InstanceError:
        return ""
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK_AT_ONE):
            raise
        return ""


def _common(source: ComparedServer, target: ComparedServer, avoided: Collection[str] = ()) -> str:
    """Return an instance that both hold, or "". ``avoided``: those that keep what they get."""
    try:
        for instance_id in source.list_instances(0, SAMPLED + len(avoided)):
            if instance_id not in avoided and target.has_instance(instance_id):
                return instance_id
    except SideError as exc:
        if not lacks_right(exc, Need.LOOK):
            raise
    return ""


class Use(StrEnum):
    """What is to happen next at the target."""

    NOTHING = "nothing is to be moved yet"
    KEEPS = "a move to a target that keeps what it has"
    MAY_OVERWRITE = "a move to a target that may overwrite"


class Verdict(StrEnum):
    """Whether that may happen."""

    GO = "go on"
    REFUSE_ONE = "refuse: one server"
    REFUSE_ALIKE = "refuse: perhaps one server, all is the same"
    REFUSE_UNTOLD = "refuse: nothing could be compared"


VERDICTS: Mapping[tuple[HowMany, bool], Mapping[Use, Verdict]] = {
    (HowMany.TWO, False): dict.fromkeys(Use, Verdict.GO),
    (HowMany.TWO, True): dict.fromkeys(Use, Verdict.GO),
    (HowMany.ONE, False): dict.fromkeys(Use, Verdict.REFUSE_ONE),
    (HowMany.ONE, True): dict.fromkeys(Use, Verdict.REFUSE_ONE),
    (HowMany.UNKNOWN, True): dict.fromkeys(Use, Verdict.REFUSE_ALIKE),
    (HowMany.UNKNOWN, False): {
        Use.NOTHING: Verdict.GO,
        Use.KEEPS: Verdict.GO,
        Use.MAY_OVERWRITE: Verdict.REFUSE_UNTOLD,
    },
}
"""By how many there are, and whether what was compared is the same. Commands that move and
``doctor`` ask this table. An operator who vouches for two servers overrules all but one server."""


def use_of(*, moves: bool, overwrites: bool | None) -> Use:
    """Tell what is to happen. ``overwrites``: what the target says of itself, if it does."""
    if not moves:
        return Use.NOTHING
    return Use.KEEPS if overwrites is False else Use.MAY_OVERWRITE


def verdict(answer: Distinction, use: Use, *, vouched: bool) -> Verdict:
    """Look into the table. ``vouched``: the operator says that they are two."""
    found = VERDICTS[answer.how_many, answer.suspicious][use]
    return Verdict.GO if vouched and answer.how_many is HowMany.UNKNOWN else found


def refuse(answer: Distinction, use: Use, *, vouched: bool) -> None:
    """Raise ConfigurationError when this must not happen to what may be one server."""
    found = verdict(answer, use, vouched=vouched)
    if found is not Verdict.GO:
        message, advice = _REFUSALS[found]
        raise ConfigurationError(message.format(how=answer.how), advice=advice)


_REFUSALS = {
    Verdict.REFUSE_ONE: (
        "BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL lead to one server, or to one database: {how}. "
        "Nothing more is moved or deleted.",
        "Correct them.",
    ),
    Verdict.REFUSE_ALIKE: (
        "BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL may lead to one server: {how}. "
        "Nothing is moved or deleted.",
        "Allow the bridge's login PUT and DELETE on /peers/orthanc-bridge-probe-... and on "
        "/instances/.../metadata/... at one of the two. Or, if you know that one is a copy of the "
        "other, set BRIDGE_SERVERS_ARE_DISTINCT=true.",
    ),
    Verdict.REFUSE_UNTOLD: (
        "The bridge cannot tell whether BRIDGE_SOURCE_URL and BRIDGE_TARGET_URL are two servers: "
        "{how}. The target may overwrite instances: if they were one server, originals would be "
        "lost. Nothing more is moved.",
        "Allow the bridge's login GET on /changes or on /instances/... at the target, or set "
        "OverwriteInstances to false there. Or, if you know that they are two servers, set "
        "BRIDGE_SERVERS_ARE_DISTINCT=true.",
    ),
}
"""What is said, and what the operator does next."""


class OnlyApart:
    """A source of moves that hands out none before two servers are shown, lately."""

    def __init__(self, moves: MoveSource, servers: TwoServers) -> None:
        self._moves = moves
        self._servers = servers
        self._page: MovePage | None = None

    def next_page(self) -> MovePage:
        """Read on; after a SideError the same page is looked at again."""
        self._page = self._page or self._moves.next_page()
        page, self._page = self._sure(self._page), None
        return page

    def look_back(self) -> MovePage:
        """Read again what was read last."""
        return self._sure(self._moves.look_back())

    def newest(self, *, ahead: bool) -> MovePage:
        """Ask for the newest sequence, and for what came since reading fell behind."""
        return self._sure(self._moves.newest(ahead=ahead))

    def ask_again(self, ask: Ask) -> MovePage:
        """Read what is there of gaps."""
        return self._sure(self._moves.ask_again(ask))

    def _sure(self, page: MovePage) -> MovePage:
        if page.moves:
            self._servers.make_sure([move.instance_id for move in page.moves[:SAMPLED]])
        return page


class TwoServers:
    """Probes of both servers that also make sure that they are two.

    A pipeline moves nothing before both servers have answered a probe, and probes a server again
    after each trouble and every few seconds in between: that is when the question is asked,
    and less often where nothing happens. For any number of threads.

    ``confirm_s``: servers that were told apart are looked at again for so long, before it is
    believed that they are one now. ``unrest`` returns a number that changes with each instance that
    was moved and each trouble. ``marks``: where the marks that are set are on record; what is left
    of them is removed.
    """

    def __init__(
        self,
        clients: Mapping[SideName, ComparedServer],
        probes: Mapping[SideName, Callable[[], ServerInfo]],
        *,
        vouched: bool,
        confirm_s: float,
        marks: Marks = NOT_ON_RECORD,
        unrest: Callable[[], int] = lambda: 0,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._probes = probes
        self._vouched = vouched
        self._marks = marks
        self._unrest = unrest
        self._steady_s = steady_s
        self._compared: tuple[float, int] | None = None
        """When the servers were found to be two, and what ``unrest`` said then."""
        self._lock = threading.Lock()
        self._well = dict.fromkeys(SideName, False)
        """Whether its own last probe succeeded, with the comparison."""
        self._failed_at_s = dict.fromkeys(SideName, float("-inf"))
        """When it failed last; minus infinity since its own probe has succeeded."""
        self._cleaned_at_s = float("-inf")
        self._marked_until_s = float("-inf")
        self._shown = False
        """Whether the last comparison has shown two servers."""
        self._overwrites: bool | None = None
        """Whether the target overwrites instances, where it tells."""
        self._proved = False
        """Since the last trouble that a probe has met."""
        self._told_apart = False
        """Whether any comparison has shown two servers."""
        self._doubt = Doubt(confirm_s)
        self._in_doubt = ""
        """Why they may be one; "" when they are two."""
        self._look_at_s = float("-inf")
        """When they are looked at again, while that is in doubt."""
        self._said = False

    def probe(self, side: SideName) -> ServerInfo:
        """Ask a server whether it is there. Raises SideError, ConfigurationError for one server."""
        try:
            info = self._probes[side]()
        except BridgeError:
            self._well[side] = self._proved = False
            self._compared = None
            self._failed_at_s[side] = self._steady_s()
            self._marked_until_s = float("-inf")
            raise
        if side is SideName.TARGET:
            self._overwrites = info.overwrite_instances
        # Before the comparison: of two that come back at once, the second one compares.
        self._failed_at_s[side] = float("-inf")
        with self._lock:
            self._well[side] = False
            self._compare(side)
            self._well[side] = True
        return info

    def make_sure(self, instance_ids: Sequence[str]) -> None:
        """Refuse to move these where they could overwrite themselves.

        Raises ConfigurationError, SideError.
        """
        if self._vouched or self._overwrites is False:
            return
        if self._shown and not self._has_rested():
            return
        with self._lock:
            now_s, unrest = self._steady_s(), self._unrest()
            self._wait_in_doubt(SideName.TARGET, now_s)
            answer = tell_apart(*self._both(), instance_ids, marks=self._marks)
            self._shown = answer.how_many is HowMany.TWO
            if self._shown and self._compared is not None:
                self._compared = now_s, unrest
            if answer.wrote:
                self._marked_until_s = self._steady_s() + WRITE_AGAIN_S
            use = use_of(moves=True, overwrites=self._overwrites)
            self._judge(answer, use, SideName.TARGET)

    def _has_rested(self) -> bool:
        """Tell whether an address may lead elsewhere since the last comparison.

        After a trouble there is none: then the next probe compares, before anything is moved.
        """
        now_s, compared = self._steady_s(), self._compared
        rested = compared is not None and now_s - compared[0] >= REST_S
        return rested and now_s >= self._marked_until_s

    def _compare(self, side: SideName) -> None:
        other = SideName.TARGET if side is SideName.SOURCE else SideName.SOURCE
        now_s, unrest = self._steady_s(), self._unrest()
        self._wait_in_doubt(side, now_s)
        if now_s < self._marked_until_s or (self._proved and self._at_rest(now_s, unrest)):
            return
        # One that is not well is compared by its own probe, before it is used.
        may_wait = self._proved or not self._well[other]
        if may_wait and now_s - self._failed_at_s[other] < OUTAGE_BELIEVED_S:
            return
        try:
            self._clean(now_s)
            answer = tell_apart(*self._both(), marks=self._marks)
        except SideError as exc:
            if exc.side is side:
                raise
            self._failed_at_s[other] = self._steady_s()
            if may_wait:
                return
            # Otherwise both would now be used, and nobody would have asked.
            raise side_error(
                side,
                SideProblem.SERVER_ERROR,
                f"The {side} answers, but the bridge cannot make sure that it is another server "
                f"than the {other}: {exc.message}",
                advice=exc.advice,
            ) from exc
        self._shown = answer.how_many is HowMany.TWO
        self._judge(answer, Use.NOTHING, side)
        self._proved = True
        self._compared = now_s, unrest
        if answer.wrote:
            self._marked_until_s = self._steady_s() + WRITE_AGAIN_S
        if answer.how_many is HowMany.UNKNOWN and not self._said:
            self._said = True
            text = (
                f"the bridge could not tell whether the two addresses are two servers: {answer.how}"
            )
            log(logging.WARNING, "servers_not_told_apart", text)

    def _both(self) -> tuple[ComparedServer, ComparedServer]:
        """Return source and target; on new connections while they may be one.

        An open connection goes on leading where its address led when it was made.
        """
        clients = (self._clients[SideName.SOURCE], self._clients[SideName.TARGET])
        if self._in_doubt:
            for client in clients:
                client.close()
        return clients

    def _wait_in_doubt(self, side: SideName, now_s: float) -> None:
        """Raise SideError while it is too early to look again: each look may write a mark."""
        if self._in_doubt and now_s < self._look_at_s:
            raise _seems_one(side, self._in_doubt)

    def _judge(self, answer: Distinction, use: Use, side: SideName) -> None:
        """Refuse what must not happen; ``side`` cannot be used while that is in doubt.

        Raises ConfigurationError, SideError.
        """
        try:
            refuse(answer, use, vouched=self._vouched)
        except ConfigurationError as exc:
            self._forget()
            if self._told_apart and self._is_doubtful(exc.message):
                raise _seems_one(side, exc.message, exc.advice) from exc
            raise
        if self._in_doubt and not self._is_trusted():
            self._forget()
            raise _seems_one(side, self._in_doubt)
        self._in_doubt = ""
        self._told_apart = self._told_apart or answer.how_many is HowMany.TWO

    def _is_doubtful(self, message: str) -> bool:
        """Note that they seem to be one; False when that has lasted long enough to be believed."""
        now_s = self._steady_s()
        if not self._in_doubt:
            self._doubt.begin(now_s)
        self._in_doubt = message
        self._doubt.look(now_s, ours=False)
        pause_s = self._doubt.pause_s(now_s)
        self._look_at_s = now_s + pause_s
        return pause_s > 0

    def _is_trusted(self) -> bool:
        """Note that they were told apart; True when that was so often enough."""
        now_s = self._steady_s()
        trusted = self._doubt.look(now_s, ours=True)
        # Soon: instances wait for it, and it is the bad looks that are given time.
        self._look_at_s = now_s + DOUBT_FIRST_S
        return trusted

    def _forget(self) -> None:
        """Have the next probe of either server compare, whatever was known."""
        self._shown = self._proved = False
        self._compared = None
        self._marked_until_s = float("-inf")

    def _clean(self, now_s: float) -> None:
        """Remove what killed probes have left, now and then. Raises SideError."""
        if now_s - self._cleaned_at_s >= COMPARED_EVERY_S:
            self._cleaned_at_s = now_s
            remove_left(list(self._clients.values()), self._marks)
            for client in self._clients.values():
                remove_old_marks(client)

    def _at_rest(self, now_s: float, unrest: int) -> bool:
        if self._compared is None:
            return False
        compared_s, before = self._compared
        return unrest == before and now_s - compared_s < COMPARED_EVERY_S


def _seems_one(side: SideName, message: str, advice: str = "") -> SideError:
    return side_error(
        side,
        SideProblem.SERVER_ERROR,
        f"{message} The bridge looks again on new connections before it believes that.",
        advice=advice or "Nothing, if it passes. If it comes again, correct the addresses.",
    )

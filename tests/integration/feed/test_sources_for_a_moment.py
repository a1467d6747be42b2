"""Commands that walk over a range or over everything, while a server is another one for a moment.

An empty Orthanc at the address of the source has nothing to move, nothing to compare and nothing
that was parked: none of that may be believed.
"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.feed.held import LIST_PAGE
from bridge.two_servers import SAMPLED
from tests.dicom_samples import small_ct, small_series
from tests.fake_behaviours import Behaviour
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.fake_store import FakeStore
from tests.integration.conftest import undecodable_ct


class Swapped(FakeOrthanc):
    """A fake Orthanc that is asked ``before`` each request whose store answers."""

    before: Callable[[str], None] | None = None

    def behaviour_for(self, route: str) -> Behaviour | None:
        if self.before is not None:
            self.before(route)
        return super().behaviour_for(route)


class Scene:
    """Two fakes, a state file, and commands between them."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        self.source, self.target = Swapped(), Swapped()
        for server in (self.source, self.target):
            server.start()
            stack.callback(server.stop)
        audit = str(home / "audit.jsonl")
        self.pair = FakePair(self.source.url, self.target.url, home / "home", AUDIT_PATH=audit)
        stack.callback(self.pair.close)

    def empty(self, server: Swapped, is_asked: Callable[[str], bool], *, back: bool) -> None:
        """Let an empty store answer such requests and, unless ``back``, all that follow."""
        real, blank = server.store, FakeStore()

        def swap(route: str) -> None:
            if is_asked(route):
                server.store = blank
            elif back:
                server.store = real

        server.before = swap


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack, tmp_path)


def test_a_replay_believes_no_source_that_empties_meanwhile(scene: Scene) -> None:
    for data in small_series(3):
        scene.source.put(data)
    scene.source.put(undecodable_ct())
    assert scene.pair.run("run", "--once").exit_code == 3
    scene.empty(scene.source, lambda route: route.startswith("GET /instances/"), back=False)
    done = scene.pair.run("replay", "--from", "1")
    assert done.exit_code == 13, done.stderr
    assert scene.pair.parked() == {"undecodable": 1}


@pytest.mark.parametrize("command", ["replay", "plan", "report"])
def test_a_range_of_a_source_that_is_empty_when_it_is_read(scene: Scene, command: str) -> None:
    for data in small_series(3):
        scene.source.put(data)
    assert scene.pair.run("run", "--once").exit_code == 0
    scene.empty(scene.source, lambda route: route.startswith("GET /changes?since"), back=False)
    done = scene.pair.run(command, "--from", "1")
    assert done.exit_code == 13, done.stdout
    assert "re-created or restored" in done.stderr


def test_a_report_counts_what_is_on_record_beyond_the_newest_row(scene: Scene) -> None:
    for data in small_series(3):
        scene.source.put(data)
    others = [scene.source.put(small_ct()) for _ in range(3)]
    assert scene.pair.run("run", "--once").exit_code == 0
    last = str(scene.source.store.counter)
    for instance in others:
        scene.source.store.delete(instance)
    scene.target.store.delete(others[0])
    done = scene.pair.run("report", "--from", "1", "--to", last, "--json")
    assert done.exit_code == 3
    assert done.json["summary"]["instances"] == 6
    assert done.json["summary"]["missing"] == 1
    again = scene.pair.run("replay", "--from", "1", "--to", last, "--json")
    assert again.exit_code == 0, "the checkpoint is no place beyond the feed"
    assert again.json["already_there"] == 3


def test_a_check_of_a_source_that_is_empty_for_a_moment(scene: Scene) -> None:
    sent = [scene.source.put(data) for data in small_series(5)]
    assert scene.pair.run("run", "--once").exit_code == 0
    for instance in sent[:2]:
        scene.target.store.delete(instance)
    scene.empty(scene.source, lambda route: route.startswith("GET /instances"), back=False)
    done = scene.pair.run("check")
    assert done.exit_code == 13, done.stdout


def test_a_check_of_a_target_that_is_empty_while_it_is_listed(scene: Scene) -> None:
    sent = [scene.source.put(data) for data in small_series(5)]
    assert scene.pair.run("run", "--once").exit_code == 0
    wrong, other = (scene.target.store.instances[instance] for instance in sent[3:])
    scene.target.store.instances[sent[3]] = type(wrong)(other.data, wrong.parents, wrong.metadata)
    scene.empty(scene.target, lambda route: route.startswith("GET /instances?"), back=True)
    done = scene.pair.run("check", "--deep", "--json")
    assert done.exit_code == 3
    assert done.json["summary"]["on_both"] == 5
    assert done.json["summary"]["found"] == {"pixels": 1}


def test_what_was_deleted_on_both_servers_meanwhile_is_not_missing(scene: Scene) -> None:
    sent = [scene.source.put(data) for data in small_series(5)]
    assert scene.pair.run("run", "--once").exit_code == 0
    waits = [sent[2]]

    def delete(route: str) -> None:
        if waits and route.startswith("GET /instances/"):
            gone = waits.pop()
            scene.source.store.delete(gone)
            scene.target.store.delete(gone)

    scene.target.before = delete
    done = scene.pair.run("check", "--json")
    assert done.exit_code == 0, done.stdout


def test_fixing_without_a_state_file_believes_no_source_that_empties(scene: Scene) -> None:
    for data in small_series(3):
        scene.source.put(data)
    scene.empty(scene.source, lambda route: "/file" in route, back=False)
    done = scene.pair.run("check", "--fix")
    assert done.exit_code == 13, done.stdout


def two_that_take_turns(scene: Scene) -> None:
    """Two sources at one address: the other one whenever a snapshot begins to list.

    So the place in the feed that a snapshot begins with is never of the source that it lists,
    however often the feed is asked for its end meanwhile.
    """
    one = scene.source.store
    for data in small_series(6):
        scene.source.put(data)
    assert scene.pair.run("run", "--once").exit_code == 0
    other = scene.source.store = FakeStore()
    for _ in range(7):
        scene.source.put(small_ct())
    stores = itertools.cycle([one, other])

    def swap(route: str) -> None:
        # A comparison of two servers asks for a few, a snapshot for a page.
        listing = re.match(r"GET /instances\?since=0&limit=(\d+)", route)
        if listing is not None and int(listing[1]) > SAMPLED:
            scene.source.store = next(stores)

    scene.source.before = swap


def test_two_sources_that_take_turns_are_asked_less_and_less(scene: Scene) -> None:
    two_that_take_turns(scene)
    bridge = scene.pair.start("run", ON_FEED_RESET="snapshot")
    bridge.wait_logged("feed_reset", count=3)
    bridge.wait_reason("feed_went_backwards")
    assert len(scene.source.requests) < 300
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0


def test_a_command_does_not_wait_for_ever_for_two_sources_that_take_turns(scene: Scene) -> None:
    two_that_take_turns(scene)
    done = scene.pair.run("run", "--once", ON_FEED_RESET="snapshot", COMMAND_PATIENCE_S="3")
    assert done.exit_code == 13, done.stderr


def lead_to_the_source(scene: Scene, asked: str) -> Callable[[], None]:
    """Let the target's address lead to the source from such a request to the next probe.

    Returns what ends it without one.
    """
    own, waits = scene.target.store, [True]

    def swap(route: str) -> None:
        if waits and route.startswith(asked):
            waits.clear()
            scene.target.store = scene.source.store
        elif route.startswith("GET /system"):
            scene.target.store = own

    def end() -> None:
        scene.target.store = own

    scene.target.before = swap
    return end


def followed(scene: Scene) -> None:
    """Have the source show the note of a bridge that follows it."""
    scene.source.store.peers["orthanc-bridge-follows-a1"] = "http://127.0.0.1:9/"


LISTED = f"GET /instances?since=0&limit={LIST_PAGE}"


@pytest.mark.parametrize("size", [1, 3])
def test_a_snapshot_believes_no_list_of_a_target_that_is_the_source(
    scene: Scene, size: int
) -> None:
    """Planted, seen to fail: the list is not looked at; all of it counts as there already."""
    for data in small_series(size):
        scene.source.put(data)
    lead_to_the_source(scene, LISTED)
    done = scene.pair.run("run", "--once", "--json", START="snapshot", FEED_CONFIRM_S="60")
    assert done.exit_code == 0, done.stderr
    assert scene.target.before is not None
    assert done.json["delivered"] == size
    assert set(scene.target.store.instances) == set(scene.source.store.instances)
    assert "leads to the source" in done.stderr


def test_a_replay_leaves_nothing_out_for_a_target_that_is_the_source(scene: Scene) -> None:
    """Planted, seen to fail: as above."""
    for data in small_series(3):
        scene.source.put(data)
    assert scene.pair.run("run", "--once").exit_code == 0
    scene.target.store.instances.clear()
    lead_to_the_source(scene, LISTED)
    done = scene.pair.run("replay", "--from", "1", "--skip-present", "--json", FEED_CONFIRM_S="60")
    assert done.exit_code == 0, done.stderr
    assert done.json["delivered"] == 3
    assert set(scene.target.store.instances) == set(scene.source.store.instances)


def test_a_check_believes_no_list_of_a_target_that_is_the_source(scene: Scene) -> None:
    """Planted, seen to fail: it said that all is there."""
    for data in small_series(3):
        scene.source.put(data)
    followed(scene)
    own = lead_to_the_source(scene, "GET /instances?since=0")
    done = scene.pair.run("check")
    assert done.exit_code == 11, done.stdout
    assert "leads to the source" in done.stderr
    own()
    again = scene.pair.run("check", "--json")
    assert again.json["summary"]["found"] == {"waiting": 3}

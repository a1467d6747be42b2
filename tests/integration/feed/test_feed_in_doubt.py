"""A source that is another one for a moment stops nothing; one that stays another one does.

A balancer that fails over, or a container that is moved, answers a few requests as another Orthanc.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from bridge.config import load_settings
from bridge.errors import FeedWentBackwards
from bridge.events import FeedDoubted, FeedReset, FeedTrusted
from bridge.ledger.store import Ledger
from bridge.model import SideName
from bridge.orthanc.session import SideClient
from bridge.service import Service
from tests.bridge_process import reasons_in
from tests.dicom_samples import small_ct, small_series
from tests.fake_behaviours import Behaviour
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.fake_store import FakeStore

FEED = "GET /changes"


class TakesTurns(FakeOrthanc):
    """A fake Orthanc that answers some looks at its feed as another one."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.other = self.store, FakeStore()
        self.wrong: Callable[[], bool] = lambda: False

    def behaviour_for(self, route: str) -> Behaviour | None:
        self.store = self.other if route.startswith(FEED) and self.wrong() else self.own
        return super().behaviour_for(route)


@pytest.fixture
def source() -> Iterator[TakesTurns]:
    server = TakesTurns()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pair(source: TakesTurns, tmp_path: Path) -> Iterator[FakePair]:
    with ExitStack() as stack:
        target = FakeOrthanc()
        target.start()
        stack.callback(target.stop)
        pair = FakePair(source.url, target.url, tmp_path / "home", FEED_CONFIRM_S="20")
        stack.callback(pair.close)
        yield pair


def looks(count: int) -> Callable[[], bool]:
    """Be wrong so often."""
    left = iter(range(count))
    return lambda: next(left, None) is not None


@pytest.mark.parametrize("policy", ["stop", "snapshot"])
def test_two_wrong_looks_end_nothing_and_cost_no_snapshot(
    source: TakesTurns, pair: FakePair, policy: str
) -> None:
    """Planted: without the doubt it ends with 13 (stop) and compares everything (snapshot)."""
    sent = [source.put(data) for data in small_series(3)]
    bridge = pair.start("run", ON_FEED_RESET=policy)
    bridge.wait_logged("instance_delivered", count=len(sent))
    source.wrong = looks(3)
    bridge.wait_reason("feed_in_doubt")
    later = source.own.put(small_ct())[0]
    bridge.wait_logged("feed_trusted")
    bridge.wait_logged("instance_delivered", count=len(sent) + 1)
    bridge.wait_health(lambda said: not reasons_in(said), "all is well")
    assert bridge.logged("instance_delivered")[-1]["instance"] == later
    assert bridge.logged("feed_reset") == []
    assert [line["phase"] for line in bridge.logged("phase")].count("snapshot") == 0
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0


def test_one_that_stays_another_one_is_believed(source: TakesTurns, pair: FakePair) -> None:
    for data in small_series(3):
        source.put(data)
    bridge = pair.start("run", FEED_CONFIRM_S="2")
    bridge.wait_logged("instance_delivered", count=3)
    source.wrong = lambda: True
    assert bridge.wait() == 13
    assert len(bridge.logged("feed_doubted")) > 2, "it was looked at again"
    assert len(bridge.logged("feed_reset")) == 1


def test_a_stop_while_it_is_in_doubt_ends_well(source: TakesTurns, pair: FakePair) -> None:
    for data in small_series(3):
        source.put(data)
    bridge = pair.start("run")
    bridge.wait_logged("instance_delivered", count=3)
    source.wrong = lambda: True
    bridge.wait_reason("feed_in_doubt")
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0
    source.wrong = lambda: False
    assert pair.run("run", "--once").exit_code == 0


def test_a_job_looks_again_no_longer_than_its_patience(source: TakesTurns, pair: FakePair) -> None:
    for data in small_series(3):
        source.put(data)
    assert pair.run("run", "--once").exit_code == 0
    source.wrong = lambda: True
    done = pair.run("run", "--once", COMMAND_PATIENCE_S="1")
    assert done.exit_code == 13
    source.wrong = looks(3)
    assert pair.run("run", "--once").exit_code == 0


def test_nothing_is_deleted_while_it_is_in_doubt(
    source: TakesTurns, pair: FakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection may still lead to the right one: whoever deletes is told all the same."""
    for data in small_series(3):
        source.put(data)
    assert pair.run("run", "--once").exit_code == 0
    for name, value in pair.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(pair.home)
    settings = load_settings()
    with (
        Ledger(pair.state_path) as ledger,
        Service(settings, (), bounded=True) as service,
        closing(SideClient(settings.endpoint(SideName.SOURCE))) as client,
    ):
        look = service.look_before_deletion(client)
        look(ledger)
        service.report(FeedDoubted("The feed ends at 0."))
        with pytest.raises(FeedWentBackwards, match="ends at 0") as caught:
            look(ledger)
        assert "BRIDGE_SOURCE_URL" in caught.value.advice
        service.report(FeedTrusted())
        look(ledger)
        service.report(FeedDoubted("The feed ends at 0."))
        service.report(FeedReset("The feed ends at 0."))
        look(ledger)  # by itself it tells one feed from another

"""Two real Orthancs and bridges between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from bridge.credentials import Credentials
from bridge.demo.orthanc_server import OrthancServer
from bridge.ledger.store import Ledger
from bridge.model import Change, Endpoint, SideName
from bridge.orthanc import OrthancClient
from tests.bridge_process import BridgeProcess, Finished, run_bridge
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.fault_bench import FOLLOWING_ONLY, Bench

ORTHANC = {"StableAge": 600}
"""No Stable* rows during a test: the feed is then ours alone."""

FILTER_LUA = """
function ReceivedInstanceFilter(dicom, origin)
  local flag = io.open("%s")
  if flag then flag:close() end
  return flag == nil
end
"""


class Pair:
    """A source, a target, a home for the state, and commands with settings for all of them."""

    def __init__(
        self, source: OrthancServer, target: OrthancServer, home: Path, stack: ExitStack
    ) -> None:
        self.source_server, self.target_server, self.home = source, target, home
        self._stack = stack
        self.source = self._client(SideName.SOURCE, source)
        self.target = self._client(SideName.TARGET, target)
        self.command_timeout_s = 60.0
        self.refusal = home / "the-target-refuses"
        self.state_path = home / "state" / "bridge.sqlite3"
        self.settings = {
            "BRIDGE_SOURCE_URL": source.url,
            "BRIDGE_TARGET_URL": target.url,
            "BRIDGE_STATE_PATH": str(self.state_path),
            "BRIDGE_WORKERS": "2",
            "BRIDGE_POLL_INTERVAL_S": "0.1",
            "BRIDGE_FEED_CONFIRM_S": "0",
            "BRIDGE_RETENTION_TRIAL_S": "0",
            "BRIDGE_HEALTH_PORT": "0",
        }

    def start(self, *arguments: str, **settings: str) -> BridgeProcess:
        """Start a command; it is killed at the end of the test. BRIDGE_ is put before names."""
        process = BridgeProcess(*arguments, settings=self._with(settings), cwd=self.home)
        return self._stack.enter_context(process)

    def start_new(self, *arguments: str, **settings: str) -> BridgeProcess:
        """Start a command as a new interpreter, for a test of how it starts."""
        both = self._with(settings)
        process = BridgeProcess(*arguments, settings=both, cwd=self.home, fresh=True)
        return self._stack.enter_context(process)

    def start_module(self, module: str, *arguments: str, **settings: str) -> BridgeProcess:
        """Start a command of another module than the bridge's own."""
        both = self._with(settings)
        process = BridgeProcess(*arguments, settings=both, cwd=self.home, module=module, fresh=True)
        return self._stack.enter_context(process)

    def run(self, *arguments: str, **settings: str) -> Finished:
        """Run a command to its end."""
        both, timeout_s = self._with(settings), self.command_timeout_s
        return run_bridge(*arguments, settings=both, cwd=self.home, timeout_s=timeout_s)

    def send(self, data: bytes) -> str:
        """Put an instance into the source; its ID."""
        return self.source.store(data, deadline_s=30.0).instance_id

    def filter_out(self, *, everything: bool) -> None:
        """Let the target's Lua filter refuse everything, or nothing."""
        if everything:
            self.refusal.touch()
        else:
            self.refusal.unlink()

    def arrivals(self) -> list[str]:
        """The instances that the target's feed says are new, in order, repetitions included."""
        return [change.resource_id for change in self._feed_of_target()]

    def held(self) -> set[str]:
        """The instances that the target holds."""
        return set(self.target.list_instances(0, 100_000))

    def ledger(self) -> Ledger:
        return self._stack.enter_context(Ledger(self.state_path, create=False))

    def checkpoint(self) -> int:
        with Ledger(self.state_path, create=False) as ledger:
            return ledger.checkpoint() or 0

    def parked(self) -> dict[str, int]:
        with Ledger(self.state_path, create=False) as ledger:
            return ledger.parked_by_reason()

    def last(self) -> int:
        """The source's last sequence."""
        return self.source.last_change().last

    def _feed_of_target(self) -> list[Change]:
        page = self.target.changes(0, 100_000)
        assert page.done
        return [change for change in page.changes if change.change_type == "NewInstance"]

    def _client(self, side: SideName, server: OrthancServer) -> OrthancClient:
        credentials = Credentials(server.username, server.password)
        return self._stack.enter_context(OrthancClient(Endpoint(side, server.url), credentials))

    def _with(self, settings: dict[str, str]) -> dict[str, str]:
        return self.settings | {f"BRIDGE_{name}": value for name, value in settings.items()}


@pytest.fixture
def pair(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Pair]:
    """Return two empty servers and a home without a state."""
    home = tmp_path / "home"
    home.mkdir()
    script = tmp_path / "filter.lua"
    script.write_text(FILTER_LUA % (home / "the-target-refuses"))
    source = orthanc("source", config=ORTHANC)
    target = orthanc("target", config=ORTHANC | {"LuaScripts": [str(script)]})
    with ExitStack() as stack:
        yield Pair(source, target, home, stack)


def undecodable_ct(seed: int = 0) -> bytes:
    """Return an instance that Orthanc stores and no decoder can decode; another for each seed."""
    dataset = small_ct_dataset(seed=seed)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([b"this is no codestream at all"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


Between = Callable[..., tuple[Bench, OrthancServer, OrthancServer]]


@pytest.fixture
def between(orthanc: Callable[..., OrthancServer], tmp_path: Path) -> Iterator[Between]:
    """Make two servers with Orthanc options of their own, and a bench between them."""
    with ExitStack() as stack:

        def make(
            *,
            source: Mapping[str, object] | None = None,
            target: Mapping[str, object] | None = None,
            **settings: str,
        ) -> tuple[Bench, OrthancServer, OrthancServer]:
            first = orthanc("source", config=FOLLOWING_ONLY | dict(source or {}))
            second = orthanc("target", config=FOLLOWING_ONLY | dict(target or {}))
            home = tmp_path / "home"
            home.mkdir()
            bench = stack.enter_context(Bench(first.url, second.url, home, settings))
            return bench, first, second

        yield make


def post(url: str, data: bytes, *, auth: tuple[str, str] | None = None) -> str:
    """Upload an instance, from any thread; its ID."""
    answer = httpx.post(f"{url}/instances", content=data, auth=auth, timeout=60.0)
    return str(answer.raise_for_status().json()["ID"])

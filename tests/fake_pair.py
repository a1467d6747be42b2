"""A bridge process between two servers that are not Orthancs: fakes, or worse."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bridge.ledger.store import Ledger
from tests.bridge_process import BridgeProcess, Finished, run_bridge


class FakePair:
    """A home for the state, and commands with settings for two addresses.

    A context manager: what it has started is killed at its end.
    """

    def __init__(self, source_url: str, target_url: str, home: Path, **settings: str) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.state_path = home / "state" / "bridge.sqlite3"
        self._stack = ExitStack()
        self.environment = {
            "BRIDGE_SOURCE_URL": source_url,
            "BRIDGE_TARGET_URL": target_url,
            "BRIDGE_STATE_PATH": str(self.state_path),
            "BRIDGE_WORKERS": "2",
            "BRIDGE_POLL_INTERVAL_S": "0.1",
            "BRIDGE_FEED_CONFIRM_S": "0",
            "BRIDGE_RETENTION_TRIAL_S": "0",
            "BRIDGE_HEALTH_PORT": "0",
        } | _prefixed(settings)

    def path_of_secret(self, name: str, secret: str) -> str:
        """Write a secret into a file, outside the home."""
        path = self.home.with_name(f"secret-{name}")
        path.write_text(secret + "\n")
        return str(path)

    def start(self, *arguments: str, **settings: str) -> BridgeProcess:
        """Start a command. BRIDGE_ is put before the names of settings."""
        both = self.environment | _prefixed(settings)
        return self._stack.enter_context(BridgeProcess(*arguments, settings=both, cwd=self.home))

    def start_new(self, *arguments: str, **settings: str) -> BridgeProcess:
        """Start a command as a new interpreter, for a test of its memory or of its start."""
        both = self.environment | _prefixed(settings)
        process = BridgeProcess(*arguments, settings=both, cwd=self.home, fresh=True)
        return self._stack.enter_context(process)

    def run(self, *arguments: str, **settings: str) -> Finished:
        """Run a command to its end."""
        return run_bridge(
            *arguments, settings=self.environment | _prefixed(settings), cwd=self.home
        )

    def parked(self) -> dict[str, int]:
        with Ledger(self.state_path, create=False) as ledger:
            return ledger.parked_by_reason()

    def close(self) -> None:
        self._stack.close()


def _prefixed(settings: dict[str, str]) -> dict[str, str]:
    return {f"BRIDGE_{name}": value for name, value in settings.items()}

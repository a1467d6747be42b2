"""A rules file that changes under a running bridge: the next instance has the new rules."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bridge_process import wait_until
from tests.dicom_samples import small_series
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair

ALL = "[[rule]]\nsyntax = '*'\naction = 'skip'\n"
NONE = "[[rule]]\nStationName = 'nobody'\naction = 'skip'\n"


@pytest.fixture
def fakes(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path
) -> Iterator[tuple[FakePair, FakeOrthanc, FakeOrthanc]]:
    source, target = fake_orthanc(), fake_orthanc()
    rules = tmp_path / "rules.toml"
    rules.write_text(ALL)
    pair = FakePair(
        source.url,
        target.url,
        tmp_path / "home",
        RULES_FILE=str(rules),
        AUDIT_PATH=str(tmp_path / "audit.jsonl"),
        LOG_FORMAT="json",
    )
    yield pair, source, target
    pair.close()


def audited(tmp_path: Path) -> list[tuple[str, str]]:
    text = (tmp_path / "audit.jsonl").read_text()
    return [(one["outcome"], one["rules"]) for one in map(json.loads, text.splitlines())]


def test_the_next_instance_has_the_new_rules(
    fakes: tuple[FakePair, FakeOrthanc, FakeOrthanc], tmp_path: Path
) -> None:
    pair, source, target = fakes
    first, second, third = small_series(3)
    bridge = pair.start("run")
    source.put(first)
    bridge.wait_logged("instance_skipped")

    (tmp_path / "rules.toml").write_text(ALL + "[[rule]]\naction = 'drop'\n")
    bridge.wait_logged("rules_refused")
    source.put(second)
    bridge.wait_logged("instance_skipped", 2)
    assert not target.store.instances, "the rules from before hold"

    (tmp_path / "rules.toml").write_text(NONE)
    bridge.wait_logged("rules_read")
    source.put(third)
    bridge.wait_logged("instance_delivered")
    assert len(target.store.instances) == 1

    bridge.send(signal.SIGHUP)  # it reads, finds the same, and goes on
    source.put(small_series(4)[3])
    bridge.wait_logged("instance_delivered", 2)
    bridge.send(signal.SIGTERM)
    assert bridge.wait() == 0
    wait_until(lambda: len(audited(tmp_path)) == 4, "the audit file has every line")
    outcomes = [outcome for outcome, _ in audited(tmp_path)]
    generations = [generation for _, generation in audited(tmp_path)]
    assert outcomes == ["skipped", "skipped", "delivered", "delivered"]
    assert generations[0] == generations[1] != generations[2] == generations[3]
    assert all(len(generation) == 12 for generation in generations)

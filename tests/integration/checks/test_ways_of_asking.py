"""check and plan tell the same, whichever requests both servers answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bridge.checks import plan
from bridge.checks.ask_both_servers import BothServers, inspector
from bridge.checks.compare import Check
from bridge.checks.differences import Difference
from bridge.checks.plan import Plan, make_plan
from bridge.dicom.syntaxes import EXPLICIT_LE
from bridge.model import Endpoint, Job, SideName
from bridge.orthanc import OrthancClient
from bridge.rules import parse_rules
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset, small_series
from tests.fault_bench import Bench
from tests.integration.conftest import Between, undecodable_ct

pytestmark = pytest.mark.orthanc

FORBIDDING = """
function IncomingHttpRequestFilter(method, uri, ip, username, headers)
  local flag = io.open("%s/" .. string.gsub(uri, "/", "_"))
  if flag then flag:close() end
  return flag == nil
end
"""
BULK, FIND = "_tools_bulk-content", "_tools_find"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RULES = f'[[rule]]\nsop_class = "{CAPTURE}"\naction = "skip"\n'


def _drift(bench: Bench) -> int:
    """Put into both servers what differs in each way that is told without pixels.

    Returns how many the source holds.
    """
    files = small_series(9)
    bare = small_ct_dataset()
    del bare.PixelData
    other = small_ct_dataset(seed=7)
    other.SOPClassUID = CAPTURE
    only_source = [*files[:3], file_bytes(other), undecodable_ct(1), small_ct()]
    both = [*files[3:], file_bytes(bare), *(undecodable_ct(seed) for seed in range(2, 5))]
    for data in (*only_source, *both):
        bench.source.store(data, deadline_s=30.0)
    for data in (*both, small_ct(seed=3)):
        bench.target.store(data, deadline_s=30.0)
    return len(only_source) + len(both)


def _told(bench: Bench, job: Job) -> tuple[list[Difference], dict[str, Any], Plan]:
    """What check and plan find."""
    urls = {
        SideName.SOURCE: bench.source.endpoint.url,
        SideName.TARGET: bench.target.endpoint.url,
    }
    with ExitStack() as stack:
        servers = stack.enter_context(
            BothServers(lambda side: inspector(Endpoint(side, urls[side])))
        )
        check = stack.enter_context(
            Check(
                servers, job=job, known=None, page_size=4, show=lambda *_: None,
                start="beginning",
            )
        )  # fmt: skip
        check.run()
        found = list(check.differences)
        end = servers.client(SideName.SOURCE).last_change().last
        made = make_plan(
            servers, job=job, first=1, last=end, page_size=4, measured={},
            show=lambda *_: None,
        )  # fmt: skip
        totals = asdict(check.totals)
        del totals["seconds"]
        return found, totals, made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls about many instances that were answered."""
    done: list[str] = []
    find = OrthancClient.find_described
    bulk: Callable[..., object] = OrthancClient._bulk

    def finding(client: OrthancClient, since: int, limit: int) -> object:
        found = find(client, since, limit)
        if found:
            done.append("find")
        return found

    def in_bulk(client: OrthancClient, *asked: Any, **how: Any) -> object:
        found = bulk(client, *asked, **how)
        if found:
            done.append("bulk")
        return found

    monkeypatch.setattr(OrthancClient, "find_described", finding)
    monkeypatch.setattr(OrthancClient, "_bulk", in_bulk)
    monkeypatch.setattr(plan, "READ_WHOLE_MIN", 0)
    monkeypatch.setattr("bridge.checks.ask_both_servers.PAGE", 4)
    return done


@pytest.mark.parametrize("rules", ["", RULES], ids=["no rules", "rules"])
def test_the_result_is_the_same(
    between: Between, tmp_path: Path, asked: list[str], rules: str
) -> None:
    script = tmp_path / "filter.lua"
    script.write_text(FORBIDDING % tmp_path)
    options = {"LuaScripts": [str(script)]}
    bench, *_servers = between(source=options, target=options)
    instances = _drift(bench)
    finds = "HasExtendedFind" in bench.target.system().capabilities
    job = Job(
        Endpoint(SideName.SOURCE, ""), Endpoint(SideName.TARGET, ""), EXPLICIT_LE,
        rules=parse_rules(rules) if rules else (),
    )  # fmt: skip
    results = []
    for forbidden in ((), (FIND,), (BULK,), (BULK, FIND)):
        for name in (BULK, FIND):
            flag = tmp_path / name
            flag.touch()
            if name not in forbidden:
                flag.unlink()
        asked.clear()
        results.append(_told(bench, job))
        assert ("find" in asked) == (finds and FIND not in forbidden)
        assert ("bulk" in asked) == (BULK not in forbidden)
    found, totals, made = results[0]
    assert {str(one.state) for one in found} >= {"waiting", "extra", "syntax"}
    assert (totals["source"], made.changes, made.gone) == (instances, instances, 0)
    assert results[1:] == [results[0]] * 3

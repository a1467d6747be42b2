"""Options that hospitals use, each with real Orthancs: docs/orthanc.md says what holds.

What a version lacks is skipped by what its /system tells or does, never by its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bridge.demo.orthanc_server import OrthancServer
from tests.bridge_process import BridgeProcess
from tests.dicom_samples import identity_of, small_ct, small_series
from tests.fault_bench import FOLLOWING_ONLY, Bench, explanation, send_others_after_a_refusal
from tests.integration.conftest import Between, post

pytestmark = pytest.mark.orthanc

Orthancs = Callable[..., OrthancServer]

MISSING = "orthanc_bridge_missing_changes_total"


def _metric(bridge: BridgeProcess, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", str(bridge.get("/metrics")[1]), re.M)
    return float(found[1]) if found else 0.0


def _lua(directory: Path, text: str) -> dict[str, object]:
    script = directory / "filter.lua"
    script.write_text(text)
    return {"LuaScripts": [str(script)]}


def test_anonymous_access_is_off(orthanc: Orthancs, tmp_path: Path) -> None:
    user, password = "bridge", "hush"
    source, target = (
        orthanc(name, config=FOLLOWING_ONLY, username=user, password=password)
        for name in ("source", "target")
    )
    post(source.url, small_ct(), auth=(user, password))
    at_source = {"SOURCE_USERNAME": user, "SOURCE_PASSWORD": password}
    at_both = at_source | {"TARGET_USERNAME": user, "TARGET_PASSWORD": password}
    with Bench(source.url, target.url, tmp_path, {"COMMAND_PATIENCE_S": "1"}) as bench:
        nowhere = bench.run("run", "--once")
        assert nowhere.exit_code == 10
        assert f"The source at {source.url} refused the login" in nowhere.stderr
        assert "BRIDGE_SOURCE_USERNAME" in nowhere.stderr
        half = bench.run("run", "--once", **at_source)
        assert half.exit_code == 11
        assert f"The target at {target.url} refused the login" in half.stderr
        done = bench.run("run", "--once", "--json", **at_both)
        assert done.exit_code == 0, done.stderr
        assert done.json["delivered"] == 1


FORBIDDING = """
function IncomingHttpRequestFilter(method, uri, ip, username, headers)
  return not (method == "%s" and string.match(uri, "%s"))
end
"""


@pytest.mark.parametrize(
    ("side", "method", "route"),
    [
        ("source", "GET", "^/changes"),
        ("target", "POST", "^/instances$"),
    ],
)
def test_a_forbidden_route_is_an_outage_until_it_is_allowed(
    between: Between, tmp_path: Path, side: str, method: str, route: str
) -> None:
    options = _lua(tmp_path, FORBIDDING % (method, route))
    bench, *servers = between(**{side: options})
    sent = bench.send_all(small_series(2))
    bridge = bench.start("run")
    told = explanation(bridge, f"{side}_forbidden")
    assert "HTTP 403" in told
    assert f"({method} /" in told
    assert "filter script" in told
    bench.assert_untouched()
    (tmp_path / "filter.lua").write_text("")
    servers[side == "target"].restart()
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)


ALL_FORBIDDEN = """
function IncomingHttpRequestFilter(method, uri, ip, username, headers)
  local asked = method .. " " .. uri
  return not (%s)
end
"""
LISTS, BULK = 'asked == "GET /instances"', 'asked == "POST /tools/bulk-content"'


@pytest.mark.parametrize(
    "forbidden",
    [[], [LISTS], [BULK], [LISTS, BULK]],
    ids=["nothing", "lists", "bulk requests", "both"],
)
def test_what_the_target_has_is_known_whichever_requests_it_forbids(
    between: Between, tmp_path: Path, forbidden: list[str]
) -> None:
    options = _lua(tmp_path, ALL_FORBIDDEN % (" or ".join(forbidden) or "false"))
    bench, *_servers = between(target=options)
    files = small_series(5)
    bench.send_all(files)
    for data in files[1:4]:
        bench.target.store(data, deadline_s=30.0)
    replayed = bench.run("replay", "--from", "1", "--skip-present", "--json", "--dry-run")
    assert replayed.exit_code == 0, replayed.stderr
    assert (replayed.json["present"], replayed.json["would_be"]) == (3, {"sent unchanged": 2})
    done = bench.run("run", "--once", "--json", START="snapshot")
    assert done.exit_code == 0, done.stderr
    told = done.json
    assert (told["present"], told["delivered"], told["already_there"]) == (3, 2, 0)


def test_one_instance_that_may_not_be_read_waits_and_the_others_arrive(
    between: Between, tmp_path: Path
) -> None:
    data = small_ct()
    bad = identity_of(data).orthanc_id
    forbidding = FORBIDDING % ("GET", bad.replace("-", "%-") + "/file$")
    bench, source, _target = between(source=_lua(tmp_path, forbidding))
    assert bench.send(data) == bad
    others = bench.send_all(small_series(4))
    bridge = bench.start("run")
    bench.await_all(others)
    send_others_after_a_refusal(bench, bridge)
    told = explanation(bridge, "instances_refused")
    assert "1 instance is refused by a server that serves others" in told
    assert "HTTP 403" in told
    bench.assert_untouched()
    (tmp_path / "filter.lua").write_text("")
    source.restart()
    bench.await_all([bad])
    bench.await_settled(bridge)
    bench.assert_untouched()


def test_a_target_that_hides_what_it_holds(between: Between, tmp_path: Path) -> None:
    """Without BRIDGE_PROOF=stored its answer is enough, also for what was there before."""
    bench, *_servers = between(target=_lua(tmp_path, FORBIDDING % ("GET", "/md5$")))
    files = small_series(3)
    sent = bench.send_all(files)
    bench.target.store(files[0], deadline_s=30.0)
    done = bench.run("run", "--once", "--json", COMMAND_PATIENCE_S="2")
    assert done.exit_code == 0, done.stderr
    assert (done.json["delivered"], done.json["already_there"]) == (2, 1)
    strict = bench.run("replay", "--from", "1", "--json", PROOF="stored", COMMAND_PATIENCE_S="1")
    assert strict.exit_code == 11
    assert "attachments/dicom/md5" in strict.stderr
    bench.assert_untouched()
    assert bench.held() == set(sent)


def test_both_storages_are_compressed(between: Between) -> None:
    compressing = {"StorageCompression": True}
    bench, *_servers = between(source=compressing, target=compressing, PROOF="stored")
    sent = {bench.send(data): data for data in small_series(4, rows=64, columns=64)}
    bridge = bench.start("run")
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_delivered_once(sent)
    assert {instance_id: bench.file(instance_id) for instance_id in sent} == sent


def _again(data: bytes) -> bytes:
    """Return another version of an instance: other pixels, the same identifiers."""
    known = identity_of(data)
    return small_ct(
        seed=7, study_uid=known.study_uid, series_uid=known.series_uid, sop_uid=known.sop_uid
    )


@pytest.mark.parametrize("at_target", [True, False], ids=["on both", "at the source only"])
def test_an_instance_is_overwritten_at_the_source(between: Between, at_target: bool) -> None:
    bench, *_servers = between(
        source={"OverwriteInstances": True}, target={"OverwriteInstances": at_target}
    )
    first = small_ct()
    instance_id = bench.send(first)
    bridge = bench.start("run")
    bench.await_all([instance_id])
    bench.await_settled(bridge)
    second = _again(first)
    assert bench.send(second) == instance_id
    done = bridge.wait_logged("instance_delivered", 2)[-1]
    bench.await_settled(bridge, but=() if at_target else ("other_bytes_kept",))
    assert bench.parked() == {}
    if at_target:
        assert bench.file(instance_id) == second
    else:
        assert bench.file(instance_id) == first
        assert done["level"] == "warning"
        assert done["differing"] is True
        assert "OTHER BYTES" in done["message"]


def test_what_a_recycling_source_drops_unread_is_counted(between: Between) -> None:
    """One megabyte is three slices here; the bridge is down while eight come, and loses five."""
    bench, source, _target = between(source={"MaximumStorageSize": 1})
    first = bench.send(small_ct(patient_id="FIRST"))
    assert bench.run("run", "--once").exit_code == 0
    sent = [bench.send(small_ct(rows=400, columns=400, patient_id=f"P{n}")) for n in range(8)]
    left = bench.source.list_instances(0, 100)
    lost = [instance_id for instance_id in sent if instance_id not in left]
    assert len(lost) >= 4, "it has recycled"
    bridge = bench.start("run")
    bench.await_all(left)
    bench.await_settled(bridge)
    assert bench.held() == {first, *left}
    assert _metric(bridge, MISSING) == 4 * len(lost), "four rows for each patient of one instance"
    (line,) = bridge.logged("page_read", level="warning")
    assert line["missing"] == 4 * len(lost)
    assert "MISSING: deleted at the source before the bridge read them" in line["message"]
    bench.assert_untouched()
    assert source.is_running


def test_one_instance_too_large_for_the_target_stops_nobody(between: Between) -> None:
    """Larger than all the storage: refused as full in mode Recycle too, the default."""
    bench, *_servers = between(target={"MaximumStorageSize": 1})
    bench.send(small_ct(rows=1024, columns=1024))
    small = bench.send_all(small_series(4))
    bridge = bench.start("run")
    bench.await_all(small)
    small += send_others_after_a_refusal(bench, bridge)
    told = explanation(bridge, "instances_refused")
    assert "has no storage left" in told
    assert "MaximumStorageSize" in told
    bench.assert_untouched()
    assert bench.held() == set(small)


def test_a_target_that_is_full(between: Between) -> None:
    """Mode Reject: an outage, whatever the version; it ends when there is room."""
    bench, _source, target = between(
        target={"MaximumStorageSize": 1, "MaximumStorageMode": "Reject"}
    )
    there = [
        bench.target.store(small_ct(rows=400, columns=400), deadline_s=30.0).instance_id
        for _ in range(3)
    ]
    sent = [bench.send(small_ct(rows=400, columns=400)) for _ in range(3)]
    bridge = bench.start("run")
    assert "has no storage left" in explanation(bridge, "target_storage_full")
    bench.assert_untouched()
    assert bench.held() == set(there)
    for instance_id in there:
        bench.target.delete_instance(instance_id)
    bench.await_all(sent)
    bench.await_settled(bridge)
    bench.assert_untouched()
    assert target.is_running


def test_a_read_only_target(between: Between) -> None:
    bench, *_servers = between(target={"ReadOnly": True}, COMMAND_PATIENCE_S="1")
    if bench.target.system().read_only is None:
        pytest.skip("this version of Orthanc has no ReadOnly")
    bench.send(small_ct())
    done = bench.run("run", "--once")
    assert done.exit_code == 11
    assert "does not allow this method" in done.stderr
    assert "whether the server is read-only" in done.stderr
    bench.assert_untouched()
    assert bench.run("doctor").exit_code == 11


def test_metadata_attachments_and_labels_stay_where_they_are(between: Between) -> None:
    """As docs/orthanc.md says: what is not in the DICOM file is not carried over."""
    bench, source, target = between(source={"UserMetadata": {"mine": 1024}})
    instance_id = bench.send(small_ct())
    resource = f"/instances/{instance_id}"
    httpx.put(f"{source.url}{resource}/metadata/1024", content=b"x").raise_for_status()
    httpx.put(f"{source.url}{resource}/attachments/1025", content=b"y").raise_for_status()
    labels = httpx.put(f"{source.url}{resource}/labels/urgent", content=b"")
    assert bench.run("run", "--once", PROOF="stored").exit_code == 0
    kept = bench.target.instance_metadata(instance_id)
    assert kept["TransferSyntax"] == bench.source.instance_metadata(instance_id)["TransferSyntax"]
    assert {"mine", "1024"} & set(kept) == set()
    assert kept["Origin"] == "RestApi", "the target's own, not the source's"
    assert "1025" not in httpx.get(f"{target.url}{resource}/attachments").json()
    if labels.is_success:
        assert httpx.get(f"{target.url}{resource}/labels").json() == []

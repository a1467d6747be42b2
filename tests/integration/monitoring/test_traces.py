"""Traces of real processes: one tree for each instance, and each request of a worker tells it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dicom_samples import small_series
from tests.event_receiver import EventReceiver
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.integration.conftest import undecodable_ct


def spans_in(receiver: EventReceiver) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for post in receiver.posts:
        (resource,) = json.loads(post.body)["resourceSpans"]
        told = {a["key"]: a["value"]["stringValue"] for a in resource["resource"]["attributes"]}
        assert told["service.name"] == "orthanc-bridge"
        assert told["service.instance.id"] == "Ward 7"
        found += resource["scopeSpans"][0]["spans"]
    return found


def test_each_instance_is_a_trace_that_its_requests_belong_to(
    fake_orthanc: Callable[..., FakeOrthanc], tmp_path: Path
) -> None:
    """Fails when the context does not come to the worker: its requests would tell no trace."""
    source, target = fake_orthanc(), fake_orthanc()
    ids = {source.put(data) for data in (*small_series(5), undecodable_ct())}
    with EventReceiver() as receiver:
        pair = FakePair(source.url, target.url, tmp_path / "home", NAME="Ward 7")
        done = pair.run("run", "--once", TRACES_URL=f"{receiver.url}/v1/traces")
        assert done.exit_code == 3, done.stderr
        spans = spans_in(receiver)
        silent = pair.run("replay", "--from", "1")
        assert silent.exit_code == 3
        told_again = spans_in(receiver)
        pair.close()
    moves = [span for span in spans if span["name"] == "move"]
    told_ids = [
        attribute["value"]["stringValue"]
        for span in moves
        for attribute in span["attributes"]
        if attribute["key"] == "orthanc.instance"
    ]
    assert sorted(told_ids) == sorted(ids)
    assert len([span for span in spans if span["name"] == "transcode"]) == 5
    assert len([span for span in spans if span.get("status")]) == 1
    assert len(told_again) == len(spans), "only run tells traces"
    for fake, method in ((source, "GET"), (target, "POST")):
        asked = zip(fake.requests, fake.headers_seen, strict=True)
        told = {
            headers["traceparent"].split("-")[1]
            for request, headers in asked
            if request.startswith(method) and "traceparent" in headers
        }
        assert told <= {span["traceId"] for span in spans}
        assert len(told) >= 5
    feed = [
        headers
        for request, headers in zip(source.requests, source.headers_seen, strict=True)
        if request.startswith("GET /changes")
    ]
    assert feed
    assert not any("traceparent" in headers for headers in feed), "it belongs to no instance"

"""Ways to people, by the real library apprise against a receiver on loopback."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.credentials import notify_urls
from bridge.errors import ConfigurationError
from bridge.ledger.records import Notice
from bridge.notify.event_kinds import EventKind, event_body
from bridge.notify.ways import apprise_places
from tests.event_receiver import EventReceiver

pytest.importorskip("apprise", reason="the extra notify is not installed")

BODY = event_body(EventKind.TEST, {}, event_id="e", bridge="night", created_at=1.0)
NOTICE = Notice("e", "notify", EventKind.TEST, BODY, 1.0)
TOKEN = "hush-hush-4711"  # noqa: S105


@pytest.fixture
def receiver() -> Iterator[EventReceiver]:
    with EventReceiver() as receiver:
        yield receiver


def address(receiver: EventReceiver) -> str:
    return f"{receiver.url.replace('http://', 'json://')}/{TOKEN}"


def test_a_title_and_a_sentence_arrive(receiver: EventReceiver) -> None:
    (place,) = apprise_places([address(receiver)])
    assert place.send(NOTICE).taken
    (post,) = receiver.posts
    told = json.loads(post.body)
    assert told["title"] == "night: Test"
    assert told["message"] == "This is a test: somebody ran orthanc-bridge events test."


@pytest.mark.parametrize("status", [307, 400, 500])
def test_what_is_not_taken_is_sent_again_later(receiver: EventReceiver, status: int) -> None:
    receiver.status = status
    (place,) = apprise_places([address(receiver)])
    sent = place.send(NOTICE)
    assert not sent.taken
    assert TOKEN not in sent.text
    assert {post.path for post in receiver.posts} == {f"/{TOKEN}"}, "no redirect is followed"


def test_no_address_is_told(
    receiver: EventReceiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    places = apprise_places([address(receiver), address(receiver) + "2"])
    assert len({place.name for place in places}) == 2
    receiver.status = 500
    for place in places:
        assert TOKEN not in place.name + place.send(NOTICE).text
    with pytest.raises(ConfigurationError) as refused:
        apprise_places([address(receiver), f"nonsense{TOKEN}"])
    assert "Address 2 of BRIDGE_NOTIFY_URLS" in str(refused.value)
    said = caplog.text + "".join(capfd.readouterr()) + str(refused.value)
    assert TOKEN not in said


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert apprise_places([]) == ()
    with pytest.raises(ConfigurationError, match="apprise is not installed") as refused:
        apprise_places(["json://localhost"])
    assert "orthanc-bridge[notify]" in refused.value.advice


def test_addresses_are_read_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "urls"
    file.write_text("# mail\nmailto://a b://c?d=e,f\n\n  # more\nb://c?d=e,f\nslack://x\n")
    environ = {"BRIDGE_NOTIFY_URLS_FILE": str(file)}
    assert notify_urls(environ, tmp_path / "none") == ("mailto://a", "b://c?d=e,f", "slack://x")
    assert notify_urls({}, tmp_path / "none") == ()

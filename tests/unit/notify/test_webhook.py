"""A webhook: signed, and believed only when the receiver says that it has the event."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.ledger.records import Notice
from bridge.model import Receiver
from bridge.notify.ways import WITHHELD, Webhook, signature
from tests.certificates import Authority, server_context
from tests.event_receiver import EventReceiver
from tests.raw_server import RawServer

SECRET = "a secret of the receiver's"  # noqa: S105
NOTICE = Notice("event-1", "webhook", "test", '{"id":"event-1"}', 1.0)


@pytest.fixture
def receiver() -> Iterator[EventReceiver]:
    with EventReceiver() as receiver:
        yield receiver


def webhook(url: str, *, deadline_s: float = 5.0, ca_file: str | None = None) -> Webhook:
    receiver = Receiver(url, "BRIDGE_WEBHOOK_", ca_file=ca_file, deadline_s=deadline_s)
    return Webhook(receiver, SECRET)


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify as docs/events.md says, written down a second time."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{wanted}"


def test_it_is_signed_over_id_time_and_body(receiver: EventReceiver) -> None:
    sent = webhook(f"{receiver.url}/hooks/pacs").send(NOTICE)
    assert (sent.taken, sent.text, sent.said) == (True, "it answered 200", "thanks")
    (post,) = receiver.posts
    assert post.path == "/hooks/pacs"
    assert json.loads(post.body) == {"id": "event-1"}
    assert post.headers["content-type"] == "application/json"
    assert post.headers["host"] == receiver.url.removeprefix("http://")
    assert abs(int(post.headers["webhook-timestamp"]) - time.time()) < 60
    assert verified(SECRET, post.headers, post.body)
    assert not verified(SECRET, post.headers, post.body + b" ")
    assert not verified("another secret", post.headers, post.body)
    for header, other in (("webhook-id", "event-2"), ("webhook-timestamp", "1")):
        assert not verified(SECRET, post.headers | {header: other}, post.body)


def test_a_signature_of_the_standard() -> None:
    """The example of the specification of Standard Webhooks, whose secret is in base64."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
    got = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert got == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    with pytest.raises(ConfigurationError, match="not base64"):
        Webhook(Receiver("http://a", "BRIDGE_WEBHOOK_"), "whsec_no base64")


ANSWERS = {
    200: True, 201: True, 204: True, 299: True, 301: False, 302: False, 307: False, 308: False,
    400: False, 401: False, 404: False, 410: False, 413: False, 429: False, 500: False, 503: False,
}  # fmt: skip


@pytest.mark.parametrize("status", ANSWERS)
def test_only_a_2xx_is_taken(receiver: EventReceiver, status: int) -> None:
    receiver.status = status
    sent = webhook(receiver.url).send(NOTICE)
    assert sent.taken is ANSWERS[status]
    assert f"it answered {status}" in sent.text
    assert sent.gone is (status == 410)
    assert len(receiver.posts) == 1, "once, and no redirect is followed"
    if 300 <= status < 400:
        assert sent.text.endswith("redirects are not followed")


LYING: dict[str, tuple[bytes, str]] = {
    "closes after the status": (b"HTTP/1.1 200 OK\r\n", "cut short"),
    "closes within the head": (b"HTTP/1.1 200 OK\r\nContent-Le", "cut short"),
    "closes within the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "cut short"),
    "closes within a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab",
        "cut short",
    ),
    "closes at once": (b"", "cut short"),
    "speaks something else": (b"SSH-2.0-x\r\n\r\n", "is no HTTP"),
}


@pytest.mark.parametrize("name", LYING)
def test_an_answer_that_is_not_whole_is_none(name: str) -> None:
    raw, seen = LYING[name]
    with RawServer(raw, reads_all=True) as url:
        sent = webhook(url).send(NOTICE)
    assert not sent.taken
    assert seen in sent.text


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sent = webhook(f"http://127.0.0.1:{port}/secret-path").send(NOTICE)
    assert not sent.taken
    assert sent.text == "it refuses connections, or its certificate is not trusted"


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "a byte now and then"])
def test_one_that_is_slow_does_not_hold_it_for_ever(drip: bytes) -> None:
    """The deadline is of the whole exchange: each byte would begin a time-out anew."""
    ended = threading.Event()

    def slow(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            while not ended.wait(0.05):
                try:
                    connection.sendall(drip)
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=slow, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sent = webhook(url, deadline_s=0.5).send(NOTICE)
        ended.set()
        thread.join(10)
    assert (sent.taken, sent.text) == (False, "it did not answer in time")


def test_an_endless_body_is_left_alone(receiver: EventReceiver) -> None:
    receiver.endless = True
    sent = webhook(receiver.url).send(NOTICE)
    assert sent.taken, "it has said that it has it"
    assert len(sent.said) < 600


def test_what_a_receiver_says_cannot_act_on_a_terminal(receiver: EventReceiver) -> None:
    receiver.answer = b"\x1b[2J evil\r\nline two" + b"x" * 5000
    text = webhook(receiver.url).send(NOTICE).said
    assert "evil line two" in text
    assert "\x1b" not in text
    assert "\n" not in text
    assert len(text) < 600


def test_what_a_receiver_says_is_not_what_is_logged_and_kept(receiver: EventReceiver) -> None:
    receiver.status, receiver.answer = 422, b"no order for DOE^JANE"
    sent = webhook(receiver.url).send(NOTICE)
    assert (sent.text, sent.said) == ("it answered 422", "no order for DOE^JANE")


@pytest.mark.parametrize(
    "answer",
    [
        "<pre>Cannot POST /hooks/T0/k3y%20of%20mine+/x</pre>",
        "no route /hooks/T0/k3y of mine+/x",
        "no route k3y&#32;of&#x20;mine&plus;",
        "unknown tenant: t0k3n-of-them",
        f"expected {SECRET}",
    ],
)
def test_a_key_in_the_address_is_not_shown_when_the_receiver_repeats_it(
    receiver: EventReceiver, answer: str
) -> None:
    receiver.status, receiver.answer = 404, answer.encode()
    sent = webhook(f"{receiver.url}/hooks/T0/k3y%20of%20mine+/x?tenant=t0k3n-of-them").send(NOTICE)
    assert (sent.text, sent.said) == ("it answered 404", WITHHELD)


def test_trust_is_as_for_the_servers(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    authority.create()
    ca_file = authority.certificate
    clients = server_context(authority.issue("receiver"), clients_of=authority)
    mine = authority.issue("bridge")
    with EventReceiver(tls=clients) as receiver:
        assert not webhook(receiver.url).send(NOTICE).taken, "its certificate is not known"
        assert not webhook(receiver.url, ca_file=ca_file).send(NOTICE).taken, "we show none"
        shown = Receiver(
            receiver.url,
            "BRIDGE_WEBHOOK_",
            ca_file=ca_file,
            client_cert_file=mine.certificate,
            client_key_file=mine.key,
        )
        assert Webhook(shown, SECRET).send(NOTICE).taken
        missing = webhook(receiver.url, ca_file=str(tmp_path / "none")).send(NOTICE)
        assert not missing.taken
        assert "BRIDGE_WEBHOOK_CA_FILE" in missing.text
    assert len(receiver.posts) == 1

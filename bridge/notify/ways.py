"""Ways out of an event: a signed webhook, and what the library apprise can reach.

A way tells how it went in our own words: no address, no secret, nothing that a library says. What
a receiver writes beside its status is for the person who tries it alone: a page for "not found"
repeats the address, which may hold a key, and a receiver that looks a study up may name a patient.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import html
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

from bridge.errors import ConfigurationError
from bridge.ledger.records import Notice
from bridge.model import Receiver
from bridge.notify.event_kinds import in_words
from bridge.orthanc.post import PostFailed, post_json

WEBHOOK = "webhook"
SECRET_BEGIN = "whsec_"  # noqa: S105 (how a secret in base64 begins)
GONE = 410
"""The receiver says that it wants no more events."""
SERVICE_TIMEOUT_S = 20.0
KEY_CHARACTERS_MIN = 8
"""A part of an address that is as long may be a key."""
WITHHELD = "(not shown: the answer repeats a part of the address or of the secret)"
_SEPARATORS = re.compile(r"[/?&=#;]")
DIGITS = 8
"""Of the digest by which an address of apprise is known in the state file."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How an attempt went. ``text``: what was seen, for people. ``gone``: it wants no more.

    ``said``: the beginning of what the receiver wrote: neither logged nor kept.
    """

    taken: bool
    text: str
    gone: bool = False
    said: str = ""


class Way(Protocol):
    """Sends one event. Must not raise for what the receiver does."""

    @property
    def name(self) -> str:
        """By which it is known in the outbox and in metrics."""

    def send(self, notice: Notice) -> Sent:
        """Send it; the receiver may have had it before."""


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Sign an event as Standard Webhooks does: HMAC-SHA256 over its ID, the time and the body."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    digest = hmac.new(signing_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode('ascii')}"


def signing_key(secret: str) -> bytes:
    """Return the key of a secret: its bytes or, after whsec_, what it says in base64.

    Raises ConfigurationError for what is no base64.
    """
    if not secret.startswith(SECRET_BEGIN):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_BEGIN), validate=True)
    except binascii.Error as exc:
        raise ConfigurationError(
            "BRIDGE_WEBHOOK_SECRET begins with whsec_, but the rest is not base64.",
            advice="Copy the whole secret.",
        ) from exc


class Webhook:
    """Posts an event as JSON, signed."""

    name = WEBHOOK

    def __init__(
        self, receiver: Receiver, secret: str, *, now_s: Callable[[], float] = time.time
    ) -> None:
        signing_key(secret)
        self._receiver = receiver
        self._secret = secret
        self._now_s = now_s

    def send(self, notice: Notice) -> Sent:
        """Post it."""
        body, timestamp = notice.body.encode(), int(self._now_s())
        headers = {
            "webhook-id": notice.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._secret, notice.event_id, timestamp, body),
        }
        try:
            answer = post_json(self._receiver, body, headers)
        except PostFailed as exc:
            return Sent(taken=False, text=f"{exc}")
        text = f"it answered {answer.status}"
        if 300 <= answer.status < 400:
            text += ": redirects are not followed"
        said = WITHHELD if self._is_repeated_in(answer.text) else answer.text
        return Sent(taken=answer.taken, text=text, gone=answer.status == GONE, said=said)

    def _is_repeated_in(self, text: str) -> bool:
        """Whether a text holds the secret, or a part of the address that may be a key."""
        plain = unquote(html.unescape(text))
        parts = [part for part in _SEPARATORS.split(unquote(self._receiver.url)) if part]
        keys = [part for part in parts if len(part) >= KEY_CHARACTERS_MIN]
        return any(key in plain for key in (self._secret, *keys))


class ApprisePlace:
    """One address that the library apprise knows how to reach: e-mail, Teams, Slack and the rest.

    The address holds secrets: it is neither logged nor kept. ``ValueError``: apprise knows no such.
    """

    def __init__(self, address: str) -> None:
        self.name = f"notify-{hashlib.sha256(address.encode()).hexdigest()[:DIGITS]}"
        try:
            import apprise
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                "BRIDGE_NOTIFY_URLS is set, but the library apprise is not installed here.",
                advice="Install orthanc-bridge[notify], or unset it.",
            ) from exc
        _silence()
        asset = apprise.AppriseAsset(
            app_id="orthanc-bridge",
            http_redirects=False,
            secure_logging=True,
            service_timeout=SERVICE_TIMEOUT_S,
        )
        self._places = apprise.Apprise(asset=asset)
        if not self._places.add(address) or len(self._places) != 1:
            raise ValueError("apprise does not know this kind of address")

    def send(self, notice: Notice) -> Sent:
        """Send its title and text."""
        title, text = in_words(notice.body)
        if self._places.notify(title=title, body=text):
            return Sent(taken=True, text="the receiver accepted it")
        return Sent(taken=False, text="apprise could not send it")


def _silence() -> None:
    """Let apprise and what it sends by log nothing: it may name addresses, which hold secrets.

    Whether it went well is what it returns. The bridge itself uses none of these libraries.
    """
    for name in ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # of its children too


def apprise_places(addresses: Sequence[str]) -> tuple[ApprisePlace, ...]:
    """Make a way of each address. Raises ConfigurationError."""
    places = []
    for number, address in enumerate(addresses, 1):
        try:
            places.append(ApprisePlace(address))
        except ValueError as exc:
            raise ConfigurationError(
                f"Address {number} of BRIDGE_NOTIFY_URLS is of a kind that apprise does not know.",
                advice="For examples: orthanc-bridge docs events.",
            ) from exc
    return tuple(places)

"""What becomes of the sign that says delivered, at one instance of the source: a pure function.

This file must not know: sockets, files, clocks, logging, settings.

A sign is a label, where the source has labels, or a metadata. A metadata names the MD5 of the file
that was delivered, so that it is no sign for another version. Whatever else is there under its name
is somebody else's, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum

from bridge.model import DeliveredSign

SIGN = re.compile(r"orthanc-bridge delivered ([0-9a-f]{32})")
"""What the metadata says. Nobody carries it to another server."""


class Signing(Enum):
    """What is to be done."""

    NOTHING = "nothing"
    """It is there."""
    LABEL = "label"
    METADATA = "metadata"
    RENEW = "renew"
    """The metadata is a sign of another file."""
    FOREIGN = "foreign"
    """Somebody else has written another value there."""
    NO_LABELS = "no_labels"
    """Only a label is wished, and the source has none."""


def sign_value(md5: str) -> str:
    """Return what the metadata says of a delivered file."""
    return f"orthanc-bridge delivered {md5}"


def signing_of(
    sign: DeliveredSign, labels: Collection[str] | None, told: str | None, md5: str
) -> Signing:
    """Decide. ``labels`` None: the source has none. ``told``: what the metadata says now."""
    if sign.label and labels is not None:
        return Signing.NOTHING if sign.label in labels else Signing.LABEL
    if not sign.metadata:
        return Signing.NO_LABELS
    if told is None:
        return Signing.METADATA
    if told == sign_value(md5):
        return Signing.NOTHING
    return Signing.RENEW if SIGN.fullmatch(told) else Signing.FOREIGN

"""What people call this bridge and its servers, and how they type its commands.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROGRAM = "orthanc-bridge"
NAME_CHARACTERS_MAX = 64
"""Of the name of a bridge and of what stands before its commands."""
_COMMAND = re.compile(rf"(?<![\w/-]){PROGRAM}(?= [a-z])")


@dataclass(frozen=True, slots=True)
class BridgeNames:
    """Names and addresses for people. Each is "" where it is not set.

    ``source_url``, ``target_url``: where the bridge reaches the servers; they have no credentials.
    ``source_public_url``, ``target_public_url``: where people reach them. ``command_prefix``: what
    a person types before a command, for example "docker compose exec bridge".
    """

    bridge: str = ""
    source_url: str = ""
    target_url: str = ""
    source_public_url: str = ""
    target_public_url: str = ""
    command_prefix: str = ""

    def as_typed(self, text: str) -> str:
        """Return a text for people with each command of ours as it is typed here."""
        if not self.command_prefix:
            return text
        return _COMMAND.sub(lambda found: f"{self.command_prefix} {found[0]}", text)


NO_NAMES = BridgeNames()

"""Text that comes from outside: bounded, valid, and shown so that it cannot act on who reads it.

This file must not know: sockets, files, clocks, logging, settings.

A server, a file or another user chooses such text. ``cleaned`` is for where it enters, ``visible``
for where people see it: a terminal obeys escape sequences, a line break forges a line, and a
character of Unicode that changes the direction of writing shows one thing and says another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TEXT_CHARACTERS_MAX = 256
"""A name, a version, an error text: what a server says of itself."""
MESSAGE_CHARACTERS_MAX = 2_000
"""A message for people. Ours are shorter; what they quote may not be."""
UID_CHARACTERS_MAX = 64
"""PS3.5 section 9.1."""
_UID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+", re.ASCII)
CUT = "..."

_SURROGATE = re.compile("[\ud800-\udfff]")
_INVISIBLE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls, C1 included: ESC and CSI
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"  # shown as nothing
    "\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164"  # nothing, line breaks, direction
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff"
    "\ud800-\udfff"  # halves of a character: no encoding has them
    "\ue000-\uf8ff"  # private: whatever a font has there
    "\U000e0000-\U000e0fff\U000f0000-\U0010ffff"
    "]"
)
_LINES = re.compile(r"([\n\t])")


def shortened(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return at most so many characters of a text; what is cut ends with three dots."""
    if len(text) <= characters_max:
        return text
    return text[: characters_max - len(CUT)] + CUT


def valid(text: str) -> str:
    """Return text that every encoding of Unicode has: halves of a character are replaced."""
    return _SURROGATE.sub("\ufffd", text)


def cleaned(text: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Return text from outside as it may travel: valid and bounded."""
    return valid(shortened(text, characters_max))


def visible(text: str) -> str:
    """Return text with everything that is not seen, or acts on a terminal, written out."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_lines(text: str) -> str:
    """Return text of ours with line breaks of its own, all else in it written out."""
    return "".join(part if part in {"\n", "\t"} else visible(part) for part in _LINES.split(text))


def visible_values(value: object) -> object:
    """Return JSON-ready values with every text in them, names too, made visible and bounded."""
    match value:
        case str():
            return visible(shortened(value, MESSAGE_CHARACTERS_MAX))
        case Mapping():
            return {visible_values(name): visible_values(item) for name, item in value.items()}
        case list() | tuple():
            return [visible_values(item) for item in value]
        case _:
            return value


def uid_or_nothing(text: str) -> str:
    """Return a text that is a UID (PS3.5 section 9.1): all else may be a name or a number.

    An accession number or a date of birth has one component, or begins with a zero.
    """
    return text if len(text) <= UID_CHARACTERS_MAX and _UID.fullmatch(text) else ""

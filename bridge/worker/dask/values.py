"""Frozen values to plain data (what JSON can carry) and back, strictly.

This file must not know: sockets, files, clocks, logging, settings.

Tasks and outcomes cross a network as JSON: what arrives is checked field by field against the
types of model.py, and nothing in it can run.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from bridge import model
from bridge.model import Delivered, ExecutorFailed, InstanceFailed, Outcome, SideFailed, Skipped
from bridge.untrusted_text import MESSAGE_CHARACTERS_MAX, shortened, valid

T = TypeVar("T")
Plain = object
"""What JSON can carry: None, a bool, a number, a text, a list or dictionary of them."""

OUTCOMES: Mapping[str, type[Outcome]] = {
    kind.__name__: kind for kind in (Delivered, Skipped, InstanceFailed, SideFailed, ExecutorFailed)
}
_KIND = "kind"
NUMBER_MAX = 2**63 - 1
"""What a database holds."""
TEXT_MAX = 64 * 1024
ITEMS_MAX = 10_000


def to_plain(value: object) -> Plain:
    """Return a frozen value as dictionaries, lists, texts and numbers."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def from_plain(kind: type[T], plain: object) -> T:
    """Return the value of type ``kind`` that ``to_plain`` made this of. Raises ValueError."""
    made: T = _read(kind, plain)
    return made


def outcome_to_plain(outcome: Outcome) -> dict[str, Plain]:
    """Return an outcome as plain data that says which one it is."""
    whole = {field.name: to_plain(getattr(outcome, field.name)) for field in fields(outcome)}
    return {_KIND: type(outcome).__name__, **whole}


def outcome_from_plain(plain: object) -> Outcome:
    """Return the outcome again. Raises ValueError."""
    if not isinstance(plain, dict) or str(plain.get(_KIND)) not in OUTCOMES:
        raise ValueError("not an outcome")
    rest = {
        name: shortened(value, MESSAGE_CHARACTERS_MAX) if isinstance(value, str) else value
        for name, value in plain.items()
        if name != _KIND
    }
    return from_plain(OUTCOMES[plain[_KIND]], rest)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, vars(model))


def _read(kind: Any, plain: Plain) -> Any:  # noqa: ANN401 (a type as typing gives it)
    if is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), plain)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = next(option for option in typing.get_args(kind) if option is not type(None))
        return None if plain is None else _read(inner, plain)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), plain)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(_checked(str, plain))
    if kind is float and type(plain) is int:
        return float(plain)
    return _checked(kind, plain)


def _read_dataclass(kind: type, plain: Plain) -> object:
    hints = _hints(kind)
    if not isinstance(plain, dict) or plain.keys() != hints.keys():
        raise ValueError(f"not a {kind.__name__}")
    return kind(**{name: _read(hints[name], value) for name, value in plain.items()})


def _read_tuple(options: tuple[Any, ...], plain: Plain) -> tuple[Plain, ...]:
    if not isinstance(plain, list) or len(plain) > ITEMS_MAX:
        raise ValueError("not a list")
    if options[-1] is Ellipsis:
        return tuple(_read(options[0], item) for item in plain)
    if len(options) != len(plain):
        raise ValueError(f"not {len(options)} values")
    return tuple(_read(option, item) for option, item in zip(options, plain, strict=True))


def _checked(kind: type[T], plain: Plain) -> T:
    if type(plain) is not kind or not _is_bounded(plain):
        raise ValueError(f"not a {kind.__name__}")
    return plain


def _is_bounded(plain: Plain) -> bool:
    match plain:
        case bool():
            return True
        case int():
            return abs(plain) <= NUMBER_MAX
        case float():
            return math.isfinite(plain)
        case str():
            return len(plain) <= TEXT_MAX and valid(plain) == plain
        case _:
            return True

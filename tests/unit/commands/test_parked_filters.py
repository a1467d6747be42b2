"""The filters of ``parked``: the same options for each command that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields

import pytest

from bridge.commands import parked
from bridge.commands.parked import FILTERS, selecting
from bridge.errors import ConfigurationError
from bridge.ledger.parked_selection import Selection
from bridge.model import Reason

RLE = "1.2.840.10008.1.2.5"


def test_there_is_an_option_for_each_filter() -> None:
    assert list(FILTERS) == [field.name for field in fields(Selection)]


@pytest.mark.parametrize("command", [parked.list_parked, parked.retry_parked, parked.drop_parked])
def test_each_command_has_them_all(command: Callable[..., int]) -> None:
    names = list(inspect.signature(command).parameters)
    begin = names.index("reason")
    assert names[begin : begin + len(FILTERS)] == list(FILTERS)
    assert "selection" not in names


def test_they_become_one_selection() -> None:
    seen: list[object] = []

    @selecting
    def command(*, selection: Selection, as_json: bool = False) -> int:
        seen.extend([selection, as_json])
        return 7

    given = {
        "reason": Reason.VIDEO, "older_than_h": 2.0, "newer_than_h": 3.0, "first": 4, "last": 5,
        "syntax": "RLELossless", "study": "1.2", "as_json": True,
    }  # fmt: skip
    assert command(**given) == 7
    assert seen == [Selection(Reason.VIDEO, 2.0, 3.0, 4, 5, RLE, "1.2"), True]


def test_a_syntax_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--syntax JPEG3000"):
        parked.list_parked(**{**dict.fromkeys(FILTERS), "syntax": "JPEG3000"})

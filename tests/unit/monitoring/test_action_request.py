"""What a request to act may say, and from where it may come: tables."""

from __future__ import annotations

import pytest

from bridge.model import Reason
from bridge.monitoring.action_request import (
    ACTIONS,
    INSTANCES_MAX,
    ActionRequest,
    BadRequestToAct,
    comes_from_elsewhere,
    read_request,
)

ID = "00000000-11111111-22222222-33333333-44444444"
OTHER = "00000000-11111111-22222222-33333333-55555555"


@pytest.mark.parametrize(
    ("action", "body", "read"),
    [
        ("pause", {}, ActionRequest("pause")),
        ("resume", {"confirm": "resume"}, ActionRequest("resume", "resume")),
        ("retry", {"all": True}, ActionRequest("retry", every=True)),
        ("drop", {"reason": "video"}, ActionRequest("drop", reason=Reason.VIDEO)),
        ("drop", {"study": "1.2.3"}, ActionRequest("drop", study="1.2.3")),
        ("drop", {"study": ID}, ActionRequest("drop", study=ID)),
        ("retry", {"instances": [ID, OTHER, ID]}, ActionRequest("retry", instances=(ID, OTHER))),
        ("replay", {"from": 0}, ActionRequest("replay", first=0)),
        ("replay", {"from": 7, "to": 7}, ActionRequest("replay", first=7, last=7)),
    ],
)
def test_what_is_understood(action: str, body: object, read: ActionRequest) -> None:
    assert read_request(action, body) == read


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("body", [None, [], "pause", 7, {"more": 1}, {"confirm": 1}])
def test_no_action_takes_what_is_not_its_own(action: str, body: object) -> None:
    with pytest.raises(BadRequestToAct):
        read_request(action, body)


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("retry", {}),
        ("drop", {"all": False}),
        ("drop", {"all": 1}),
        ("drop", {"all": True, "reason": "video"}),
        ("drop", {"reason": "nonsense"}),
        ("drop", {"study": "--all"}),
        ("drop", {"study": "1.2" * 40}),
        ("drop", {"instances": []}),
        ("drop", {"instances": ["--all"]}),
        ("drop", {"instances": [f"{ID}\n"]}),
        ("drop", {"instances": [ID] * (INSTANCES_MAX + 1)}),
        ("drop", {"instances": ID}),
        ("replay", {}),
        ("replay", {"to": 7}),
        ("replay", {"from": 8, "to": 7}),
        ("replay", {"from": -1}),
        ("replay", {"from": 2**31}),
        ("replay", {"from": True}),
        ("replay", {"from": "7"}),
        ("replay", {"from": 1.0}),
        ("replay", {"from": 1, "to": 1e400}),
        ("pause", {"confirm": "x" * 1000}),
    ],
)
def test_what_is_refused(action: str, body: object) -> None:
    with pytest.raises(BadRequestToAct) as refused:
        read_request(action, body)
    assert "nonsense" not in str(refused.value)


@pytest.mark.parametrize(
    ("site", "origin", "elsewhere"),
    [
        ("same-origin", "https://other.example", False),  # behind a proxy with its own Host
        ("none", None, False),
        ("same-site", "http://bridge:8080", True),
        ("cross-site", "http://bridge:8080", True),
        ("cross-site", None, True),
        ("", None, True),
        ("nonsense", None, True),
        (None, None, False),  # no browser
        (None, "http://bridge:8080", False),
        (None, "http://BRIDGE:8080", False),
        (None, "https://bridge:8080", False),
        (None, "http://bridge", True),
        (None, "http://bridge:8081", True),
        (None, "http://evil.example", True),
        (None, "http://evil.example/bridge:8080", True),
        (None, "null", True),
        (None, "", True),
    ],
)
def test_another_page_cannot_ask(site: str | None, origin: str | None, elsewhere: bool) -> None:
    assert comes_from_elsewhere(site=site, origin=origin, host="bridge:8080") is elsewhere

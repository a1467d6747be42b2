"""What a server that asks for a login answers, on fake and real servers."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from bridge.errors import SideError
from bridge.model import SideName, SideProblem
from bridge.orthanc import OrthancClient
from tests.contract.conftest import PASSWORD, USERNAME
from tests.dicom_samples import small_ct


def test_login(locked_url: str, client_of: Callable[..., OrthancClient]) -> None:
    client = client_of(locked_url, SideName.TARGET, username=USERNAME, password=PASSWORD)
    assert client.system().api_version >= 16
    assert client.store(small_ct(), deadline_s=5).status == "Success"


@pytest.mark.parametrize("password", [None, "wrong"], ids=["no login", "wrong password"])
def test_a_refused_login(
    locked_url: str, client_of: Callable[..., OrthancClient], password: str | None
) -> None:
    username = None if password is None else USERNAME
    client = client_of(locked_url, SideName.TARGET, username=username, password=password)
    for call in (
        client.system,
        lambda: client.store(small_ct(rows=800, columns=800), deadline_s=5),
    ):
        with pytest.raises(SideError) as caught:
            call()
        assert caught.value.problem is SideProblem.LOGIN_REFUSED
        assert "BRIDGE_TARGET_PASSWORD" in caught.value.advice
        assert "wrong" not in str(caught.value)


def test_a_refused_login_has_an_empty_body(locked_url: str) -> None:
    answer = httpx.get(f"{locked_url}/system", trust_env=False)
    assert (answer.status_code, answer.content) == (401, b"")

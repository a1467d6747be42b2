"""What a test says when a tool that it needs is not on this machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Fail where tests must run (CI=true), else skip: in both cases it is said what is absent."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what} (CI=true: these tests must not be skipped)")
    pytest.skip(what)

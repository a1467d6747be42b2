"""A pytest plugin: the monitoring server with uvicorn's own limits in place of our connection.

    pytest -p tests.benchmarks.plain_uvicorn tests/unit/monitoring/test_security_monitoring.py

What fails then is what docs/decisions/0006-own-or-library.md says of uvicorn.
"""

from __future__ import annotations

from typing import Any

import uvicorn

import bridge.monitoring.server
from bridge.monitoring.guard import CONNECTIONS_MAX


def _config(app: Any, **arguments: Any) -> uvicorn.Config:
    plain = {"http": "h11", "limit_concurrency": CONNECTIONS_MAX, "backlog": CONNECTIONS_MAX}
    return uvicorn.Config(app, **arguments | plain)


class _Uvicorn:
    Config = staticmethod(_config)
    Server = uvicorn.Server


setattr(bridge.monitoring.server, "uvicorn", _Uvicorn)  # noqa: B010 (a module's name for another module)

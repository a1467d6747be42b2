"""The metrics that docs/metrics.md describes: a promise to whoever has alerts and dashboards."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"

METRIC_NAMES = tuple(re.findall(r"^\| `(orthanc_bridge_\w+)`", PAGE.read_text("utf-8"), re.M))
"""As Prometheus shows them, in the order of the page."""

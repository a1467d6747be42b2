"""promtool and prometheus: found, or the test says that they are not here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.absent import absent

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "compose" / "prometheus"
DASHBOARD = ROOT / "compose" / "grafana" / "dashboards" / "orthanc-bridge.json"
METRIC = re.compile(r"\borthanc_bridge_\w+")
SUFFIXES = ("_bucket", "_sum", "_count")


def require_tool(name: str) -> str:
    """Find an executable; without it fail where tests must run (CI=true), else skip."""
    found = shutil.which(name)
    if found is None:
        absent(f"no {name} on PATH (Debian: apt-get install prometheus)")
    return found


def promtool(*arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run promtool; its exit code and all that it said."""
    done = subprocess.run(
        [require_tool("promtool"), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=PROMETHEUS,
        check=False,
        timeout=60,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def used_metrics(expression: str, histograms: frozenset[str]) -> set[str]:
    """Return the metrics that an expression reads, histograms by their own name."""
    found = set()
    for name in METRIC.findall(expression):
        base = next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)
        found.add(base if base in histograms else name)
    return found

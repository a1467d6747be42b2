"""Photograph what README.md shows: the table of the demo, and the status page at work.

    make screenshots     writes docs/images/demo.png and docs/images/status-page.png

Two real Orthancs, the real bridge, and a headless Chromium; everything else is left out.
"""

from __future__ import annotations

import html
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bridge.credentials import Credentials
from bridge.demo.instances import sample_set
from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import InstanceError
from bridge.model import Endpoint, SideName
from bridge.orthanc import OrthancClient
from tests.browser.chromium import Browser

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PROGRAM = [str(Path(sys.executable).with_name("orthanc-bridge"))]
EVERY = 6
"""Of the demo's table, which has more than a hundred lines, every sixth is shown."""
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #0d1117; }}
pre {{ color: #e6edf3; font: 13px/1.45 "DejaVu Sans Mono", monospace; margin: 18px 22px; }}
</style><pre>{}</pre>"""


DRAWN = "document.readyState === 'complete' && document.body.clientWidth > 0"
"""In a browser: the page has come and has a size. Before that it cannot be photographed."""


def demo_table() -> str:
    """Run the demo; return a part of what it prints, with the command."""
    told = subprocess.run([*PROGRAM, "demo"], check=True, capture_output=True, text=True)  # noqa: S603
    head, *rows, summary = told.stdout.rstrip().splitlines()
    return "\n".join(["$ orthanc-bridge demo", head, *rows[::EVERY], "...", summary])


def photograph_demo(browser: Browser) -> None:
    """Show the table as a terminal does."""
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory, "demo.html")
        page.write_text(TERMINAL.format(html.escape(demo_table())), "utf-8")
        with browser.page(width=1530, height=530) as shown:
            shown.go(page.as_uri())
            shown.wait(f"{DRAWN} && document.querySelector('pre')")
            shown.screenshot(IMAGES / "demo.png")


def photograph_status_page(browser: Browser) -> None:
    """Show the page of a bridge that has delivered for a while."""
    with (
        tempfile.TemporaryDirectory() as directory,
        OrthancServer("source", Path(directory, "source")) as source,
        OrthancServer("target", Path(directory, "target")) as target,
    ):
        environment = {name: v for name, v in os.environ.items() if not name.startswith("BRIDGE_")}
        settings = {
            "BRIDGE_SOURCE_URL": source.url,
            "BRIDGE_TARGET_URL": target.url,
            "BRIDGE_STATE_PATH": str(Path(directory, "bridge.sqlite3")),
            "BRIDGE_HEALTH_PORT": "0",
            "BRIDGE_LOG_FORMAT": "text",
        }
        bridge = subprocess.Popen(  # noqa: S603
            [*PROGRAM, "run"], env=environment | settings, stderr=subprocess.PIPE, text=True
        )
        try:
            said = bridge.stderr or ()
            url = next(hit[0] for line in said if (hit := re.search(r"http://127[^\s,]+", line)))
            with OrthancClient(Endpoint(SideName.SOURCE, source.url), Credentials()) as client:
                for sample in sample_set(None):
                    with suppress(InstanceError):  # the source refuses some; the demo counts them
                        client.store(sample.data, deadline_s=60)
            with browser.page(width=1280, height=900) as page:
                page.go(url)
                arrived = "document.querySelector('#verdict')?.textContent.includes('arrived')"
                page.wait(f"{DRAWN} && {arrived}", 120)
                time.sleep(2.0)  # the page asks every second
                page.screenshot(IMAGES / "status-page.png")
        finally:
            bridge.send_signal(signal.SIGTERM)
            bridge.communicate(timeout=60)


def main() -> int:
    """Take both pictures."""
    with Browser() as browser:
        photograph_demo(browser)
        photograph_status_page(browser)
    return 0


if __name__ == "__main__":
    sys.exit(main())

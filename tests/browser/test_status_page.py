"""The status page in a real browser, of a real bridge between two real Orthancs."""

from __future__ import annotations

import http.server
import io
import shlex
import shutil
import threading
from urllib.parse import urlsplit

import httpx
import pytest
from pydicom.uid import RLELossless

from tests.bridge_process import BridgeProcess
from tests.browser.chromium import Browser, Page
from tests.browser.conftest import Photographer
from tests.dicom_samples import small_ct_dataset, small_series
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

WELL = "All is well: everything that the source announced has arrived."


def compressed() -> bytes:
    dataset = small_ct_dataset(rows=128, columns=128)
    dataset.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def opened(browser: Browser, bridge: BridgeProcess) -> Page:
    page = browser.page()
    page.go(f"{bridge.url}/")
    return page


def state(page: Page, station: str) -> str:
    return page.text(f"#{station} .state")


def complaints(page: Page) -> list[str]:
    """What went wrong in the page, but for requests that nobody answered."""
    return [text for text in page.errors if "ERR_CONNECTION_REFUSED" not in text]


def test_all_is_well(pair: Pair, browser: Browser, photograph: Photographer) -> None:
    sent = [pair.send(compressed()) for _ in range(5)]
    bridge = pair.start("run")
    bridge.wait_health(lambda health: health["checkpoint"] == pair.last(), "all is moved")
    with opened(browser, bridge) as page:
        page.wait_text("#verdict", WELL)
        assert [state(page, station) for station in ("source", "bridge", "target")] == [
            "up",
            "following",
            "up",
        ]
        assert page.text("#chart-text").startswith(f"{len(sent)} instances,")
        # There is no full minute behind a bridge that has just begun.
        assert "since the start" in page.text("#chart-text")
        assert "full minute" not in page.text("#chart-text")
        for hidden in ("parked-some", "flight-some", "command"):
            assert page.ask(f"document.getElementById('{hidden}').hidden"), hidden
        assert "imagecodecs" in page.text("#versions")
        bars = page.ask("[...document.querySelectorAll('#chart rect')].map(b => +b.dataset.count)")
        assert (len(bars), sum(bars)) == (90, len(sent))
        photograph(page, "healthy")

        page.ask(
            "window.told = 0; new MutationObserver(() => told += 1).observe("
            "document.getElementById('verdict'), {childList: true, characterData: true})"
        )
        late = [pair.send(compressed()) for _ in range(3)]
        page.wait_text("#chart-text", f"{len(sent) + len(late)} instances,")
        page.wait_text("#verdict", WELL)
        assert page.ask("told") <= 4, "a screen reader is told what changed, not every update"

        assert complaints(page) == []
        here = urlsplit(bridge.url).netloc
        assert {urlsplit(url).netloc for url in page.requests} == {here}
        paths = {urlsplit(url).path for url in page.requests}
        scripts = {"/page.js", "/page.common.js", "/page.actions.js"}
        assert paths == {"/", "/page.css", "/page.svg", "/api/status", *scripts}


def test_the_target_is_down_and_comes_back(
    pair: Pair, browser: Browser, photograph: Photographer
) -> None:
    bridge = pair.start("run")
    bridge.wait_health(lambda health: health["status"] == "ok", "it runs")
    pair.target_server.kill()
    for data in small_series(8):
        pair.send(data)
    with opened(browser, bridge) as page:
        page.wait_text("#verdict", "Attention")
        page.wait_text("#figures", "8")
        verdict = page.text("#verdict")
        assert "target" in verdict
        assert "Nothing is lost; the bridge resumes automatically." in verdict
        assert state(page, "source") == "up"
        assert state(page, "target").startswith("down for")
        assert state(page, "target").endswith("unreachable")
        assert page.ask("document.title").startswith("! ")
        photograph(page, "target-down")
        pair.target_server.start()
        page.wait_text("#verdict", WELL)
        assert state(page, "target") == "up"
        assert page.ask("document.getElementById('reasons').hidden")
        assert complaints(page) == []


def test_what_is_under_way_tells_its_stage(pair: Pair, browser: Browser) -> None:
    bridge = pair.start("run", WORKERS="1")
    bridge.wait_health(lambda health: health["status"] == "ok", "it runs")
    pair.target_server.suspend()  # it takes the connection and does not answer
    for data in small_series(3):
        pair.send(data)
    with opened(browser, bridge) as page:
        page.wait_text("#flight", "delivering", timeout_s=60)  # it is told after 10 s
        page.wait_text("#flight", "waiting for a worker")
        stages = "[...document.querySelectorAll('#flight td[data-label=Stage]')]"
        shown = page.ask(f"{stages}.map((cell) => cell.innerText)")
        assert sorted(shown) == ["delivering", "waiting for a worker", "waiting for a worker"]
        pair.target_server.resume()
        page.wait_text("#verdict", WELL)
        assert page.ask("document.getElementById('flight-some').hidden")


def test_parked_instances_and_the_command_that_retries_them(
    pair: Pair, browser: Browser, photograph: Photographer
) -> None:
    pair.send(compressed())
    bad = pair.send(undecodable_ct())
    bridge = pair.start("run")
    with opened(browser, bridge) as page:
        page.wait_text("#verdict", "1 instance is parked")
        assert "orthanc-bridge parked list" in page.text("#verdict")
        assert page.text("#parked code") == "undecodable"
        assert page.text("#failures tr").endswith(bad)
        assert "undecodable: parked" in page.text("#failures tr")
        photograph(page, "parked")
        program, *command = shlex.split(page.text("#parked code.command"))
        assert program == "orthanc-bridge"
        done = pair.run(*command, ON_UNDECODABLE="forward")
        assert done.exit_code == 0, done.stderr
        page.wait_text("#verdict", WELL)
        assert page.ask("document.getElementById('parked-some').hidden")
        assert bad in pair.held()
        assert complaints(page) == []


def test_a_feed_that_went_backwards(pair: Pair, browser: Browser, photograph: Photographer) -> None:
    for data in small_series(6):
        pair.send(data)
    assert pair.run("run", "--once").exit_code == 0
    pair.source_server.kill()
    shutil.rmtree(pair.source_server.directory / "storage")
    pair.source_server.start()
    new = [pair.send(data) for data in small_series(3)]
    assert pair.run("pause").exit_code == 0  # so that the snapshot is there to be looked at
    bridge = pair.start("run", ON_FEED_RESET="snapshot")
    with opened(browser, bridge) as page:
        page.wait_text("#bridge .state", "paused")
        page.wait_text("#source .state", "up, feed was reset or replaced")
        assert "the source was re-created" in page.text("#verdict")
        photograph(page, "feed-reset")
        assert pair.run("resume").exit_code == 0
        page.wait_text("#verdict", WELL)
        assert set(new) <= pair.held()
        assert complaints(page) == []


def test_a_bridge_that_ends_and_comes_back(
    pair: Pair, browser: Browser, photograph: Photographer
) -> None:
    first = pair.start("run")
    with opened(browser, first) as page:
        page.wait_text("#verdict", "All is well")
        first.kill()
        page.wait_text("#verdict", "Attention: the bridge does not answer.")
        assert "The figures below are of" in page.text("#verdict")
        assert page.ask("document.body.classList.contains('stale')")
        photograph(page, "no-answer")
        pair.start("run", HEALTH_PORT=str(urlsplit(first.url).port))
        page.wait_text("#verdict", "All is well")
        assert not page.ask("document.body.classList.contains('stale')")
        assert complaints(page) == []


class _Prefix(http.server.BaseHTTPRequestHandler):
    """What nginx does with ``location /monitor/ { proxy_pass http://bridge/; }``."""

    bridge = ""

    def do_GET(self) -> None:
        inside = "/" + self.path.removeprefix("/monitor/")
        with httpx.Client(trust_env=False) as client:
            answer = client.get(self.bridge + inside)
        found = self.path.startswith("/monitor/")
        self.send_response(answer.status_code if found else 404)
        for name in ("content-type", "content-security-policy"):
            self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(answer.content if found else b"")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_behind_a_path_prefix(
    pair: Pair, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = pair.start("run")
    monkeypatch.setattr(_Prefix, "bridge", bridge.url)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Prefix) as proxy,
        browser.page() as page,
    ):
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            page.go(f"http://127.0.0.1:{proxy.server_port}/monitor/")
            page.wait_text("#verdict", "All is well")
            style = "getComputedStyle(document.getElementById('flow')).display"
            assert page.ask(style) == "grid", "the style sheet has come too"
            assert page.errors == []
            assert all("/monitor/" in url for url in page.requests)
        finally:
            page.go("about:blank")
            proxy.shutdown()
            thread.join()

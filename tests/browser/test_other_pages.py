"""A page of another origin in a real browser, which even knows the token: it cannot act."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.acting import TOKEN, Acting
from tests.browser.chromium import Browser

SCRIPT = """
const told = [];
const confirm = JSON.stringify({confirm: "pause"});
const known = {"Content-Type": "application/json", "Authorization": "Bearer TOKEN"};
const attempts = [
  {mode: "cors", headers: known},
  {mode: "no-cors", headers: known},
  {mode: "no-cors", headers: {"Content-Type": "text/plain"}},
  {mode: "cors", headers: {"Content-Type": "text/plain"}},
  {mode: "cors", headers: known, credentials: "include", referrerPolicy: "no-referrer"},
];
(async () => {
  for (const attempt of attempts) {
    try {
      const answer = await fetch(TARGET, {method: "POST", body: confirm, ...attempt});
      told.push(answer.type + " " + answer.status);
    } catch (error) { told.push("refused"); }
  }
  navigator.sendBeacon(TARGET, confirm);
  window.told = told;
})();
"""
FORM = """<form method="post" enctype="text/plain" action="TARGET">
<input name='{"confirm": "pause", "x": "' value='"}'></form>"""


class OtherPage(BaseHTTPRequestHandler):
    """Shows one page to whoever asks."""

    text = ""

    def do_GET(self) -> None:
        body = self.text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def acting(tmp_path: Path) -> Iterator[Acting]:
    found = Acting(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_another_page_that_knows_the_token_cannot_act(
    acting: Acting, browser: Browser, name: str
) -> None:
    target = f"http://127.0.0.1:{acting.port}/api/actions/pause"
    script = SCRIPT.replace("TARGET", json.dumps(target)).replace("TOKEN", TOKEN)
    shown = f"<!doctype html><body>{FORM.replace('TARGET', target)}<script>{script}</script>"
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Shown", (OtherPage,), {"text": shown}))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        with browser.page() as page:
            page.go(f"http://{name}:{server.server_address[1]}/")
            page.wait("window.told !== undefined")
            told = page.ask("window.told")
            assert told == ["refused", "refused", "refused", "refused", "refused"]
            page.ask("document.forms[0].submit()")
            page.wait(f"location.href === {json.dumps(target)}")
    finally:
        server.shutdown()
        server.server_close()
    assert not acting.paused()
    assert acting.taken() == []
    assert acting.counted("pause").get("refused", 0) >= 2, "they came, and were refused"

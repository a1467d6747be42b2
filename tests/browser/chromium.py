"""A headless Chromium, driven by the DevTools protocol over a pipe: no port, no driver, no library.

https://chromedevtools.github.io/devtools-protocol/ names the methods. Chromium started with
``--remote-debugging-pipe`` reads commands from file descriptor 3 and writes answers and events to
4, each a JSON text that a NUL byte ends.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

from tests.absent import absent

ANSWER_S = 20.0
POLL_S = 0.05
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-proxy-server",
    "--lang=en",
    "--remote-debugging-pipe",
)
PIPES = 'exec "$@" 3<&"$BROWSER_IN" 4>&"$BROWSER_OUT"'

NAVIGATED = ("navigated or closed", "context was destroyed", "Cannot find context")
"""What Chromium answers when the page went before its answer: another one takes its place."""

Json = dict[str, Any]


class NavigatedError(RuntimeError):
    """The page that was asked is being replaced by another one."""


def require_chromium() -> str:
    """Find the executable; without it fail where tests must run (CI=true), else skip."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        absent("no chromium on PATH (Debian: apt-get install chromium)")
    return found


class Browser:
    """One Chromium with a profile of its own. A context manager."""

    def __init__(self) -> None:
        self._executable = require_chromium()
        self._lock = threading.Lock()
        self._number = 0
        self._answers: dict[int, queue.SimpleQueue[Json]] = {}
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        command_in, self._write_fd = os.pipe()
        self._read_fd, answer_out = os.pipe()
        environment = {
            "BROWSER_IN": str(command_in),
            "BROWSER_OUT": str(answer_out),
            "HOME": self._profile.name,
            "PATH": os.environ["PATH"],
            "TZ": "UTC",
        }
        flags = (*FLAGS, f"--user-data-dir={self._profile.name}", "about:blank")
        self._process = subprocess.Popen(
            ["bash", "-c", PIPES, "bash", self._executable, *flags],
            env=environment,
            pass_fds=(command_in, answer_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_in)
        os.close(answer_out)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._write_fd)  # the end of the pipe is the end of the browser
        try:
            self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(ANSWER_S)
        os.close(self._read_fd)
        self._profile.cleanup()

    def page(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """Open a tab with a window of that size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, target, attached["sessionId"])
        with self._lock:
            self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.prefer(dark=dark)
        return page

    def call(self, method: str, session: str | None = None, **parameters: object) -> Json:
        """Call a method and return its result."""
        answers: queue.SimpleQueue[Json] = queue.SimpleQueue()
        with self._lock:
            self._number += 1
            message: Json = {"id": self._number, "method": method, "params": parameters}
            if session is not None:
                message["sessionId"] = session
            self._answers[self._number] = answers
            os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        try:
            answer = answers.get(timeout=ANSWER_S)
        except queue.Empty:
            raise TimeoutError(f"Chromium did not answer {method}") from None
        if "error" in answer:
            if any(said in str(answer["error"].get("message")) for said in NAVIGATED):
                raise NavigatedError(method)
            raise RuntimeError(f"{method}: {answer['error']}")
        result: Json = answer["result"]
        return result

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._read_fd, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for text in messages:
                self._take(json.loads(text))

    def _take(self, message: Json) -> None:
        with self._lock:
            answers = self._answers.pop(message.get("id", 0), None)
            page = self._pages.get(message.get("sessionId", ""))
        if answers is not None:
            answers.put(message)
        elif page is not None:
            page.on_event(message["method"], message["params"])


class Page:
    """A tab, and what it complained about and asked for since it was opened."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session
        self.errors: list[str] = []
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def call(self, method: str, **parameters: object) -> Json:
        """Call a method for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def on_event(self, method: str, parameters: Json) -> None:
        """Note what matters: exceptions, refusals (CSP among them) and requests."""
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            seen = details.get("exception", {}).get("description", "")
            self.errors.append(f"{details.get('text')} {seen}".strip())
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def resize(self, width: int, height: int) -> None:
        """Make it a window of that size; narrow ones are phones."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def prefer(self, *, dark: bool = False, still: bool = False) -> None:
        """Say what the user prefers: a dark page, no motion."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", features=features)

    def go(self, url: str) -> None:
        """Begin to load an address."""
        self.call("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; its value, a promise's value included."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression[:100]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return what a person sees of an element, on one line."""
        found = self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return " ".join(str(found).split())

    def wait(self, expression: str, timeout_s: float = ANSWER_S) -> None:
        """Wait until an expression holds."""
        until = time.monotonic() + timeout_s
        pause = threading.Event()
        while not self._holds(expression):
            if time.monotonic() > until:
                seen = self.ask("document.body.innerText")
                raise TimeoutError(f"{expression}: not within {timeout_s:g} s; the page:\n{seen}")
            pause.wait(POLL_S)

    def _holds(self, expression: str) -> bool:
        """Whether an expression holds; not yet, where the page is being replaced by another."""
        with contextlib.suppress(NavigatedError):
            return bool(self.ask(f"Boolean({expression})"))
        return False

    def wait_text(self, selector: str, text: str, timeout_s: float = ANSWER_S) -> None:
        """Wait until an element shows a text."""
        node = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"({node}?.innerText ?? '').includes({json.dumps(text)})", timeout_s)

    def screenshot(self, path: Path) -> None:
        """Write the whole page, its unseen parts included, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

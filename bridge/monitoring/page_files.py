"""The pages: a few files, no internet, no build step; they read /api/status and /api/studies."""

from __future__ import annotations

from importlib import resources

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


PAGE_FILES = {
    "/": ("text/html; charset=utf-8", _file("page.html")),
    "/page.css": ("text/css; charset=utf-8", _file("page.css")),
    "/studies": ("text/html; charset=utf-8", _file("page.studies.html")),
    "/page.common.js": ("text/javascript; charset=utf-8", _file("page.common.js")),
    "/page.studies.js": ("text/javascript; charset=utf-8", _file("page.studies.js")),
    "/page.actions.js": ("text/javascript; charset=utf-8", _file("page.actions.js")),
    "/page.js": ("text/javascript; charset=utf-8", _file("page.js")),
    "/page.svg": ("image/svg+xml", _file("page.svg")),
}
"""Path -> media type and text."""

"""The status page: one file, no internet, reads /api/status."""

from importlib import resources

PAGE_HTML = resources.files("bridge").joinpath("page.html").read_text(encoding="utf-8")

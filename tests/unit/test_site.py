"""The site of the documentation, as far as it can be told without building it."""

from __future__ import annotations

import re
from pathlib import Path

from scripts import site

CONFIG = site.ROOT / "packaging" / "mkdocs.yml"


def test_every_page_is_in_the_navigation_once_and_every_name_is_a_page() -> None:
    text = site.navigation(CONFIG.read_text("utf-8"))
    named = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", text, re.M)
    assert sorted(named) == sorted(str(page.relative_to(site.ROOT)) for page in site.pages())


def test_what_pages_show_comes_with_them() -> None:
    front = site.linked(site.ROOT / "README.md")
    assert {Path("docs/images/overview.svg"), Path("docs/images/status-page.png")} <= front
    assert Path("docs/install.md") in front
    assert all((site.ROOT / file).is_file() for file in front)


def test_nothing_secret_is_published() -> None:
    published = {file for page in site.pages() for file in site.linked(page)}
    assert not any("secrets" in file.parts or file.name == ".env" for file in published)


def test_the_tool_is_pinned() -> None:
    assert re.fullmatch(r"mkdocs-material==[\d.]+", site.TOOL)

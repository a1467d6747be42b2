"""Build the documentation as a site with a search, from the pages as they are.

    make site            build/site/README.html is the first page
    make site ARGS=serve the site on http://127.0.0.1:8000/, built again at each change

The pages keep their folders, so that each link in them leads to the same place here and there. A
link or an anchor that leads nowhere ends it with an error. mkdocs-material is installed into an
environment of its own below build/: the program and its tests do not need it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
TOOL = "mkdocs-material==9.8.2"


def linked(page: Path) -> set[Path]:
    """Return the files of the repository that a page links to."""
    found = set()
    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text("utf-8")):
        target = (page.parent / link).resolve()
        if "://" not in link and target.is_file() and target.is_relative_to(ROOT):
            found.add(target.relative_to(ROOT))
    return found


def pages() -> list[Path]:
    """Return every page of the site."""
    found = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    return [*found, ROOT / "compose" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def gather() -> None:
    """Copy the pages, and the files that they show or link to, to where the site is built from."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for page in pages():
        for file in {page.relative_to(ROOT), *linked(page)}:
            place = SOURCE / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, place)


def navigation(config: str) -> str:
    """Return the configuration with the pages that it does not name at its end."""
    names = [str(page.relative_to(ROOT)) for page in pages()]
    left = [f"      - {name}" for name in names if f": {name}\n" not in config]
    return "\n".join([f"{config.rstrip()}", *(["  - More:", *left] if left else [])]) + "\n"


def main() -> int:
    """Build the site, or serve it."""
    home = ROOT / "build" / "site-tool"
    mkdocs = home / "bin" / "mkdocs"
    if not mkdocs.exists():
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", TOOL], check=True)  # noqa: S603
    gather()
    config = ROOT / "build" / "mkdocs.yml"
    config.write_text(navigation((ROOT / "packaging" / "mkdocs.yml").read_text("utf-8")), "utf-8")
    what, *more = sys.argv[1:] or ["build", "--strict"]
    return subprocess.run(  # noqa: S603
        [str(mkdocs), what, "--config-file", str(config), *more],
        check=False,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

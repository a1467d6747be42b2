"""What is in an image: sizes, and things that have no business there.

``python -m tests.container.contents`` builds the image and prints what docs/container.md shows.
"""

from __future__ import annotations

import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.container.image import Image, base_image, built
from tests.dockerfile import DOCKERFILE, instructions, stages

OURS = "opt/orthanc-bridge"
SHOWN_BYTES_MIN = 1_000_000
BUILD_TOOL = re.compile(
    r"(?:\S+-linux-gnu-)?(?:gcc|g\+\+|cc|c\+\+|cpp|ld|as|make|cmake|git|curl|wget|pip|uv|virtualenv)"
    r"(?:-?[\d.]+)?"
)


def files(root: Path) -> Iterator[Path]:
    """Every regular file, links not followed."""
    for path in root.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path


def bytes_in(root: Path) -> int:
    return sum(path.lstat().st_size for path in files(root))


def sizes(root: Path, parts: int) -> dict[str, int]:
    """Bytes below each path of so many parts, the largest first."""
    found: dict[str, int] = {}
    for path in files(root):
        key = "/".join(path.relative_to(root).parts[:parts])
        found[key] = found.get(key, 0) + path.lstat().st_size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def build_tools(root: Path) -> list[str]:
    """Compilers, installers and what fetches from the network, by their path."""
    places = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", f"{OURS}/bin")
    return sorted(
        str(path.relative_to(root))
        for place in places
        if (root / place).is_dir()
        for path in (root / place).iterdir()
        if BUILD_TOOL.fullmatch(path.name)
    )


def table(image: Image) -> str:
    """Return what docs/container.md shows."""
    ours = image.root / OURS
    packages = next((ours / "lib").glob("python3*/site-packages"))
    lines = ["| in the image | MB |", "|---|---:|"]
    lines.append(f"| `/{OURS}`, all that the Dockerfile adds | {bytes_in(ours) / 1e6:.0f} |")
    for name, size in sizes(packages, 1).items():
        if size >= SHOWN_BYTES_MIN:
            lines.append(f"| of it `{name}` | {size / 1e6:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Build and print."""
    tag = stages(instructions(DOCKERFILE.read_text("utf-8")))[-1].image
    with tempfile.TemporaryDirectory() as name, built(base_image(tag), Path(name)) as image:
        sys.stdout.write(table(image))
    return 0


if __name__ == "__main__":
    sys.exit(main())

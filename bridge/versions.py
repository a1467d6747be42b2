"""What this program is made of, for the status page, the metrics and bug reports."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

import bridge

PARTS = ("pydicom", "imagecodecs", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")
"""Distributions that decide what an image becomes."""


@cache
def versions() -> dict[str, str]:
    """Return name -> version of the bridge, Python and the decoders."""
    found = {"version": bridge.__version__, "python": platform.python_version()}
    found.update({part: metadata.version(part) for part in PARTS})
    return found

"""Versions of what decodes: for the audit file and for bug reports."""

from __future__ import annotations

import functools
import platform
import re
import zlib
from importlib import metadata

import bridge
from bridge.core.codecs import DECODERS

DISTRIBUTIONS = (
    "imagecodecs",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "numpy",
    "pydicom",
    "pebble",
    "httpx",
)


@functools.cache
def decoder_versions(names: str) -> str:
    """Return the versions behind decoder names as ``Delivered.decoder`` gives them, or "".

    Several names are separated by commas; so are the versions then.
    """
    known = {decoder.name: decoder.library for table in DECODERS.values() for decoder in table}
    found = [library_version(known[name]) for name in names.split(", ") if name in known]
    return ", ".join(found)


def library_versions() -> dict[str, str]:
    """Return the versions that matter for a bug report, by name."""
    return {
        "orthanc-bridge": bridge.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in DISTRIBUTIONS},
    }


def library_version(library: str) -> str:
    """Return the version of a library as codecs.py writes it: "zlib", "CharLS (imagecodecs)"."""
    inside = re.search(r"\(([^)]+)\)", library)
    distribution = inside[1] if inside else library
    if distribution == "zlib":
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return f"{distribution} {metadata.version(distribution)}"

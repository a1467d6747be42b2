"""What this program is made of, for the status page, metrics, audit file and bug reports."""

from __future__ import annotations

import platform
import re
import zlib
from functools import cache
from importlib import metadata

import bridge

DECODING = ("pydicom", "imagecodecs", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")
"""Distributions that decide what an image becomes."""
BESIDE = ("numpy", "httpx")
"""Others that an error may come from: bug reports name them too."""


@cache
def versions() -> dict[str, str]:
    """Return name -> version of the bridge, Python and what decodes: status page and metrics."""
    return {
        "version": bridge.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in DECODING},
    }


@cache
def codec_versions() -> str:
    """Return the versions of everything that decodes, as one text that changes with each."""
    distributions = sorted({*DECODING, "numpy"})
    found = [f"{name} {metadata.version(name)}" for name in distributions]
    return ", ".join([*found, f"zlib {zlib.ZLIB_RUNTIME_VERSION}"])


def reported_versions() -> dict[str, str]:
    """Return those, the platform and what an error may come from as well: bug reports."""
    known = versions()
    return {
        "orthanc-bridge": known["version"],
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: version for name, version in known.items() if name != "version"},
        **{name: metadata.version(name) for name in BESIDE},
    }


@cache
def decoder_versions(names: str) -> str:
    """Return the versions behind decoder names as ``Delivered.decoder`` gives them, or "".

    Several names are separated by commas; so are the versions then.
    """
    from bridge.dicom.codecs import DECODERS

    known = {decoder.name: decoder.library for table in DECODERS.values() for decoder in table}
    found = [library_version(known[name]) for name in names.split(", ") if name in known]
    return ", ".join(found)


def library_version(library: str) -> str:
    """Return the version of a library as codecs.py writes it: "zlib", "CharLS (imagecodecs)"."""
    inside = re.search(r"\(([^)]+)\)", library)
    distribution = inside[1] if inside else library
    if distribution == "zlib":
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return f"{distribution} {metadata.version(distribution)}"

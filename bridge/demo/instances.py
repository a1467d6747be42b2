"""The demo's instances: real files of the pydicom wheel and what is encoded from them.

Built in memory, the same bytes every time, no two with the same Orthanc ID.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO

from pydicom import dcmread

from bridge.demo.build_file import build, build_with_identity, build_without_pixels
from bridge.demo.pydicom_wheel import (
    WHEEL_FILES,
    Identity,
    WheelFile,
    separate_instance,
    wheel_bytes,
)
from bridge.demo.recipes import RECIPES, Recipe
from bridge.errors import ConfigurationError

WITHOUT_PIXELS = (
    ("report-jpeg-lossless", "1.2.840.10008.1.2.4.70", "reportsi.dcm"),
    ("plan-j2k", "1.2.840.10008.1.2.4.90", "rtplan.dcm"),
)
"""Instances without pixel data that carry the label of a compressed syntax: legal, and common."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One instance as the source gets it.

    ``syntax`` is its Transfer Syntax UID, ``data`` the whole file. ``original`` is the native
    little endian pixel data (colour by pixel) that a lossless encoding must give back, None when
    we do not have it; ``icon`` the same for an icon image. ``same_as`` names the wheel file with
    the same image uncompressed, or "".
    """

    name: str
    origin: str
    syntax: str
    data: bytes = field(repr=False)
    note: str = ""
    original: bytes | None = field(default=None, repr=False)
    icon: bytes | None = field(default=None, repr=False)
    same_as: str = ""


def sample_names() -> tuple[str, ...]:
    """Names of all samples, in the order of ``sample_set``."""
    return tuple(_makers())


def sample_set(names: Collection[str] | None = None) -> Iterator[Sample]:
    """Yield the samples, or only those named, in a fixed order; each is built once a process.

    Raises ConfigurationError for a name that does not exist, or when the installed pydicom lacks
    its test files.
    """
    makers = _makers()
    unknown = set(names or ()) - set(makers)
    if unknown:
        raise ConfigurationError(
            f"No such demo sample: {', '.join(sorted(unknown))}.",
            advice="bridge.demo.instances.sample_names() lists them.",
        )
    for name in makers:
        if names is None or name in names:
            yield _sample(name)


@cache
def _sample(name: str) -> Sample:
    return _makers()[name]()


@cache
def _makers() -> dict[str, Callable[[], Sample]]:
    makers: dict[str, Callable[[], Sample]] = {}
    for file in WHEEL_FILES:
        makers[file.name.removesuffix(".dcm")] = partial(_from_wheel, file)
    for recipe in RECIPES:
        makers[recipe.name] = partial(_from_recipe, recipe)
    for name, syntax, file_name in WITHOUT_PIXELS:
        makers[name] = partial(_without_pixels, name, syntax, file_name)
    return makers


def _from_wheel(file: WheelFile) -> Sample:
    data = wheel_bytes(file.name)
    if file.identity is Identity.CHANGED:
        data = separate_instance(data, file.name)
    elif file.identity is Identity.ADDED:
        data = build_with_identity(file.name)
    meta = dcmread(BytesIO(data), stop_before_pixels=True).file_meta
    return Sample(
        name=file.name.removesuffix(".dcm"),
        origin=f"pydicom wheel, {file.name}",
        syntax=str(meta.TransferSyntaxUID),
        data=data,
        note=file.note,
        same_as=file.same_as,
    )


def _from_recipe(recipe: Recipe) -> Sample:
    image = recipe.image()
    built = build(recipe)
    lossless = not recipe.lossy
    frames, rows, columns, samples = image.samples.shape
    shape = f"{frames} x " * (frames > 1) + f"{rows} x {columns}" + " x 3" * (samples == 3)
    sign = "signed" if image.signed else "unsigned"
    return Sample(
        name=recipe.name,
        origin=f"encoded from {image.header} of the pydicom wheel",
        syntax=recipe.syntax,
        data=built.data,
        note=f"{shape}, {image.bits_stored} bit {sign}" + ", lossy" * (not lossless),
        original=b"".join(image.native_frames()) if lossless else None,
        icon=built.icon,
    )


def _without_pixels(name: str, syntax: str, file_name: str) -> Sample:
    return Sample(
        name=name,
        origin=f"{file_name} of the pydicom wheel under another label",
        syntax=syntax,
        data=build_without_pixels(name, syntax, file_name),
        note="no pixel data",
    )

"""JPEG 2000 frames in JP2 boxes: the code stream counts, contradictions are refused."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import imagecodecs
import numpy as np
import pytest

from bridge.errors import InstanceError
from tests.transcode_cases import J2K, Image, compressed_file, read, run, samples

COLOUR = Image(rows=40, columns=36, samples=3, allocated=8, stored=8, photometric="RGB")
GREY = Image(rows=40, columns=36, allocated=8, stored=8)
SRGB, GREYSCALE, SYCC = 16, 17, 18


def box(name: bytes, body: bytes) -> bytes:
    return pack(">I4s", 8 + len(body), name) + body


def boxed(stream: bytes, image: Image, colour_space: int, extra: bytes = b"") -> bytes:
    """A code stream in JP2 boxes, ``extra`` in the header box."""
    size = pack(">IIHBBBB", image.rows, image.columns, image.samples, 7, 7, 0, 0)
    header = box(b"ihdr", size) + box(b"colr", pack(">BBBI", 1, 0, 0, colour_space)) + extra
    return (
        box(b"jP  ", b"\r\n\x87\n")
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + box(b"jp2h", header)
        + box(b"jp2c", stream)
    )


def jp2_file(image: Image, colour_space: int, extra: bytes = b"", *, mct: bool = False) -> bytes:
    """A file whose frame is ``image`` in JP2 boxes."""
    stream = imagecodecs.jpeg2k_encode(
        image.array()[0], level=0, reversible=True, codecformat="j2k", mct=mct
    )
    frame = boxed(bytes(stream), image, colour_space, extra)
    return compressed_file(image, J2K, [frame + b"\0" * (len(frame) & 1)])


@pytest.mark.parametrize(
    ("photometric", "colour_space"),
    [("RGB", SRGB), ("YBR_FULL", SYCC), ("YBR_FULL", SRGB)],
)
def test_boxes_do_not_change_the_samples(photometric: str, colour_space: int) -> None:
    image = replace(COLOUR, photometric=photometric)

    body, result = run(jp2_file(image, colour_space), verify="all")

    assert np.array_equal(samples(body), image.array())
    assert read(body).PhotometricInterpretation == photometric
    assert result.verified


@pytest.mark.parametrize(("photometric", "mct"), [("RGB", False), ("YBR_FULL", True)])
def test_a_label_that_the_boxes_contradict_is_refused(photometric: str, mct: bool) -> None:
    image = replace(COLOUR, photometric=photometric)

    with pytest.raises(InstanceError, match="cannot be right"):
        run(jp2_file(image, SYCC, mct=mct))


def test_a_channel_order_of_its_own_is_refused_and_the_natural_one_is_not() -> None:
    def order(*colours: int) -> bytes:
        entries = [pack(">HHH", i, 0, colour) for i, colour in enumerate(colours)]
        return box(b"cdef", pack(">H", len(entries)) + b"".join(entries))

    body, _ = run(jp2_file(COLOUR, SRGB, order(1, 2, 3)))
    assert np.array_equal(samples(body), COLOUR.array())

    with pytest.raises(InstanceError, match="a channel order of its own"):
        run(jp2_file(COLOUR, SRGB, order(3, 2, 1)))


def test_a_palette_of_the_boxes_is_refused() -> None:
    """It would replace the samples, and with three columns it ends the decoder's process."""
    palette = box(b"pclr", pack(">HBB", 256, 1, 7) + bytes(range(255, -1, -1)))
    mapping = box(b"cmap", pack(">HBB", 0, 1, 0))

    with pytest.raises(InstanceError, match="a palette in the JP2 header"):
        run(jp2_file(GREY, GREYSCALE, palette + mapping))

"""Fallbacks and the second opinion: who decodes, who checks, and what a disagreement does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest

from bridge.core import codecs
from bridge.core.codecs import DECODERS, ENCODERS, Decoder
from bridge.core.errors import InstanceError
from bridge.core.job import verification_chosen
from bridge.core.model import Reason, TranscodeOptions
from bridge.core.syntaxes import SYNTAXES, Family
from bridge.core.transcode import transcode
from tests.transcode_cases import (
    EXPLICIT,
    HTJ2K,
    J2K,
    JPEG_BASELINE,
    JPEG_LS,
    JPEG_SV1,
    RLE,
    Image,
    compressed_file,
    encoded_file,
    run,
    samples,
)

IMAGE = Image(rows=40, columns=36, stored=12, frames=2)
CHECKERS = {
    RLE: "pylibjpeg-rle",
    JPEG_SV1: "jpegsof3",
    J2K: "OpenJPEG/imagecodecs",
    HTJ2K: "OpenJPH",
}

Replace = Callable[[Family, str, Callable[..., Any]], None]


@pytest.fixture
def replace_decoder(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Put another function in the place of one decoder of a family."""

    def replace(family: Family, name: str, decode: Callable[..., Any]) -> None:
        table = tuple(
            Decoder(d.name, d.library, decode if d.name == name else d.decode, d.why,
                    d.fallback, d.lossless_only, d.checks)
            for d in DECODERS[family]
        )  # fmt: skip
        monkeypatch.setitem(codecs.DECODERS, family, table)

    return replace


def refuses(*_: object) -> None:
    raise RuntimeError("not today")


def zeros(*_: object) -> object:
    return np.zeros((40, 36), "<u2")


@pytest.mark.parametrize("syntax", CHECKERS)
def test_a_second_decoder_confirms_every_frame(syntax: str) -> None:
    _, result = run(encoded_file(IMAGE, syntax), verify="all")

    assert result.verified
    assert result.evidence.checker == CHECKERS[syntax]
    assert result.evidence.checker != result.decoder


@pytest.mark.parametrize("syntax", CHECKERS)
def test_disagreement_names_both_decoders(syntax: str, replace_decoder: Replace) -> None:
    replace_decoder(SYNTAXES[syntax].family, CHECKERS[syntax], zeros)

    with pytest.raises(InstanceError) as caught:
        run(encoded_file(IMAGE, syntax), verify="all")

    assert caught.value.reason is Reason.VERIFICATION_FAILED
    assert CHECKERS[syntax] in caught.value.message
    assert DECODERS[SYNTAXES[syntax].family][0].name in caught.value.message


def test_a_checker_that_refuses_leaves_it_to_the_next(replace_decoder: Replace) -> None:
    replace_decoder(Family.JPEG_LOSSLESS, "jpegsof3", refuses)

    _, result = run(encoded_file(IMAGE, JPEG_SV1), verify="all")

    assert (result.verified, result.evidence.checker) == (True, "liblj92")


def test_what_has_no_second_decoder_or_is_lossy_is_not_called_verified() -> None:
    grey = Image(rows=40, columns=36, allocated=8, stored=8)
    lossy = compressed_file(
        grey, JPEG_BASELINE, [bytes(imagecodecs.jpeg8_encode(grey.array()[0], 90))]
    )
    assert not run(lossy, verify="all")[1].verified
    assert not run(encoded_file(IMAGE, JPEG_LS), verify="all")[1].verified
    assert not run(encoded_file(IMAGE, RLE), verify="off")[1].verified


def test_a_sample_is_the_same_instances_every_time() -> None:
    names = [f"instance-{i}" for i in range(600)]
    chosen = [name for name in names if verification_chosen("sample:3", name)]

    assert 120 < len(chosen) < 280
    assert chosen == [name for name in names if verification_chosen("sample:3", name)]
    assert all(verification_chosen("sample:1", name) for name in names)
    for name in names[:20]:
        source = encoded_file(Image(rows=4, columns=4), RLE)
        options = TranscodeOptions(verify="sample:3")
        result = transcode(source, wanted_syntax=EXPLICIT, options=options, instance_id=name)
        list(result.body)
        assert result.verified is (name in chosen)


def test_a_fallback_is_used_only_when_the_first_refuses_and_is_reported(
    replace_decoder: Replace,
) -> None:
    replace_decoder(Family.J2K, "OpenJPEG", refuses)

    body, result = run(encoded_file(IMAGE, J2K))

    assert np.array_equal(samples(body), IMAGE.array())
    assert result.fallbacks == (result.decoder,) == ("OpenJPEG/imagecodecs",)
    assert run(encoded_file(IMAGE, RLE))[1].fallbacks == ()


def test_a_fallback_that_is_alone_with_its_result_is_not_believed(
    replace_decoder: Replace,
) -> None:
    replace_decoder(Family.JPEG_LOSSLESS, "libjpeg-turbo", refuses)
    assert run(encoded_file(IMAGE, JPEG_SV1))[1].fallbacks == ("jpegsof3",)

    damaged = bytearray(encoded_file(Image(rows=40, columns=36, stored=12), JPEG_SV1))
    middle = len(damaged) - 300
    damaged[middle : middle + 64] = b"\xff" * 64
    with pytest.raises(InstanceError, match="refused"):
        run(bytes(damaged))


def test_every_refusal_is_in_the_message(replace_decoder: Replace) -> None:
    replace_decoder(Family.JPEG_LS, "CharLS", refuses)

    with pytest.raises(InstanceError) as caught:
        run(encoded_file(IMAGE, JPEG_LS))

    assert caught.value.message == (
        "Frame 1 of 2 (JPEGLSLossless): CharLS refused (RuntimeError: not today)."
    )


@pytest.mark.parametrize("target", [SYNTAXES[uid].keyword for uid in ENCODERS])
def test_an_encoder_that_loses_something_is_found_out(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = next(uid for uid in ENCODERS if SYNTAXES[uid].keyword == target)
    honest = ENCODERS[uid]

    def lossy(array: Any, d: Any) -> bytes:
        changed = np.array(array)
        changed[0, 0] ^= 1
        return honest.encode(changed, d)

    monkeypatch.setitem(
        codecs.ENCODERS,
        uid,
        codecs.Encoder(
            honest.name, honest.library, honest.family, lossy, "", honest.colour_transform
        ),
    )
    source = encoded_file(IMAGE, JPEG_LS if uid != JPEG_LS else RLE)

    with pytest.raises(InstanceError) as caught:
        run(source, target)

    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_every_compressed_syntax_has_a_decoder_and_every_family_an_order() -> None:
    for syntax in SYNTAXES.values():
        if syntax.encapsulated:
            assert DECODERS[syntax.family]
    for table in DECODERS.values():
        assert not table[0].fallback
        assert len({decoder.name for decoder in table}) == len(table)
        assert all(decoder.why for decoder in table)
        assert "libjpeg (" not in "".join(decoder.library for decoder in table)

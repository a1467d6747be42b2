"""Fallbacks and the second opinion: who decodes, who checks, and what a disagreement does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest

from bridge.dicom import codecs
from bridge.dicom.codecs import DECODERS, ENCODERS, DecoderRole, DecoderUse, StreamKind
from bridge.dicom.syntaxes import SYNTAXES, Family
from bridge.dicom.transcode import transcode, verification_chosen
from bridge.errors import InstanceError
from bridge.model import Reason, TranscodeOptions
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
            dataclasses.replace(d, decode=decode if d.name == name else d.decode)
            for d in DECODERS[family]
        )
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


@pytest.fixture
def second_decodes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Family, str], None]:
    """Let a second decoder of a family stand in for plain streams, which none does today."""

    def let(family: Family, name: str) -> None:
        uses = {StreamKind.PLAIN: DecoderUse(DecoderRole.DECODES, "a test says so")}
        table = tuple(
            dataclasses.replace(d, uses={**d.uses, **uses}) if d.name == name else d
            for d in DECODERS[family]
        )
        monkeypatch.setitem(codecs.DECODERS, family, table)

    return let


SECOND = [(RLE, "packbits"), (JPEG_SV1, "libjpeg-turbo"), (J2K, "OpenJPEG"), (HTJ2K, "OpenJPEG")]


@pytest.mark.parametrize(("syntax", "first"), SECOND)
def test_what_the_preferred_decoder_refuses_is_parked(
    syntax: str, first: str, replace_decoder: Replace
) -> None:
    """Every other decoder was seen to make an image of damage."""
    replace_decoder(SYNTAXES[syntax].family, first, refuses)

    for verify in ("off", "all"):
        with pytest.raises(InstanceError, match="refused") as caught:
            run(encoded_file(IMAGE, syntax), verify=verify)
        assert caught.value.reason is Reason.UNDECODABLE


def test_a_decoder_that_stands_in_needs_an_independent_second_one(
    replace_decoder: Replace, second_decodes: Callable[[Family, str], None]
) -> None:
    second_decodes(Family.JPEG_LOSSLESS, "jpegsof3")
    replace_decoder(Family.JPEG_LOSSLESS, "libjpeg-turbo", refuses)

    body, result = run(encoded_file(IMAGE, JPEG_SV1))

    assert np.array_equal(samples(body), IMAGE.array())
    assert result.fallbacks == (result.decoder,) == ("jpegsof3",)
    for second in (refuses, zeros):
        replace_decoder(Family.JPEG_LOSSLESS, "liblj92", second)
        with pytest.raises(InstanceError, match="no independent decoder confirms jpegsof3"):
            run(encoded_file(IMAGE, JPEG_SV1))


def test_another_build_of_the_same_library_confirms_nothing(
    replace_decoder: Replace, second_decodes: Callable[[Family, str], None]
) -> None:
    second_decodes(Family.J2K, "OpenJPEG/imagecodecs")
    decode, asked = DECODERS[Family.J2K][0].decode, []

    def refuses_once(*given: Any) -> Any:
        asked.append(given)
        return decode(*given) if len(asked) > 1 else refuses()

    replace_decoder(Family.J2K, "OpenJPEG", refuses_once)

    with pytest.raises(InstanceError, match="no independent decoder confirms"):
        run(encoded_file(IMAGE, J2K))
    assert len(asked) == 1, "it is not asked to confirm itself"


def test_no_fallback_is_reported_where_there_was_none() -> None:
    assert run(encoded_file(IMAGE, RLE))[1].fallbacks == ()


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


@pytest.mark.parametrize(("label", "mct"), [("YBR_FULL", True), ("RGB", False)])
def test_an_encoder_whose_stream_contradicts_the_label_is_found_out(
    label: str, mct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples come back the same; the label that is written would be another one."""

    def encode(array: Any, _: Any) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(array, 0, codecformat="j2k", mct=mct))

    honest = ENCODERS[J2K]
    monkeypatch.setitem(codecs.ENCODERS, J2K, dataclasses.replace(honest, encode=encode))
    image = Image(rows=40, columns=36, samples=3, allocated=8, stored=8, photometric=label)

    with pytest.raises(InstanceError) as caught:
        run(encoded_file(image, RLE), J2K)

    assert caught.value.reason is Reason.VERIFICATION_FAILED


def test_every_compressed_syntax_has_a_decoder_and_every_family_an_order() -> None:
    for syntax in SYNTAXES.values():
        if syntax.encapsulated:
            assert DECODERS[syntax.family]
    for table in DECODERS.values():
        assert table[0].role([StreamKind.PLAIN]) is DecoderRole.DECODES
        assert len({decoder.name for decoder in table}) == len(table)
        assert all(use.why for decoder in table for use in decoder.uses.values())
        assert len({frozenset(decoder.uses) for decoder in table}) == 1
        assert "libjpeg (" not in "".join(decoder.library for decoder in table)

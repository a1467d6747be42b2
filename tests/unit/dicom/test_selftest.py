"""The built-in samples of `doctor`: every decoder of every family decodes its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bridge.dicom import selftest
from bridge.dicom.codecs import DECODERS
from bridge.dicom.selftest import decode_sample
from bridge.dicom.syntaxes import Family
from bridge.errors import InstanceError


@pytest.mark.parametrize("family", DECODERS)
def test_every_decoder_decodes_its_sample(family: Family) -> None:
    assert DECODERS[family]
    decode_sample(family)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_that_is_wrong_is_named(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tuple(
        replace(decoder, name=f"wrong-{number}", decode=lambda *_: np.zeros((32, 32), np.uint8))
        for number, decoder in enumerate(DECODERS[family])
    )
    monkeypatch.setattr(selftest, "DECODERS", {**DECODERS, family: wrong})
    with pytest.raises(InstanceError, match="wrong-0 fails on the built-in sample"):
        decode_sample(family)


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_that_raises_is_named(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> np.ndarray:
        raise RuntimeError

    broken = (replace(DECODERS[family][0], name="broken", decode=refuse),)
    monkeypatch.setattr(selftest, "DECODERS", {**DECODERS, family: broken})
    with pytest.raises(InstanceError, match=r"broken fails .* \(RuntimeError\)"):
        decode_sample(family)

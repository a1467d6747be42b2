"""The corpus of real files: every pixel as independent decoders agree on it, or a reason."""

from __future__ import annotations

import csv
import hashlib
import warnings

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from bridge.dicom.syntaxes import OFFERED_TARGETS
from bridge.errors import InstanceError
from bridge.model import Action, Reason
from tests.shared_samples import CORPUS
from tests.transcode_cases import BIG_ENDIAN, EXPLICIT, read, run, samples

REFUSED = {
    "pydicom-data__liver_rle.dcm": Reason.UNDECODABLE,  # one-bit RLE: nobody decodes it
    "pydicom__rtdose_expb_1frame.dcm": Reason.UNDECODABLE,  # 32 bits in big endian: readers differ
    "pydicom-data__SC_rgb_expb_32bit.dcm": Reason.UNDECODABLE,
    "pydicom-data__SC_rgb_expb_16bit.dcm": Reason.UNDECODABLE,  # 16 bits in OB: readers differ
    "pydicom__SC_rgb_jpeg.dcm": Reason.WRONG_SYNTAX_LABEL,  # implicit VR under a JPEG label
    "pydicom__meta_missing_tsyntax.dcm": Reason.NOT_DICOM,  # Orthanc refuses these two as well
}
UNCONVERTIBLE = {
    "pydicom__MR_truncated.dcm",  # its pixel data is cut off: only passed through
    "pydicom__nested_priv_SQ.dcm",  # pixels that nothing describes: never compressed
}
RULES = {0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114}
WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8}

pytestmark = pytest.mark.corpus
ABSENT = [{"file": "absent"}]
"""One test that tells that the corpus is absent: pytest skips an empty list in silence."""


def rows() -> list[dict[str, str]]:
    table = CORPUS / "expected.tsv"
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def content(row: dict[str, str]) -> bytes:
    data = (CORPUS / "files" / row["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    return data


def delivered(row: dict[str, str], wanted: str, **options: object) -> bytes | None:
    """The body, or None when it is refused for the reason that this file deserves."""
    try:
        body, result = run(content(row), wanted, **options)
    except InstanceError as exc:
        reason = REFUSED.get(row["file"])
        if row["file"] in UNCONVERTIBLE:
            reason = Reason.UNDECODABLE
        elif reason is None and OFFERED_TARGETS[wanted].encapsulated:
            reason = Reason.UNSUPPORTED_SYNTAX  # an encoder's limit, named in the documentation
        assert exc.reason is reason, exc  # noqa: PT017 - the reason depends on the file
        return None
    assert row["file"] not in REFUSED or result.action is Action.UNCHANGED
    assert result.source_syntax == (row["ts_uid"] or result.source_syntax)
    return body


def assert_same_pixels(row: dict[str, str], body: bytes) -> None:
    array = samples(body)
    frames = array if int(read(body).get("NumberOfFrames", 1) or 1) > 1 else array[0]
    assert (str(frames.dtype), str(list(frames.shape))) == (row["dtype"], row["shape"])
    digest = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    assert digest == row["pixels_sha256"]


def assert_same_values(source: Dataset, target: Dataset, *, swap: bool) -> None:
    for element in source:
        tag = element.tag
        if tag.element == 0 or tag.group == 0x7FE0 or tag in RULES or tag == 0xFFFCFFFC:
            continue
        found = target[tag]
        if element.VR == "SQ":
            assert len(found.value) == len(element.value), tag
            for before, after in zip(element.value, found.value, strict=True):
                assert_same_values(before, after, swap=swap)
        elif swap and element.VR in WORDS and element.value:
            words = np.frombuffer(element.value, f"u{WORDS[element.VR]}").byteswap()
            assert found.value == words.tobytes(), tag
        elif isinstance(element.value, bytes):
            assert found.value.rstrip(b"\0") == element.value.rstrip(b"\0"), tag
        else:
            assert repr(found.value) == repr(element.value), tag


@pytest.mark.parametrize("verify", ["off", "all"])
@pytest.mark.parametrize("row", rows() or ABSENT, ids=lambda row: str(row["file"])[-60:])
def test_to_explicit_little_endian(row: dict[str, str], verify: str) -> None:
    body = delivered(row, EXPLICIT, verify=verify)
    if body is None:
        return
    if row["pixels_sha256"]:
        assert_same_pixels(row, body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = dcmread(CORPUS / "files" / row["file"], force=True)
        assert_same_values(source, read(body), swap=row["ts_uid"] == BIG_ENDIAN)


@pytest.mark.parametrize(
    "target", [t for t in OFFERED_TARGETS.values() if t.uid != EXPLICIT], ids=lambda t: t.keyword
)
def test_to_every_other_target_and_back(target: object) -> None:
    uid = getattr(target, "uid", "")
    compared = 0
    for row in rows():
        packed = delivered(row, uid)
        if packed is None or not row["pixels_sha256"]:
            continue
        assert_same_pixels(row, run(packed)[0])
        compared += 1
    assert compared >= 50

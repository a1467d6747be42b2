"""The list of what may change: the demo's comparison has the same, and nothing else leaves."""

from __future__ import annotations

import imagecodecs
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLSLossless

from bridge.demo.compare_instance import LOSSY_MARKS, PIXEL_CODING
from bridge.dicom.changed_elements import (
    MAY_CHANGE,
    NewValues,
    decoded_changes,
    is_left_out,
    refuse_unlisted,
)
from bridge.dicom.content_sum import counts
from bridge.dicom.description import HIGH_BIT, STORED, new_text
from bridge.dicom.new_pixel_data import icon_changes
from bridge.errors import InstanceError
from bridge.model import Reason
from tests.transcode_cases import Image, encoded_file, run
from tests.unit.dicom.test_transcode_structure import icon_item

PATIENT_ID = 0x00100020
NEVER = (0x00080018, PATIENT_ID, 0x00280100, 0x00280103, 0x60003000, 0x7FE00008, 0xFFFAFFFA)


def test_the_demo_lets_the_same_elements_change() -> None:
    """It judges without the code that it judges, so it has a list of its own."""
    assert PIXEL_CODING | LOSSY_MARKS | {STORED, HIGH_BIT} == MAY_CHANGE


def test_what_may_change_is_no_part_of_what_a_data_set_says() -> None:
    assert not any(counts(tag) for tag in MAY_CHANGE)


@pytest.mark.parametrize("tag", NEVER)
def test_a_change_of_another_element_is_refused(tag: int) -> None:
    for changes in ({tag: None}, {**dict.fromkeys(MAY_CHANGE), tag: new_text("A")}):
        with pytest.raises(
            InstanceError, match=rf"\({tag >> 16:04X},{tag & 0xFFFF:04X}\)"
        ) as found:
            refuse_unlisted(changes)
        assert found.value.reason is Reason.VERIFICATION_FAILED
    refuse_unlisted(dict.fromkeys(MAY_CHANGE))


def test_no_such_file_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object, **options: object) -> NewValues:
        return {**decoded_changes(*arguments, **options), PATIENT_ID: new_text("A")}  # type: ignore[arg-type]

    source = encoded_file(Image(), JPEGLSLossless)
    run(source)
    monkeypatch.setattr("bridge.dicom.transcode.decoded_changes", wrong)
    with pytest.raises(InstanceError, match=r"\(0010,0020\) would change"):
        run(source)


def test_nor_one_with_such_an_icon(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> NewValues:
        return {**icon_changes(*arguments), PATIENT_ID: new_text("A")}  # type: ignore[arg-type]

    icon = Image(rows=5, columns=5, allocated=8, stored=8)
    coded = icon_item(icon, bytes(imagecodecs.jpegls_encode(icon.array()[0])))
    source = encoded_file(Image(), JPEGLSLossless, IconImageSequence=Sequence([coded]))
    run(source)
    monkeypatch.setattr("bridge.dicom.transcode.icon_changes", wrong)
    with pytest.raises(InstanceError, match=r"\(0010,0020\) would change"):
        run(source)


@pytest.mark.parametrize(
    ("tag", "left_out"),
    [(0x00080000, True), (0xFFFCFFFC, True), (0x00080001, False), (0xFFFCFFFB, False)],
)
def test_what_says_nothing_is_left_out(tag: int, left_out: bool) -> None:
    assert is_left_out(tag) is left_out

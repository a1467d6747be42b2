"""A short seeded slice of what `make generate` does for longer: see tests/generated.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom.errors import BytesLengthException

from bridge.dicom.deidentify import deidentify
from bridge.dicom.facts import facts_of_file
from tests.absent import absent
from tests.dicom_strategies import SOP, SPELLED, Branch, Item, Leaf, Made, Writer, lengthened
from tests.generated import (
    PROPERTIES,
    bounded,
    check_dcmtk,
    check_order,
    dictionaries_of_dcmtk,
    is_private,
    values_of_any_length,
)
from tests.transcode_cases import DEFLATED, EXPLICIT, IMPLICIT, read, run

COUNTS = {"the order": 50, "DCMTK": 18, "every target": 15, "every reader": 8}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_a_slice(name: str) -> None:
    if name == "DCMTK" and shutil.which("dcmdump") is None:
        absent("dcmdump of dcmtk is not installed")
    bounded(name, COUNTS.get(name, 10), 20261130)()


@pytest.mark.parametrize("count", [1, 8, 64, 100_000])
def test_zeros_behind_the_last_element_stop_no_reader(count: int) -> None:
    """Found by the generator: a rule, or a reproducer, took them for a damaged element."""
    data = Made(EXPLICIT, SOP, None, tail=bytes(count)).data
    assert facts_of_file(memoryview(data)) == {
        "syntax": EXPLICIT,
        "sop_class": "1.2.840.10008.5.1.4.1.1.7",
        "modality": "",
    }
    assert not deidentify(data, secret=b"s").data.endswith(bytes(64))


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump of dcmtk is not installed")
@pytest.mark.filterwarnings("ignore:Expected total bytes")
@pytest.mark.parametrize("length", [2, 6, 250])
def test_a_private_value_whose_length_contradicts_a_dictionary_stays(length: int) -> None:
    """Found by the generator: (0009,1027) of GEMS_IDEN_01 is SL, of four bytes, for pydicom only.

    An implicit file does not tell its VR. DCMTK finds the value as it was, whatever is written.
    """
    creator = Leaf(0x00090010, "LO", b"GEMS_IDEN_01")
    made = Made(IMPLICIT, (*SOP, creator, Leaf(0x00091027, "OB", b"_" * length)), None)
    check_dcmtk([made], EXPLICIT)
    body, _ = run(made.data)
    with pytest.raises(BytesLengthException):
        read(body)
    with values_of_any_length():
        assert read(body)[0x00091027].value == b"_" * length


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump of dcmtk is not installed")
@pytest.mark.parametrize("wanted", [IMPLICIT, EXPLICIT, DEFLATED])
@pytest.mark.parametrize("inside_un", [False, True])
@pytest.mark.parametrize("creator", [b"GEMS_IDEN_01", b"NOBODY KNOWS"])
def test_a_private_sequence_where_a_dictionary_has_a_text(
    creator: bytes, inside_un: bool, wanted: str
) -> None:
    """Found by the generator: (0009,xx01) of GEMS_IDEN_01 is LO in DCMTK's private dictionary.

    dcmdump with that dictionary ends with 1 wherever the sequence is in implicit VR. The file does
    not tell a VR there, and says with its length that it is a sequence.
    """
    inner = Item((Leaf(0x00080054, "AE", b"AB"), Leaf(0x7FE310FF, "OB", bytes(6))))
    named = Leaf(0x00090011, "LO", creator)
    tree: tuple[Leaf | Branch, ...]
    tree = (named, Branch(0x00091101, (inner, inner, inner), undefined=True))
    if inside_un:
        tree = (Branch(0x00291100, (Item(tree),), "UN", undefined=True),)
    check_dcmtk([Made(EXPLICIT, (*SOP, *tree), None)], wanted)


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump of dcmtk is not installed")
def test_the_public_dictionary_of_dcmtk_is_told_from_the_private_one(tmp_path: Path) -> None:
    assert not all(is_private(path) for path in dictionaries_of_dcmtk())
    lines = '# (0009,"NOT AN ENTRY",01)', "(0008,0054)\tAE\tRetrieveAETitle\t1-n\tDICOM"
    dictionary = tmp_path / "some.dic"
    dictionary.write_text("\n".join(lines))
    assert not is_private(dictionary)
    dictionary.write_text("\n".join((*lines, '(0009,"GEMS_IDEN_01",01)\tLO\tFullFidelity\t1\tX')))
    assert is_private(dictionary)


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump of dcmtk is not installed")
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("last", [0x00081140, 0x7FDF10FF, 0x7FDF11FF, 0x7FE110FF])
def test_the_element_that_lengthens_an_item_is_the_last_and_no_other(
    last: int, implicit: bool
) -> None:
    """Found by DCMTK, which reads the first of two: an item had (7FDF,10FF) and got it again."""
    node = Branch(last, (), undefined=True) if last != 0x7FDF10FF else Leaf(last, "AE", b"")
    wanted = next(length for length in SPELLED if not length & 1)
    inside = lengthened((node,), wanted, implicit=implicit)
    assert len(Writer(implicit=implicit).elements(inside)) == wanted
    tree = (*SOP, Branch(0x00091100, (Item(inside),), undefined=True))
    made = Made(IMPLICIT if implicit else EXPLICIT, tree, None)
    check_order(made)
    check_dcmtk([made], EXPLICIT)


@pytest.mark.parametrize("source", [EXPLICIT, IMPLICIT, DEFLATED])
@pytest.mark.parametrize("wanted", [EXPLICIT, IMPLICIT, DEFLATED])
def test_a_tag_that_is_there_three_times_stays_three_times(source: str, wanted: str) -> None:
    """The generator makes no such item unless it is meant. Readers differ: DCMTK keeps the first
    and pydicom the last, so all of them arrive in their order, and each reader finds what it found.
    """
    values = (b"first!", b"middle", b"last!!")
    inner = Item(tuple(Leaf(0x7FDF10FF, "OB", value) for value in values))
    tree = (*SOP, Branch(0x00091100, (inner,), undefined=True))
    body, _ = run(Made(source, tree, None).data, wanted)
    plain = body if wanted != DEFLATED else run(body)[0]
    places = [plain.find(value) for value in values]
    assert -1 not in places
    assert places == sorted(places)
    assert plain.count(bytes.fromhex("df7fff10")) == 3

from __future__ import annotations

import pytest
from pydicom.uid import UID

from bridge.dicom.facts import facts_of_file
from bridge.errors import ConfigurationError
from bridge.model import Facts, RuleAction
from bridge.rules import Choice, Step, attributes_of, choose, parse_rules, steps_to
from tests.dicom_samples import file_bytes, small_ct_dataset

RULES = parse_rules(
    """
# mammography stays as it is
[[rule]]
sop_class = "DigitalMammographyXRayImageStorageForPresentation"
action = "forward"

[[rule]]
syntax = ["JPEG2000Lossless", "1.2.840.10008.1.2.4.9?"]
modality = ["CT", "MR"]
action = "transcode"
to = "RLELossless"

[[rule]]
remote_aet = "TEST*"
action = "skip"
"""
)
NATIVE = "1.2.840.10008.1.2.1"
RLE = "1.2.840.10008.1.2.5"
J2K = "1.2.840.10008.1.2.4.90"
MAMMO = "1.2.840.10008.5.1.4.1.1.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
KNOWN = {"sop_class": CT, "syntax": J2K, "modality": "CT", "remote_aet": "", "called_aet": ""}
BY_ATTRIBUTE = parse_rules(
    """
[[rule]]
StationName = ["MR*", "CT-2"]
"(0019,1010)" = "special"
action = "forward"

[[rule]]
larger_than = "2 MB"
smaller_than = 5000000
action = "skip"

[[rule]]
remote_ip = "10.1.*"
"0008 0008" = "MPR"
action = "transcode"
to = "RLELossless"
"""
)
COMPLETE = {
    "00081010": "", "00191010": "", "00080008": "", "bytes": "100", "remote_ip": ""
}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (KNOWN | {"sop_class": MAMMO}, Choice(RuleAction.FORWARD, NATIVE, 3)),
        (KNOWN, Choice(RuleAction.TRANSCODE, RLE, 7)),
        (KNOWN | {"modality": "US"}, Choice(RuleAction.TRANSCODE, NATIVE)),
        (KNOWN | {"syntax": RLE, "remote_aet": "TEST1"}, Choice(RuleAction.SKIP, NATIVE, 13)),
        # The first one that matches decides.
        (KNOWN | {"remote_aet": "TEST1"}, Choice(RuleAction.TRANSCODE, RLE, 7)),
        # What is not known must not be guessed: only the file can tell.
        ({"sop_class": CT, "syntax": J2K, "remote_aet": ""}, None),
        ({"syntax": J2K, "modality": "CT", "remote_aet": ""}, None),
        # A fact that is not needed any more does not hold up the decision.
        ({"sop_class": MAMMO}, Choice(RuleAction.FORWARD, NATIVE, 3)),
        ({"sop_class": CT, "syntax": RLE, "remote_aet": ""}, Choice(RuleAction.TRANSCODE, NATIVE)),
    ],
)
def test_choose(facts: Facts, expected: Choice | None) -> None:
    assert choose(RULES, facts, default_to=NATIVE) == expected


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"00081010": "MR-7", "00191010": "special"}, 2),
        ({"00081010": "CT-2", "00191010": "special"}, 2),
        ({"00081010": "CT-22", "00191010": "special"}, 0),
        ({"00081010": "MR-7"}, 0),
        # One of several values must match.
        ({"remote_ip": "10.1.2.3", "00080008": "DERIVED\\MPR"}, 12),
        ({"remote_ip": "10.1.2.3", "00080008": "DERIVED\\MPRX"}, 0),
        ({"remote_ip": "10.11.2.3", "00080008": "MPR"}, 0),
        # Sizes: neither limit itself.
        ({"bytes": "2000000"}, 0),
        ({"bytes": "2000001"}, 7),
        ({"bytes": "4999999"}, 7),
        ({"bytes": "5000000"}, 0),
    ],
)
def test_attributes_sizes_and_addresses(changed: dict[str, str], line: int) -> None:
    chosen = choose(BY_ATTRIBUTE, COMPLETE | changed, default_to=NATIVE)
    assert chosen is not None
    assert chosen.line == line


@pytest.mark.parametrize("missing", ["00081010", "bytes", "00080008"])
def test_what_is_not_known_of_attributes_is_not_guessed(missing: str) -> None:
    facts = COMPLETE | {"00191010": "special", "remote_ip": "10.1.2.3"}
    del facts[missing]
    assert choose(BY_ATTRIBUTE, facts, default_to=NATIVE) is None


def test_which_attributes_are_read_from_files() -> None:
    assert attributes_of(RULES) == set()
    assert attributes_of(BY_ATTRIBUTE) == {0x00081010, 0x00191010, 0x00080008}


def test_it_is_told_why_a_rule_does_not_decide() -> None:
    """By the conditions, without a value of the instance."""
    facts = COMPLETE | {"00191010": "secret", "remote_ip": "10.1.2.3", "00080008": "A\\MPR"}
    assert steps_to(BY_ATTRIBUTE, facts) == (
        Step(2, 'StationName = "MR*" or "CT-2"'),
        Step(7, "larger_than = 2000000 and smaller_than = 5000000"),
        Step(12, ""),
    )
    facts |= {"00081010": "MR-7", "bytes": "3000000"}
    assert steps_to(BY_ATTRIBUTE, facts) == (Step(2, '(0019,1010) = "special"'), Step(7, ""))
    assert steps_to(BY_ATTRIBUTE, COMPLETE)[-1] == Step(12, 'remote_ip = "10.1.*"')
    assert steps_to((), COMPLETE) == ()


def test_without_rules_everything_is_transcoded() -> None:
    assert choose((), {}, default_to=NATIVE) == Choice(RuleAction.TRANSCODE, NATIVE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it has no [[rule]]"),
        ("[rule]\naction = 'skip'", "it has no [[rule]]"),
        ("[[rule]\n", "line 1"),
        ("[[other]]\na = 1", "'other'"),
        ("rule = [{action = 'skip'}]", "[[rule]] on a line of its own"),
        ("\n[[rule]]\nmodality = 'CT'", "line 2: action must be one of transcode, forward, skip"),
        ("[[rule]]\naction = 'drop'", "line 1: action must be one of"),
        ("[[rule]]\naction = 'skip'\nmodalty = 'CT'", "line 1: 'modalty' is not one of"),
        ("[[rule]]\naction = 'skip'\nmodality = []", "modality must be a text or a list"),
        ("[[rule]]\naction = 'skip'\nmodality = 3", "modality must be a text or a list"),
        ("[[rule]]\naction = 'skip'\nsyntax = 'JPEG3000'", "keyword of a Transfer Syntax"),
        ("[[rule]]\naction = 'skip'\nsop_class = 'JPEG2000'", "keyword of a SOP Class"),
        ("[[rule]]\naction = 'skip'\nto = 'RLELossless'", '"to" goes with'),
        ("[[rule]]\naction = 'skip'\nReferencedStudySequence = 'x'", "line 1: Ref"),
        ("[[rule]]\naction = 'skip'\n'(0008,1110)' = 'x'", "is a sequence"),
        ("[[rule]]\naction = 'skip'\nPixelData = 'x'", "up to the pixel data"),
        ("[[rule]]\naction = 'skip'\nTransferSyntaxUID = 'x'", "look at the data set"),
        ("[[rule]]\naction = 'skip'\nRedPaletteColorLookupTableData = 'x'", "neither text nor"),
        ("[[rule]]\naction = 'skip'\nSmallestImagePixelValue = '1'", "neither text nor number"),
        ("[[rule]]\naction = 'skip'\nStationName = ''", "StationName must be a text"),
        ("[[rule]]\naction = 'skip'\nRows = 512", "Rows must be a text"),
        ("[[rule]]\naction = 'skip'\nlarger_than = 'much'", 'a size such as "100 MB"'),
        ("[[rule]]\naction = 'skip'\nlarger_than = true", 'a size such as "100 MB"'),
        ("[[rule]]\naction = 'skip'\nsmaller_than = -1", "smaller_than must be a size"),
        ("[[rule]]\naction = 'transcode'\nto = 'JPEGBaseline8Bit'", "line 1: to:"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_rules(text)
    assert said in str(caught.value)
    assert "BRIDGE_RULES_FILE" in str(caught.value)


def test_the_second_rule_is_named_by_its_own_line() -> None:
    text = "[[rule]]\naction = 'skip'\n\n  [[ rule ]]  # here\naction = 'no'\n"
    with pytest.raises(ConfigurationError, match="line 4"):
        parse_rules(text)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2", NATIVE, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"],
)
def test_facts_of_a_file_in_every_encoding(syntax: str) -> None:
    dataset = small_ct_dataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    facts = facts_of_file(memoryview(file_bytes(dataset)))
    assert facts == {"syntax": syntax, "sop_class": CT, "modality": "CT"}


def test_what_a_file_does_not_have_is_known_to_be_empty() -> None:
    dataset = small_ct_dataset()
    del dataset.Modality
    assert facts_of_file(memoryview(file_bytes(dataset)))["modality"] == ""

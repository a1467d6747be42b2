from __future__ import annotations

import pytest
from pydicom.uid import UID

from bridge.core.errors import ConfigurationError
from bridge.core.rules import (
    Choice,
    Facts,
    RuleAction,
    choose,
    facts_of_file,
    parse_rules,
)
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

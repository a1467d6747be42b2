"""What becomes of an instance, as a table; and that nothing decides it but decision.py."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from bridge.checks.ask_both_servers import inspector
from bridge.checks.expected import expected_handling
from bridge.decision import (
    FORWARDABLE,
    Handling,
    Treatment,
    handling_of,
    handling_of_file,
    is_forwarded,
    syntax_is_right,
)
from bridge.dicom.facts import HEAD_BYTES, facts_of_file
from bridge.dicom.file_meta import read_file_meta
from bridge.errors import InstanceError
from bridge.model import (
    Action,
    AnswerKind,
    Delivered,
    Endpoint,
    Facts,
    InstanceFailed,
    Job,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    Skipped,
    answer_of,
)
from bridge.rules import parse_rules
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.fake_orthanc import FakeOrthanc, Respond
from tests.parsed import parsed
from tests.transfer_world import VIDEO, World, encapsulated, rle

NATIVE, RLE, J2K = str(ExplicitVRLittleEndian), str(RLELossless), str(JPEG2000Lossless)
ARITHMETIC = "1.2.840.10008.1.2.4.52"
JPEG, MPEG2, STRANGE = str(JPEGBaseline8Bit), str(MPEG2MPML), "1.2.3.4"
SKIP = "[[rule]]\nremote_aet = 'TEST'\naction = 'skip'"
FORWARD = "[[rule]]\nremote_aet = 'TEST'\naction = 'forward'"
TO_RLE = "[[rule]]\nremote_aet = 'TEST'\naction = 'transcode'\nto = 'RLELossless'"
BY_MODALITY = "[[rule]]\nmodality = 'CT'\naction = 'skip'"
BY_SYNTAX = "[[rule]]\nsyntax = 'JPEG2000Lossless'\naction = 'forward'"


def a_job(rules: str = "", **changes: Any) -> Job:
    return Job(
        Endpoint(SideName.SOURCE, "http://source.invalid"),
        Endpoint(SideName.TARGET, "http://target.invalid"),
        **{"wanted_syntax": NATIVE, "rules": parse_rules(rules) if rules else (), **changes},
    )


UNCHANGED, TRANSCODE = Treatment.UNCHANGED, Treatment.TRANSCODE
PARK_ALL = {"on_video": "park", "on_undecodable": "park"}
FORWARD_ALL = {"on_video": "forward", "on_undecodable": "forward"}

TABLE = [
    # rules, settings, syntax -> treatment, syntax at the target, why
    ("", {}, NATIVE, (UNCHANGED, NATIVE, "")),
    ("", {}, RLE, (TRANSCODE, NATIVE, "")),
    ("", {}, JPEG, (TRANSCODE, NATIVE, "")),
    ("", {"wanted_syntax": RLE}, NATIVE, (TRANSCODE, RLE, "")),
    ("", {"wanted_syntax": RLE}, RLE, (UNCHANGED, RLE, "")),
    ("", PARK_ALL, MPEG2, (Treatment.PARK, "", "video")),
    ("", FORWARD_ALL, MPEG2, (Treatment.FORWARD, MPEG2, "video")),
    ("", {"on_video": "park", "on_undecodable": "forward"}, MPEG2,
     (Treatment.PARK, "", "video")),
    ("", PARK_ALL, STRANGE, (Treatment.PARK, "", "unsupported_syntax")),
    ("", FORWARD_ALL, STRANGE, (Treatment.FORWARD, STRANGE, "unsupported_syntax")),
    ("", {"on_video": "forward", "on_undecodable": "park"}, STRANGE,
     (Treatment.PARK, "", "unsupported_syntax")),
    (SKIP, {}, RLE, (Treatment.SKIP, "", "rule at line 1")),
    (SKIP, PARK_ALL, MPEG2, (Treatment.SKIP, "", "rule at line 1")),
    (FORWARD, {}, RLE, (Treatment.FORWARD, RLE, "rule at line 1")),
    (FORWARD, {}, NATIVE, (Treatment.FORWARD, NATIVE, "rule at line 1")),
    (FORWARD, PARK_ALL, MPEG2, (Treatment.FORWARD, MPEG2, "rule at line 1")),
    (FORWARD, PARK_ALL, STRANGE, (Treatment.FORWARD, STRANGE, "rule at line 1")),
    (TO_RLE, {}, NATIVE, (TRANSCODE, RLE, "rule at line 1")),
    (TO_RLE, {}, RLE, (UNCHANGED, RLE, "rule at line 1")),
    (TO_RLE, PARK_ALL, MPEG2, (Treatment.PARK, "", "video")),
    (TO_RLE, FORWARD_ALL, MPEG2, (Treatment.FORWARD, MPEG2, "video")),
    (TO_RLE, PARK_ALL, STRANGE, (Treatment.PARK, "", "unsupported_syntax")),
    (BY_SYNTAX, {}, J2K, (Treatment.FORWARD, J2K, "rule at line 1")),
    (BY_SYNTAX, {}, RLE, (TRANSCODE, NATIVE, "")),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "settings", "syntax", "expected"), TABLE)
def test_what_becomes_of_an_instance(
    rules: str, settings: dict[str, str], syntax: str, expected: tuple[Treatment, str, str]
) -> None:
    job = a_job(rules, **settings)
    facts = {"syntax": syntax, "sop_class": "", "remote_aet": "TEST", "called_aet": ""}
    found = handling_of(job, facts)
    assert found is not None
    assert (found.treatment, found.target_syntax, found.why) == expected
    assert found.source_syntax == syntax
    # Whether Orthanc's metadata told it or the file does.
    assert found == handling_of(job, facts, file_syntax=syntax)
    assert found == handling_of_file(job, facts, file_syntax=syntax)


@pytest.mark.parametrize(
    ("rules", "facts", "is_known"),
    [
        ("", {}, False),
        ("", {"syntax": RLE}, True),
        (SKIP, {"remote_aet": "TEST"}, True),  # of what is skipped nothing else matters
        (SKIP, {"remote_aet": ""}, False),
        (FORWARD, {"remote_aet": "TEST"}, False),  # it is told in which syntax
        (FORWARD, {"remote_aet": "TEST", "syntax": RLE}, True),
        (BY_MODALITY, {"syntax": RLE}, False),
        (BY_MODALITY, {"syntax": RLE, "modality": "MR"}, True),
        (BY_SYNTAX, {"modality": "MR"}, False),
    ],
)
def test_what_is_not_known_is_not_guessed(rules: str, facts: Facts, is_known: bool) -> None:
    assert (handling_of(a_job(rules), facts) is not None) == is_known


def test_what_the_file_does_not_have_matches_no_rule() -> None:
    found = handling_of_file(a_job(BY_MODALITY), {}, file_syntax=RLE)
    assert found == Handling(Treatment.TRANSCODE, RLE, NATIVE)


def test_the_file_counts_more_than_the_metadata() -> None:
    found = handling_of(a_job(), {"syntax": NATIVE}, file_syntax=RLE)
    assert found == Handling(Treatment.TRANSCODE, RLE, NATIVE)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("on_video", ["park", "forward"])
@pytest.mark.parametrize("on_undecodable", ["park", "forward"])
def test_what_follows_when_it_cannot_be_transcoded(
    reason: Reason, on_video: str, on_undecodable: str
) -> None:
    """What was found in the stream; what is about a server or a person's rule is never sent on."""
    job = a_job(on_video=on_video, on_undecodable=on_undecodable)
    pixels = {
        Reason.UNDECODABLE, Reason.UNSUPPORTED_SYNTAX, Reason.WRONG_SYNTAX_LABEL,
        Reason.VERIFICATION_FAILED,
    }  # fmt: skip
    expected = (reason is Reason.VIDEO and on_video == "forward") or (
        reason in pixels and on_undecodable == "forward"
    )
    assert is_forwarded(job, reason) == expected
    assert set(FORWARDABLE) == pixels


@pytest.mark.parametrize(
    ("wanted", "settings", "source_and_target", "has_pixels", "right"),
    [
        (NATIVE, PARK_ALL, (RLE, NATIVE), True, True),
        (NATIVE, PARK_ALL, (RLE, RLE), True, False),
        (NATIVE, FORWARD_ALL, (RLE, RLE), True, True),  # it may not have been decodable
        (NATIVE, FORWARD_ALL, (RLE, J2K), True, False),
        (RLE, PARK_ALL, (J2K, NATIVE), False, True),
        (RLE, PARK_ALL, (J2K, NATIVE), True, False),
        (NATIVE, PARK_ALL, (MPEG2, MPEG2), True, False),
        (NATIVE, FORWARD_ALL, (MPEG2, MPEG2), True, True),
        (NATIVE, FORWARD_ALL, (MPEG2, NATIVE), True, False),
    ],
)
def test_which_syntaxes_are_right_at_the_target(
    wanted: str,
    settings: dict[str, str],
    source_and_target: tuple[str, str],
    has_pixels: bool,
    right: bool,
) -> None:
    source, found = source_and_target
    job = a_job(wanted_syntax=wanted, **settings)
    handling = handling_of(job, {"syntax": source})
    assert handling is not None
    assert syntax_is_right(handling, found, job, has_pixels=has_pixels) == right


# The worker and those who tell beforehand what it will do.

TREATMENTS = {
    Action.UNCHANGED: Treatment.UNCHANGED,
    Action.TRANSCODED: Treatment.TRANSCODE,
    Action.RELABELLED: Treatment.TRANSCODE,
    Action.FORWARDED: Treatment.FORWARD,
}


def _of(outcome: Outcome) -> tuple[Treatment, str]:
    match outcome:
        case Delivered(action=action, target_syntax=syntax):
            return TREATMENTS[action], syntax
        case Skipped(reason=Reason.RULE):
            return Treatment.SKIP, ""
        case InstanceFailed(reason=reason):
            return Treatment.PARK, str(reason)
        case _:
            raise AssertionError(outcome)


BY_ATTRIBUTE = "[[rule]]\nImageComments = ['far', 'near']\naction = 'forward'"
BY_SIZE = "[[rule]]\nlarger_than = '500 kB'\nsmaller_than = '900 MB'\naction = 'skip'"
ALL_RULES = ("", SKIP, FORWARD, TO_RLE, BY_MODALITY, BY_SYNTAX, BY_ATTRIBUTE, BY_SIZE)


def _far() -> bytes:
    """Return a file in which what a rule asks for lies behind the head that is read first."""
    dataset = small_ct_dataset()
    dataset.add_new(0x00091001, "OB", bytes(3 * HEAD_BYTES))
    dataset.ImageComments = "far"
    return file_bytes(dataset)


SAMPLES = {
    "native": small_ct(),
    "far": _far(),
    "rle": rle(),
    "video": VIDEO,
    "unsupported": encapsulated(ARITHMETIC, b"?"),
}


@pytest.mark.parametrize("settings", [PARK_ALL, FORWARD_ALL], ids=["park", "forward"])
@pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)
def test_what_is_told_beforehand_is_what_the_worker_does(
    data: bytes, settings: dict[str, str], fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    instance_id = world.source.put(data)
    for rules in ALL_RULES:
        # A rule for what has no application entity is one for these: they came by REST.
        parsed = parse_rules(rules.replace("'TEST'", "'*'")) if rules else ()
        changes: dict[str, Any] = {"rules": parsed, **settings}
        job = replace(world.job, **changes)
        with inspector(job.source) as client:
            told = expected_handling(client, instance_id, job)
        done = _of(world.move(instance_id, **changes))
        parked = told.treatment is Treatment.PARK
        assert done == (told.treatment, told.why if parked else told.target_syntax), rules
        world.target.store.instances.clear()


@pytest.mark.parametrize("rules", ["", FORWARD, TO_RLE])
@pytest.mark.parametrize("settings", [PARK_ALL, FORWARD_ALL], ids=["park", "forward"])
def test_what_is_told_of_a_damaged_file_is_what_the_worker_does(
    rules: str, settings: dict[str, str], fake_orthanc: Callable[..., FakeOrthanc]
) -> None:
    """Orthanc does not tell the syntax, and no rule needs more than the file meta information."""
    world = World(fake_orthanc(), fake_orthanc())
    data = bytearray(VIDEO)
    instance_id = world.source.put(bytes(data))
    place = read_file_meta(memoryview(data)).dataset_offset + 4
    data[place : place + 4] = b"\1\2\xff\xff"  # no value representation, and a length beyond all
    stored = world.source.store.instances[instance_id]
    world.source.store.instances[instance_id] = replace(stored, data=bytes(data))
    world.source.script(r"GET /instances/[^/]+/metadata", Respond(200, b"{}"))
    answer = json.dumps({"ID": instance_id, "Status": "Success"}).encode()
    world.target.script("POST /instances", Respond(200, answer))
    parsed = parse_rules(rules.replace("'TEST'", "'*'")) if rules else ()
    changes: dict[str, Any] = {"rules": parsed, **settings}
    job = replace(world.job, **changes)
    with pytest.raises(InstanceError):
        facts_of_file(memoryview(data))
    with inspector(job.source) as client:
        told = expected_handling(client, instance_id, job)
    parked = told.treatment is Treatment.PARK
    done = _of(world.move(instance_id, **changes))
    assert done == (told.treatment, told.why if parked else told.target_syntax)


def test_what_is_skipped_by_its_metadata_is_not_fetched(
    fake_orthanc: Callable[..., FakeOrthanc],
) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    instance_id = world.source.put(small_ct())
    outcome = world.move(instance_id, rules=parse_rules(SKIP.replace("'TEST'", "'*'")))
    assert outcome == Skipped(Reason.RULE, "by the rule at line 1", NATIVE, file_read=False)
    assert [one for one in world.source.requests if "/metadata" in one]
    assert not [one for one in world.source.requests if "/file" in one]


def test_metadata_that_are_not_there_are_trouble_of_the_source_until_others_have_them(
    fake_orthanc: Callable[..., FakeOrthanc],
) -> None:
    """A proxy may hide the route: with all of it, or with one instance, only others can tell."""
    world = World(fake_orthanc(), fake_orthanc())
    instance_id = world.source.put(small_ct())
    world.source.script(r"GET /instances/[^/]+/metadata", Respond(404))
    failed = world.move(instance_id, rules=parse_rules(BY_MODALITY))
    assert isinstance(failed, SideFailed)
    assert (failed.side, answer_of(failed)) == (SideName.SOURCE, AnswerKind.ERROR)
    assert "gives no metadata" in failed.message
    assert "/metadata" in failed.advice
    world.source.store.instances.clear()
    gone = world.move(instance_id, rules=parse_rules(BY_MODALITY))
    assert isinstance(gone, Skipped)
    assert gone.reason is Reason.GONE


def test_what_is_skipped_by_its_file_says_that_the_source_gave_it(
    fake_orthanc: Callable[..., FakeOrthanc],
) -> None:
    world = World(fake_orthanc(), fake_orthanc())
    instance_id = world.source.put(small_ct())
    outcome = world.move(instance_id, rules=parse_rules(BY_MODALITY))
    assert [one for one in world.source.requests if "/file" in one]
    assert outcome == Skipped(Reason.RULE, "by the rule at line 1", NATIVE, file_read=True)


BRIDGE = Path(__file__).resolve().parents[2] / "bridge"
DECIDING = {"choose", "on_video", "on_undecodable", "FORWARDABLE"}
"""What a decision is made of: whoever reads one of these decides, and is decision.py."""
MAY = {
    ("config.py", "on_video"),  # the settings, which become the job
    ("config.py", "on_undecodable"),
    ("rules.py", "choose"),  # defines it
    ("model.py", "on_video"),
    ("model.py", "on_undecodable"),
}


@pytest.mark.slow
def test_one_file_decides() -> None:
    used = set()
    for file, node in parsed(BRIDGE, DECIDING):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
                used.add((file, name))
            case ast.FunctionDef(name=name):
                used.add((file, name))
            case _:
                pass
    deciding = {(file, name) for file, name in used if name in DECIDING}
    assert deciding - MAY == {("decision.py", name) for name in DECIDING}


def _imported(file: str) -> set[str]:
    tree = ast.parse((BRIDGE / file).read_text("utf-8"))
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in EXPECTED_FROM
        for alias in node.names
    }


EXPECTED_FROM = {"bridge.decision", "bridge.checks.expected"}


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("worker/transfer.py", {"handling_of", "handling_of_file", "is_forwarded"}),
        ("checks/expected.py", {"handling_of", "handling_of_file"}),
        ("checks/plan.py", {"expected_handling"}),
        ("checks/dry_run.py", {"expected_handling"}),
        ("checks/compare.py", {"expected_handling", "syntax_is_right"}),
    ],
)
def test_everybody_asks_it(file: str, names: set[str]) -> None:
    assert names <= _imported(file)

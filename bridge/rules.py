"""Rules: which instances are transcoded to what, forwarded as they are, or skipped.

This file must not know: sockets, files, clocks, logging, settings.

The first rule that matches decides. A fact may be unknown: Orthanc does not keep every syntax or
modality as metadata. Then no rule is chosen, and the caller asks again with the facts of the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.dicom.syntaxes import SYNTAXES, target_syntax_uid
from bridge.errors import ConfigurationError
from bridge.model import FIELDS, SIZE_FACT, Facts, Rule, RuleAction, attribute_name


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be done with an instance. ``line`` is that of the rule, 0 without one."""

    action: RuleAction
    to: str
    line: int = 0


def choose(rules: Iterable[Rule], facts: Facts, *, default_to: str) -> Choice | None:
    """Apply the first rule that matches; None when a fact is needed that is not known."""
    for rule in rules:
        applies = rule.matches(facts)
        if applies is None:
            return None
        if applies:
            return Choice(rule.action, rule.to or default_to, rule.line)
    return Choice(RuleAction.TRANSCODE, default_to)


METADATA = {
    "syntax": "TransferSyntax",
    "sop_class": "SopClassUid",
    "remote_aet": "RemoteAET",
    "called_aet": "CalledAET",
    "remote_ip": "RemoteIP",
}
"""Which of Orthanc's metadata tells which fact."""


def facts_of_metadata(known: Mapping[str, str]) -> dict[str, str]:
    """Take the facts out of Orthanc's metadata.

    Orthanc keeps who sent an instance. Where it has none of that, no other place has it either, so
    it counts as known and is "".
    """
    facts = {field: known[name] for field, name in METADATA.items() if name in known}
    return {"remote_aet": "", "called_aet": "", "remote_ip": "", **facts}


def attributes_of(rules: Iterable[Rule]) -> frozenset[int]:
    """Return the tags of all attributes that rules look at."""
    names = (name for rule in rules for name, _ in rule.conditions if name not in FIELDS)
    return frozenset(int(name, 16) for name in names)


@dataclass(frozen=True, slots=True)
class Step:
    """One rule, as it was asked: ``failed`` is what of it does not hold, "" where it decides."""

    line: int
    failed: str


def steps_to(rules: Iterable[Rule], facts: Facts) -> tuple[Step, ...]:
    """Tell why each rule does not decide, up to the one that does. ``facts`` must be complete.

    The conditions are told as the rules file has them, and no value of the instance.
    """
    steps: list[Step] = []
    for rule in rules:
        failed = rule.first_not_held(facts)
        if failed is None:
            return (*steps, Step(rule.line, ""))
        steps.append(Step(rule.line, _told(rule, *failed)))
    return tuple(steps)


def _told(rule: Rule, name: str, patterns: tuple[str, ...]) -> str:
    if name == SIZE_FACT:
        limits = {SIZES[0]: rule.larger_than_bytes, SIZES[1]: rule.smaller_than_bytes}
        return " and ".join(f"{key} = {size}" for key, size in limits.items() if size is not None)
    values = " or ".join(f'"{pattern}"' for pattern in patterns)
    return f"{name if name in FIELDS else shown_attribute(int(name, 16))} = {values}"


def shown_attribute(tag: int) -> str:
    """Name an attribute for people: by its keyword, or by its tag where it has none."""
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


SIZES = ("larger_than", "smaller_than")
_SIZE = re.compile(r"(\d{1,12}) ?(kB|MB|GB|)")
_UNITS = {"": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),? ?([0-9A-Fa-f]{4})\)?")
PIXEL_DATA_GROUP = 0x7FE0


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Read a rules file (TOML, one ``[[rule]]`` table for each rule).

    Raises ConfigurationError that names the line and says what is wrong with it.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise _wrong(f"it is not TOML: {exc}") from exc
    unknown = [name for name in document if name != "rule"]
    if unknown:
        raise _wrong(f"only [[rule]] tables are allowed, not {unknown[0]!r}")
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not tables:
        raise _wrong("it has no [[rule]]")
    lines = _lines_of_rules(text)
    if len(lines) != len(tables):
        raise _wrong("write each rule as a table that begins with [[rule]] on a line of its own")
    return tuple(_rule(table, line) for table, line in zip(tables, lines, strict=True))


def _lines_of_rules(text: str) -> list[int]:
    return [
        number
        for number, line in enumerate(text.splitlines(), start=1)
        if line.split("#")[0].replace(" ", "").strip() == "[[rule]]"
    ]


def _rule(table: Mapping[str, object], line: int) -> Rule:
    known = (*FIELDS, *SIZES, "action", "to", "priority")
    attributes = {name: _attribute(name, line) for name in table if name not in known}
    action_name = table.get("action")
    try:
        action = RuleAction(str(action_name))
    except ValueError:
        wanted = ", ".join(RuleAction)
        raise _wrong(f"action must be one of {wanted}, not {action_name!r}", line) from None
    to = table.get("to", "")
    if to and action is not RuleAction.TRANSCODE:
        raise _wrong(f'"to" goes with action = "transcode", not with {action.value!r}', line)
    try:
        to_uid = target_syntax_uid(str(to)) if to else ""
    except ValueError as exc:
        raise _wrong(f"to: {exc}", line) from None
    facts = {field: field for field in FIELDS if field in table} | attributes
    conditions = tuple((fact, _patterns(name, table[name], line)) for name, fact in facts.items())
    larger, smaller = (_bytes(name, table.get(name), line) for name in SIZES)
    rule = Rule(line, action, to_uid, conditions, larger, smaller, "priority" in table)
    if rule.urgent:
        _check_priority(rule, table["priority"])
    return rule


def _check_priority(rule: Rule, value: object) -> None:
    """Refuse a priority that cannot be told before the file is read. Raises ConfigurationError."""
    if value != "urgent":
        raise _wrong(f'priority must be "urgent", not {value!r}', rule.line)
    if rule.action is RuleAction.SKIP:
        raise _wrong("a rule that skips cannot be urgent", rule.line)
    late = [name for name, _ in rule.conditions if name not in METADATA]
    if late or rule.looks_at_size:
        raise _wrong(
            "a rule with priority can have only these conditions, because it decides before the "
            f"file is read: {', '.join(METADATA)}",
            rule.line,
        )


def is_urgent(rules: Iterable[Rule], facts: Facts) -> bool:
    """Tell from Orthanc's metadata whether an instance goes before others.

    A rule before that may decide, and cannot until the file is read, is passed over.
    """
    return next((rule.urgent for rule in rules if rule.matches(facts)), False)


def _attribute(name: str, line: int) -> str:
    """Return the fact of an attribute, by its keyword or tag. Raises ConfigurationError."""
    # Only here: a bridge without such rules starts faster.
    from pydicom.datadict import tag_for_keyword

    from bridge.dicom.facts import NOT_LOOKED_AT
    from bridge.dicom.vrs import public_vr

    written = _TAG.fullmatch(name)
    tag = int(written[1] + written[2], 16) if written else tag_for_keyword(name)
    if tag is None:
        known = ", ".join((*FIELDS, *SIZES, "action", "to", "priority"))
        raise _wrong(
            f"{name!r} is not one of {known}, nor the keyword or the tag of an attribute", line
        )
    group = tag >> 16
    if group < 0x0008 or group >= PIXEL_DATA_GROUP:
        raise _wrong(f"{name}: rules look at the data set, up to the pixel data", line)
    vr = public_vr(tag)
    if group & 1 == 0 and (vr in NOT_LOOKED_AT or " " in vr):
        what = "a sequence" if vr == "SQ" else "neither text nor number"
        raise _wrong(f"{name} is {what}: rules cannot look into it", line)
    return attribute_name(tag)


def _bytes(name: str, value: object, line: int) -> int | None:
    if value is None:
        return None
    found = _SIZE.fullmatch(str(value))
    if isinstance(value, bool) or not isinstance(value, int | str) or not found:
        raise _wrong(f'{name} must be a size such as "100 MB" (kB, MB, GB) or bytes', line)
    return int(found[1]) * _UNITS[found[2]]


def _patterns(field: str, value: object, line: int) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str) and one for one in values):
        raise _wrong(f"{field} must be a text or a list of texts", line)
    texts = [str(one) for one in values]
    if field not in ("syntax", "sop_class"):
        return tuple(texts)
    return tuple(_uid(field, text, line) for text in texts)


def _uid(field: str, text: str, line: int) -> str:
    """A UID or a pattern as it is; a keyword of the registry (PS3.6 Table A-1) as its UID."""
    if all(character in "0123456789.*?" for character in text):
        return text
    kind = "Transfer Syntax" if field == "syntax" else "SOP Class"
    for uid, syntax in SYNTAXES.items():
        if field == "syntax" and syntax.keyword == text:
            return uid
    # Only here: a bridge without rules that name keywords starts faster.
    from pydicom import uid as registry

    named = getattr(registry, text, None)
    if isinstance(named, registry.UID) and named.type == kind:
        return str(named)
    raise _wrong(f"{text!r} is not the keyword of a {kind}", line)


def _wrong(what: str, line: int | None = None) -> ConfigurationError:
    place = "" if line is None else f", rule at line {line}"
    return ConfigurationError(
        f"BRIDGE_RULES_FILE{place}: {what}.", advice="Examples: orthanc-bridge docs rules."
    )

"""Rules: which instances are transcoded to what, forwarded as they are, or skipped.

This file must not know: sockets, files, clocks, logging, settings.

The first rule that matches decides. A fact may be unknown (Orthanc does not keep every syntax
or modality as metadata): then a rule neither matches nor fails, and the decision waits for a
better source of facts, the file itself.
"""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from bridge.core.elements import UNDEFINED, Reader
from bridge.core.errors import ConfigurationError
from bridge.core.file_meta import read_file_meta
from bridge.core.syntaxes import SYNTAXES, target_syntax_uid

SOP_CLASS = 0x00080016
MODALITY = 0x00080060
HEAD_BYTES = 256 * 1024


class RuleAction(StrEnum):
    """What a rule does with an instance."""

    TRANSCODE = "transcode"
    FORWARD = "forward"
    SKIP = "skip"


FIELDS = ("syntax", "sop_class", "modality", "remote_aet", "called_aet")
"""What a rule can look at."""

Facts = Mapping[str, str]
"""What is known of an instance, by field. A field that is missing is not known."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: every condition must hold; ``to`` is a syntax UID where the action has one.

    ``conditions``: field and the patterns of which one must match (``*`` and ``?`` allowed).
    """

    line: int
    action: RuleAction
    to: str
    conditions: tuple[tuple[str, tuple[str, ...]], ...]

    def matches(self, facts: Facts) -> bool | None:
        """Whether the rule applies; None when that depends on a fact that is not known."""
        unknown = False
        for field, patterns in self.conditions:
            if field not in facts:
                unknown = True
            elif not any(fnmatchcase(facts[field], pattern) for pattern in patterns):
                return False
        return None if unknown else True


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
}
"""Which of Orthanc's metadata tells which fact."""


def facts_of_metadata(known: Mapping[str, str]) -> dict[str, str]:
    """Take the facts out of Orthanc's metadata.

    Orthanc has the application entities of what came by DICOM; where it has none, nothing else
    will ever tell, so they are known to be "".
    """
    facts = {field: known[name] for field, name in METADATA.items() if name in known}
    return {"remote_aet": "", "called_aet": "", **facts}


def facts_of_file(data: memoryview) -> dict[str, str]:
    """Read the facts that a file itself tells: syntax, SOP class, modality.

    What the file does not have is "", so that a rule about it does not match.
    Raises InstanceError when the file cannot be read that far.
    """
    meta = read_file_meta(data)
    facts = {"syntax": meta.syntax, "sop_class": "", "modality": ""}
    syntax = SYNTAXES.get(meta.syntax)
    dataset = data[meta.dataset_offset :]
    if syntax is not None and syntax.deflated:
        engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            dataset = memoryview(engine.decompress(bytes(dataset[:HEAD_BYTES]), HEAD_BYTES))
        except zlib.error:
            return facts
    reader = Reader(
        dataset,
        implicit=syntax is not None and syntax.implicit,
        big_endian=syntax is not None and syntax.big_endian,
    )
    names = {SOP_CLASS: "sop_class", MODALITY: "modality"}
    pos = 0
    while len(dataset) - pos >= 8:
        tag, vr, value, length = reader.header(pos, len(dataset))
        if tag > MODALITY:
            break
        if length == UNDEFINED:
            _, pos = reader.skip_undefined(tag, vr, value, len(dataset), 1)
            continue
        if tag in names:
            raw = bytes(dataset[value : value + min(length, 64)])
            facts[names[tag]] = raw.strip(b"\0 ").decode("ascii", "replace")
        pos = value + length
    return facts


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
        raise _wrong(f"it knows [[rule]] tables only, not {unknown[0]!r}")
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
    known = (*FIELDS, "action", "to")
    for name in table:
        if name not in known:
            raise _wrong(f"{name!r} is not one of {', '.join(known)}", line)
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
    conditions = tuple(
        (field, _patterns(field, table[field], line)) for field in FIELDS if field in table
    )
    return Rule(line, action, to_uid, conditions)


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
        f"BRIDGE_RULES_FILE{place}: {what}.", advice="See docs/rules.md for examples."
    )

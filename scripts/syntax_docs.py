"""Write the tables of docs/transfer-syntaxes.md from the tables of the transcoder.

python -m scripts.syntax_docs        writes the file
tests/core/test_transcode_docs.py    calls the same functions and compares
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bridge.core.codecs import DECODERS, ENCODERS, Decoder
from bridge.core.syntaxes import OFFERED_TARGETS, SYNTAXES, Family, Kind, Syntax

PAGE = Path(__file__).resolve().parents[1] / "docs" / "transfer-syntaxes.md"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _speed(decoder: Decoder) -> str:
    return str(decoder.megabytes_s) if decoder.megabytes_s else ""


def _role(decoder: Decoder, position: int) -> str:
    if not position:
        return "decodes"
    roles = ["stands in"] * decoder.fallback + ["checks"] * decoder.checks
    return ", ".join(roles) + (" (lossless streams)" if decoder.lossless_only else "")


def _source_row(syntax: Syntax) -> tuple[str, ...]:
    if not syntax.encapsulated:
        return (syntax.keyword, f"`{syntax.uid}`", "", "none needed", "", "")
    first, *others = DECODERS[syntax.family]
    second = next((d.name for d in others if d.checks), "") if syntax.lossless else ""
    return (
        syntax.keyword,
        f"`{syntax.uid}`",
        syntax.family.value,
        first.name,
        second or ("none exists" if syntax.lossless else "lossy: none"),
        _speed(first),
    )


def sources() -> str:
    """From: every syntax that is decoded."""
    known = [s for s in SYNTAXES.values() if s.kind in (Kind.NATIVE, Kind.ENCAPSULATED)]
    head = ("source syntax", "UID", "code stream", "decoder", "second decoder", "MB/s")
    return _table(head, [_source_row(syntax) for syntax in known])


def targets() -> str:
    """To: every syntax that is offered."""
    rows = []
    for uid, syntax in OFFERED_TARGETS.items():
        encoder = ENCODERS.get(uid)
        rows.append(
            (
                f"`{syntax.keyword}`",
                f"`{uid}`",
                encoder.library if encoder else "none needed",
                encoder.limits if encoder else "pixel data to 2^32-2 bytes",
            )
        )
    return _table(("target syntax", "UID", "encoder", "limits"), rows)


def decoders() -> str:
    """The order of decoders, and why."""
    rows = [
        (
            family.value if not position else "",
            decoder.name,
            decoder.library,
            _role(decoder, position),
            decoder.why,
            _speed(decoder),
        )
        for family, table in DECODERS.items()
        if family is not Family.RAW
        for position, decoder in enumerate(table)
    ]
    return _table(("code stream", "decoder", "library", "role", "why here", "MB/s"), rows)


def refused() -> str:
    """What is never decoded: by kind, with the reason that the instance gets."""
    rows = [
        (syntax.keyword, f"`{syntax.uid}`", reason)
        for kind, reason in ((Kind.VIDEO, "video"), (Kind.UNSUPPORTED, "unsupported_syntax"))
        for syntax in SYNTAXES.values()
        if syntax.kind is kind
    ]
    return _table(("syntax", "UID", "reason"), rows)


TABLES = {"sources": sources, "targets": targets, "decoders": decoders, "refused": refused}


def filled(page: str) -> str:
    """Return ``page`` with every generated table brought up to date.

    Raises ValueError where the marks of a table are missing.
    """
    for name, render in TABLES.items():
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        before, found_begin, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"{PAGE.name} has no place for the table {name!r}")
        page = before + begin + render() + "\n" + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Write the tables of docs/reference/transfer-syntaxes.md from the tables of the transcoder.

python -m scripts.syntax_docs        writes the file
tests/unit/dicom/test_transcode_docs.py    calls the same functions and compares
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bridge.dicom.changed_elements import WHAT_CHANGES
from bridge.dicom.codecs import DECODERS, ENCODERS, Decoder, DecoderRole, StreamKind
from bridge.dicom.colour import TABLE
from bridge.dicom.syntaxes import OFFERED_TARGETS, SYNTAXES, Family, Kind, Syntax

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "transfer-syntaxes.md"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _speed(decoder: Decoder) -> str:
    return str(decoder.megabytes_s) if decoder.megabytes_s else ""


def _confirms(decoder: Decoder) -> bool:
    return decoder.role([StreamKind.PLAIN]) is not DecoderRole.NEITHER


def _source_row(syntax: Syntax) -> tuple[str, ...]:
    if not syntax.encapsulated:
        return (syntax.keyword, f"`{syntax.uid}`", "", "none needed", "", "")
    first, *others = DECODERS[syntax.family]
    second = next((d.name for d in others if _confirms(d)), "") if syntax.lossless else ""
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
    """The order of decoders."""
    rows = [
        (
            family.value if not position else "",
            decoder.name,
            decoder.library,
            decoder.role([StreamKind.PLAIN]).value,
            decoder.damage,
            _speed(decoder),
        )
        for family, table in DECODERS.items()
        if family is not Family.RAW
        for position, decoder in enumerate(table)
    ]
    head = ("code stream", "decoder", "library", "plain streams", "damaged streams", "MB/s")
    return _table(head, rows)


def kinds() -> str:
    """Every decoder with every kind of stream of its family."""
    rows = [
        (
            family.value if not number and not position else "",
            kind.value if not position else "",
            decoder.name,
            decoder.uses[kind].role.value,
            decoder.uses[kind].why,
        )
        for family, table in DECODERS.items()
        if family is not Family.RAW
        for number, kind in enumerate(table[0].uses)
        for position, decoder in enumerate(table)
    ]
    return _table(("code stream", "kind", "decoder", "role", "measured"), rows)


def changes() -> str:
    """What may change in a file."""
    rows = [(row.what, row.rule, row.standard) for row in WHAT_CHANGES]
    return _table(("element", "rule", "standard"), rows)


def colours() -> str:
    """The colour table for three samples a pixel, without its last row (everything else)."""
    rows = [
        (
            ", ".join("native" if f is Family.NONE else f.value for f in cell.families),
            ", ".join(cell.labels),
            ", ".join(said.value for said in cell.said),
            cell.written or "refused" + f" (`decode`: {cell.trusted})" * bool(cell.trusted),
            cell.why,
        )
        for cell in TABLE[:-1]
    ]
    rows.append(("all", "all others", "anything else", "refused", TABLE[-1].why))
    return _table(("code stream", "label", "the code stream says", "written", "because"), rows)


def refused() -> str:
    """What is never decoded: by kind, with the reason that the instance gets."""
    rows = [
        (syntax.keyword, f"`{syntax.uid}`", reason)
        for kind, reason in ((Kind.VIDEO, "video"), (Kind.UNSUPPORTED, "unsupported_syntax"))
        for syntax in SYNTAXES.values()
        if syntax.kind is kind
    ]
    return _table(("syntax", "UID", "reason"), rows)


TABLES = {
    "sources": sources,
    "targets": targets,
    "decoders": decoders,
    "kinds": kinds,
    "changes": changes,
    "colours": colours,
    "refused": refused,
}


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

"""docs/reference/transfer-syntaxes.md: its tables are the code's, and it names every reason."""

from __future__ import annotations

from bridge.model import Reason
from scripts.syntax_docs import PAGE, TABLES, filled


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert all(f"<!-- {name}: generated -->\n|" in page for name in TABLES)
    assert filled(page) == page, "run: python -m scripts.syntax_docs"


def test_every_reason_of_the_transcoder_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")

    for reason in (
        Reason.UNDECODABLE,
        Reason.UNSUPPORTED_SYNTAX,
        Reason.WRONG_SYNTAX_LABEL,
        Reason.NOT_DICOM,
        Reason.TOO_LARGE,
        Reason.VIDEO,
        Reason.VERIFICATION_FAILED,
    ):
        assert f"`{reason.value}`" in page

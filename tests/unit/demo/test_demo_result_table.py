"""The demo's table, its summary and its idea of success."""

from __future__ import annotations

import io
import json

import pytest

from bridge.demo.result_table import (
    DELIVERED,
    REFUSED_BY_SOURCE,
    Row,
    all_right,
    print_rows,
    print_rows_as_json,
    short_syntax,
    summary,
)
from bridge.dicom.syntaxes import EXPLICIT_LE, IMPLICIT_LE, JPEG_2000_LOSSLESS, SYNTAXES
from bridge.model import StageTimes

GOOD = Row(
    "ct", DELIVERED, JPEG_2000_LOSSLESS, 1000, EXPLICIT_LE, 2000,
    StageTimes(0.001, 0.0283, 0.005, 0.0002), True, "the original", 0, "pylibjpeg-openjpeg",
)  # fmt: skip
NO_PIXELS = Row("sr", DELIVERED, IMPLICIT_LE, 10, EXPLICIT_LE, 12)
PARKED = Row("bad", "failed: undecodable", JPEG_2000_LOSSLESS, 30)
REFUSED = Row("odd", REFUSED_BY_SOURCE, JPEG_2000_LOSSLESS, 30)
WRONG = Row(
    "wrong", DELIVERED, IMPLICIT_LE, 1, EXPLICIT_LE, 1, pixels_equal=False,
    problems=("1 of 9 samples differ, by up to 1",),
)  # fmt: skip
RELABELLED = Row(
    "uid", DELIVERED, IMPLICIT_LE, 1, EXPLICIT_LE, 1, pixels_equal=True,
    problems=("SOP Instance UID changed",),
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([GOOD, NO_PIXELS], True),
        ([GOOD, REFUSED], True),
        ([GOOD, PARKED], False),
        ([GOOD, WRONG], False),
        ([GOOD, RELABELLED], False),
        ([REFUSED], False),  # nothing was shown at all
        ([], False),
    ],
)
def test_success_is_everything_right(rows: list[Row], expected: bool) -> None:
    assert all_right(rows) is expected


def test_summary_counts() -> None:
    rows = [GOOD, NO_PIXELS, PARKED, WRONG, RELABELLED, REFUSED]
    assert summary(rows, 12.34) == (
        "5 instances in 2 transfer syntaxes, 4 delivered, 2 with equal pixels, 1 without pixels, "
        "3 wrong, 1 refused by the source and not counted; took 12.3 s"
    )


def test_plain_table_is_aligned_and_complete() -> None:
    out = io.StringIO()
    print_rows([GOOD, PARKED, WRONG], 1.0, stream=out)
    head, good, parked, wrong, problem, last = out.getvalue().splitlines()
    assert " ".join(good.split()) == (
        "ct JPEG2000Lossless ExplicitLE 1000 2000 1.0 28.3 5.0 0.2 yes the original"
    )
    assert head.index("pixels equal") == good.index("yes") == parked.index("failed: undecodable")
    assert wrong.split()[-1] == "NO"
    assert problem == "wrong: 1 of 9 samples differ, by up to 1"
    assert last.startswith("3 instances")


def test_terminal_table_has_the_same_content() -> None:
    out = Terminal()
    print_rows([GOOD, REFUSED], 1.0, stream=out)
    assert "28.3" in out.getvalue()
    assert "1 refused by the source" in out.getvalue()


def test_json_is_a_list_of_what_the_table_shows() -> None:
    out = io.StringIO()
    print_rows_as_json([GOOD, PARKED], stream=out)
    good, parked = json.loads(out.getvalue())
    assert good["name"] == "ct"
    assert good["before_name"] == "JPEG2000Lossless"
    assert good["after"] == EXPLICIT_LE
    assert good["stages"]["transcode_s"] == pytest.approx(0.0283)
    assert good["right"] is True
    assert (parked["state"], parked["right"], parked["after_name"]) == (
        "failed: undecodable", False, "",
    )  # fmt: skip


def test_short_names_are_short_and_different() -> None:
    shown = [s.uid for s in SYNTAXES.values() if s.kind in {"native", "encapsulated"}]
    names = {short_syntax(uid) for uid in shown}
    assert len(names) == len(shown)
    assert short_syntax(EXPLICIT_LE) == "ExplicitLE"
    assert short_syntax("") == "-"

"""mutmut, with what it lacks for this code: ``python -m tests.mutants.engine run ...``.

It runs in the copy that ``tests.mutants`` has made. What is added to mutmut's own mutations: a
call whose result nobody uses is left out (a flush, a check, a note); a condition is dropped: the
whole of an ``if``, or one side of an ``and`` or ``or``. What is taken away: texts
that people read are not changed, since no decision hangs on them; None is not put where False is,
which means the same and which mypy refuses; a word that Python reads in any case keeps its case.
``diffs`` tells all that are asked for at once, ``plant`` writes the mutants and runs nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import libcst as cst
from mutmut.mutation import mutators


def left_out(node: cst.Expr) -> Iterable[cst.BaseSmallStatement]:
    """Leave out a statement that is a call."""
    if isinstance(node.value, cst.Call):
        yield cst.Pass()


def one_side(node: cst.BooleanOperation) -> Iterable[cst.BaseExpression]:
    """Drop one side of an ``and`` or ``or``."""
    for side in (node.left, node.right):
        yield side.with_changes(
            lpar=[cst.LeftParen(), *side.lpar], rpar=[*side.rpar, cst.RightParen()]
        )


def no_condition(node: cst.If) -> Iterable[cst.If]:
    """Take a branch always, or never."""
    for always in ("True", "False"):
        yield node.with_changes(
            test=cst.Name(always), whitespace_before_test=cst.SimpleWhitespace(" ")
        )


CASELESS = frozenset({"ascii", "latin-1", "utf-8", "inf", "-inf"})
"""Names of encodings and numbers: Python reads them in any case."""


def no_text(node: cst.BaseString) -> Iterable[cst.BaseString]:
    """Change a word, which a program compares, and no text."""
    if not isinstance(node, cst.SimpleString) or " " in node.value:
        return
    for changed in mutators.operator_string(node):
        same = isinstance(changed, cst.SimpleString) and changed.value.lower() == node.value.lower()
        if not (same and node.evaluated_value in CASELESS):
            yield changed


def no_other_false(
    node: cst.Assign | cst.AnnAssign,
) -> Iterable[cst.CSTNode]:
    """Assign None, but not where False is assigned."""
    if not _is_false(node.value):
        yield from mutators.operator_assignment(node)


def no_other_false_argument(node: cst.Call) -> Iterable[cst.Call]:
    """Give None as an argument, but not where False is given; leave arguments out."""
    for changed in mutators.operator_arg_removal(node):
        pairs = zip(node.args, changed.args, strict=False)
        same_length = len(changed.args) == len(node.args)
        if not (same_length and any(_is_false(a.value) and a is not b for a, b in pairs)):
            yield changed


def _is_false(node: cst.BaseExpression | None) -> bool:
    return isinstance(node, cst.Name) and node.value == "False"


def tell_diffs() -> None:
    """Write the diffs of the mutants whose names and files are on stdin, as JSON."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    asked: dict[str, str] = json.load(sys.stdin)
    json.dump(
        {name: get_diff_for_mutant(name, path=path) for name, path in asked.items()}, sys.stdout
    )


FRAMES_MAX = 20_000
"""Of Python's stack: each call of a function that is tried costs three, and samples nest deeply."""


def plant() -> None:
    """Write the mutants and run nothing."""
    from mutmut.__main__ import create_mutants
    from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir

    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(1)


if __name__ == "__main__":
    sys.setrecursionlimit(FRAMES_MAX)
    from mutmut.__main__ import cli  # which looks for a configuration

    operators = mutators.mutation_operators
    assert isinstance(operators, list)
    for kind, before, after in (
        (cst.BaseString, mutators.operator_string, no_text),
        (cst.Assign, mutators.operator_assignment, no_other_false),
        (cst.AnnAssign, mutators.operator_assignment, no_other_false),
        (cst.Call, mutators.operator_arg_removal, no_other_false_argument),
    ):
        operators[operators.index((kind, before))] = (kind, after)
    operators += [
        (cst.Expr, left_out),
        (cst.BooleanOperation, one_side),
        (cst.If, no_condition),
    ]
    if sys.argv[1:] == ["diffs"]:
        tell_diffs()
    elif sys.argv[1:] == ["plant"]:
        plant()
    else:
        cli()

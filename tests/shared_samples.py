"""Samples that lie beside the repository and are never part of it.

A test that uses one carries a marker, ``corpus``, ``cases`` or ``traces``. Where the folder is
absent such a test fails in CI and is skipped, visibly, elsewhere: tests/conftest.py.
"""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared"
CORPUS = SHARED / "corpus"
"""Real DICOM files, with ``expected.tsv``."""
CASES = SHARED / "cases"
"""Small files on which the bridge was wrong, with what is right."""
TRACES = SHARED / "traces"
"""Recorded feeds."""
FOLDERS = {"corpus": CORPUS, "cases": CASES, "traces": TRACES}

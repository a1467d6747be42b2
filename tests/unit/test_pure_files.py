"""Pure files know no files, sockets, clocks, loggers or settings, and import only each other.

A file is pure when its head says so; this list says which do. It is a property of a file and not
of a room: the arithmetic of the checkpoint stands beside the ledger that keeps it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "bridge"
SAYS_SO = "This file must not know: sockets, files, clocks, logging, settings."

PURE = (
    "dicom/changed_elements.py",
    "dicom/codecs.py", "dicom/codestream.py", "dicom/colour.py", "dicom/confidentiality.py",
    "dicom/content_sum.py", "dicom/decoders.py", "dicom/deidentify.py",
    "dicom/description.py", "dicom/elements.py",
    "dicom/encapsulation.py", "dicom/encoders.py", "dicom/facts.py", "dicom/file_meta.py",
    "dicom/fingerprint.py", "dicom/frames.py", "dicom/inflate.py", "dicom/jpeg_xl_header.py",
    "dicom/syntax_label.py", "dicom/native.py", "dicom/new_pixel_data.py", "dicom/orthanc_id.py",
    "dicom/rewrite.py", "dicom/samples.py", "dicom/syntaxes.py", "dicom/transcode.py",
    "dicom/vrs.py",
    "checks/described_in_order.py",
    "decision.py", "errors.py", "events.py", "model.py", "rules.py", "untrusted_text.py",
    "feed/gaps.py", "feed/held.py", "feed/identity.py", "feed/pages.py", "feed/polling.py",
    "feed/sequences.py",
    "ledger/checkpoint.py", "ledger/records.py",
    "mirror/carry_decision.py", "mirror/judge_copy.py", "mirror/sign_decision.py",
    "monitoring/action_request.py",
    "monitoring/headline.py", "monitoring/health.py", "monitoring/kept_files.py",
    "monitoring/names.py",
    "monitoring/spans.py", "monitoring/time_left.py",
    "notify/event_kinds.py", "notify/telling_policy.py",
    "pipeline/came_back.py", "pipeline/failure_policy.py", "pipeline/gate.py",
    "pipeline/pacing.py", "pipeline/parked_policy.py", "pipeline/refusals.py",
    "retention/limits_and_risks.py",
    "worker/dask/roster.py", "worker/dask/values.py",
    "worker/pool_watch.py",
    "worker/transfers_policy.py",
)  # fmt: skip

FORBIDDEN = {
    "asyncio", "glob", "httpx", "io.open", "logging", "multiprocessing", "os", "pathlib",
    "pebble", "prometheus_client", "pydantic", "pydantic_settings", "random", "requests",
    "select", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "tenacity",
    "threading", "time", "typer", "urllib",
}  # fmt: skip
ALSO_OURS = {"bridge.__version__"}
"""What a pure file may import of ours beside other pure files."""


def module(name: str) -> str:
    return f"bridge.{name.removesuffix('.py').replace('/', '.')}"


PURE_MODULES = {module(name) for name in PURE}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def called(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {n.func.id for n in tree if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def is_pure(name: str) -> bool:
    """Whether an imported name is a pure file of ours or something in one."""
    return name in PURE_MODULES or name.rpartition(".")[0] in PURE_MODULES or name in ALSO_OURS


@pytest.mark.parametrize("name", PURE)
def test_no_io_and_no_other_part_of_the_bridge(name: str) -> None:
    names = imported(PACKAGE / name)

    assert not {name for name in names if name.split(".")[0] in FORBIDDEN or name in FORBIDDEN}
    assert not {name for name in names if name.split(".")[0] == "bridge" and not is_pure(name)}
    assert not called(PACKAGE / name) & {"open", "print", "input", "exec", "eval"}


def test_the_files_that_say_so_are_those_of_the_list() -> None:
    """A pure file that is gone, or says no longer that it is one, is missed here."""
    say_so = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if SAYS_SO in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    }
    assert say_so == set(PURE)

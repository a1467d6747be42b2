"""dciodvfy reports no error after the bridge that it did not report before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.dicom.transcode import peek_syntax
from bridge.errors import InstanceError
from tests import shared_samples
from tests.transcode_cases import DEFLATED, EXPLICIT, WHEEL, run

CORPUS = shared_samples.CORPUS / "files"

pytestmark = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dicom3tools is not installed"
)


def files() -> list[Path]:
    folders = [folder for folder in (CORPUS, WHEEL) if folder.is_dir()]
    return [p for folder in folders for p in sorted(folder.iterdir()) if p.is_file()]


def errors(path: Path) -> set[str]:
    done = subprocess.run(
        ["dciodvfy", path], capture_output=True, check=False, timeout=60
    ).stderr.decode("latin-1")
    return {line for line in done.splitlines() if line.startswith("Error")}


def errors_before(path: Path, data: bytes, scratch: Path) -> set[str]:
    """dciodvfy does not inflate: a deflated file is judged after DCMTK has inflated it."""
    if peek_syntax(data) != DEFLATED:
        return errors(path)
    if shutil.which("dcmconv") is None:
        pytest.skip("dcmtk is not installed")
    subprocess.run(["dcmconv", "+te", path, scratch], capture_output=True, check=True)
    return errors(scratch)


def is_known(error: str, added: set[str]) -> bool:
    """True for what the rules make unavoidable (docs/reference/transfer-syntaxes.md)."""
    if "(0002,0003)" in error.replace("0x", ""):
        return True  # the header now has the data set's UID, which is as invalid as it was
    ybr = any("YBR_FULL" in line for line in added)
    return ybr and ("YBR_FULL" in error or "<Planar Configuration>" in error)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("wanted", [EXPLICIT, "JPEG2000Lossless"])
def test_no_new_error(wanted: str, tmp_path: Path) -> None:
    compared = 0
    new: dict[str, set[str]] = {}
    for path in files():
        data = path.read_bytes()
        try:
            body, _ = run(data, wanted)
        except InstanceError:
            continue
        if body == data:
            continue
        after = tmp_path / "after.dcm"
        after.write_bytes(body)
        added = errors(after) - errors_before(path, data, tmp_path / "before.dcm")
        unknown = {error for error in added if not is_known(error, added)}
        if unknown:
            new[path.name] = unknown
        compared += 1
    assert compared > 30
    assert new == {}

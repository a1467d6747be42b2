"""The digest of a worker's code covers all that decides what becomes of an instance."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bridge
from bridge.worker.dask.build import code_digest, modules_of_the_task

PACKAGE = Path(bridge.__file__).parent
SEEN = """
import json, sys
import bridge.worker.transfer, bridge.worker.dask.remote, bridge.dicom.selftest
from bridge.dicom.codecs import DECODERS
from bridge.dicom.selftest import decode_sample
for family in DECODERS:
    decode_sample(family)
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "bridge"]))
"""


@pytest.mark.slow
def test_every_module_that_a_task_imports_is_in_the_digest() -> None:
    done = subprocess.run([sys.executable, "-c", SEEN], capture_output=True, check=True)
    imported = {Path(path) for path in json.loads(done.stdout)}
    assert len(imported) > 40
    assert imported <= set(modules_of_the_task())


def test_what_does_not_run_in_a_worker_is_not_in_the_digest() -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in modules_of_the_task()}
    assert not names & {
        "config.py",
        "ledger/store.py",
        "pipeline/loop.py",
        "monitoring/server.py",
        "cli.py",
        "monitoring/logs.py",
    }


@pytest.mark.slow
def test_any_other_byte_of_them_is_another_build(tmp_path: Path) -> None:
    copy = tmp_path / "bridge"
    for path in modules_of_the_task():
        target = copy / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    digests = {code_digest()}
    assert digests == {code_digest(copy)}, "the same code elsewhere is the same"
    for name in ("__init__.py", "worker/proof.py", "credentials.py", "untrusted_text.py"):
        with (copy / name).open("a") as file:
            file.write("# another\n")
        digests.add(code_digest(copy))
    assert len(digests) == 5


def test_what_a_function_imports_late_is_in_it(tmp_path: Path) -> None:
    package = tmp_path / "bridge"
    (package / "worker/dask").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "worker/__init__.py").touch()
    (package / "worker/transfer.py").write_text("def late():\n    import bridge.one as one\n")
    (package / "one.py").write_text("class A:\n    def b(self):\n        from bridge import two\n")
    (package / "two.py").write_text(
        "from bridge.worker.dask.three import x\nimport json, bridge.none\n"
    )
    (package / "worker/dask/__init__.py").touch()
    (package / "worker/dask/three.py").write_text("x = 1\n")
    (package / "another.py").touch()
    names = {path.relative_to(package).as_posix() for path in modules_of_the_task(package)}
    assert names == {
        "__init__.py",
        "worker/transfer.py",
        "one.py",
        "two.py",
        "worker/dask/__init__.py",
        "worker/__init__.py",
        "worker/dask/three.py",
    }

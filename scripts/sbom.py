"""Write the bill of materials: what requirements.lock installs, with versions and licences.

    make sbom        writes packaging/sbom.cdx.json and docs/reference/licences.md
    tests/unit/test_sbom.py compares both with requirements.lock

cyclonedx-bom looks at an environment that holds exactly the lock. The wheel carries the file
(PEP 770), and by it the image and the Debian package do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SBOM_PATH = ROOT / "packaging" / "sbom.cdx.json"
PAGE_PATH = ROOT / "docs" / "reference" / "licences.md"
TOOL = "cyclonedx-bom==7.5.0"
INSTALLERS = ("pip", "setuptools", "wheel")
LICENCE_CHARACTERS_MAX = 60
"""Some packages write the text of their licence where its name belongs."""
HEAD = """\
# Licences

What `requirements.lock` installs beside orthanc-bridge, which is under the MIT licence. Written by
`make sbom` from the metadata of each package. The same with addresses, for programs: the CycloneDX
file in the wheel (`orthanc_bridge-*.dist-info/sboms/sbom.cdx.json`).

| package | version | licence |
|---|---|---|
"""


def components() -> dict[str, Any]:
    """Return the bill of materials of an environment with exactly the lock in it."""
    with tempfile.TemporaryDirectory(prefix="orthanc-bridge-sbom-") as directory:
        locked, tool = Path(directory, "locked"), Path(directory, "tool")
        for home, what in ((locked, ["--requirement", "requirements.lock"]), (tool, [TOOL])):
            venv.create(home, with_pip=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "--quiet", *what], check=True, cwd=ROOT)  # noqa: S603
        asked = [str(tool / "bin" / "cyclonedx-py"), "environment", "--output-reproducible"]
        told = subprocess.run(  # noqa: S603 (tools that this script has just installed)
            [*asked, "--spec-version", "1.6", str(locked / "bin" / "python")],
            check=True,
            capture_output=True,
            text=True,
        )
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def bill(found: dict[str, Any]) -> dict[str, Any]:
    """Return the bill without what only belongs to this machine or to the installers."""
    kept = [part for part in found["components"] if part["name"] not in INSTALLERS]
    for part in kept:
        part.pop("properties", None)
        part["bom-ref"] = f"{part['name']}=={part['version']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": found["specVersion"],
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "orthanc-bridge"}},
        "components": sorted(kept, key=lambda part: str(part["name"]).lower()),
    }


def licence(component: dict[str, Any]) -> str:
    """Name the licence of a component, in one line; "" when its metadata name none."""
    given = component.get("licenses", [])
    known = [one.get("expression") or one.get("license", {}).get("id") for one in given]
    named = [str(one.get("license", {}).get("name", "")) for one in given]
    names = [name for name in known if name] or [
        re.sub("^(?:License :: )?(?:OSI Approved :: )?", "", name).splitlines()[0]
        for name in named
        if name
    ]
    short = [name for name in names if len(name) <= LICENCE_CHARACTERS_MAX]
    return ", ".join(dict.fromkeys(short))


def page(made: dict[str, Any]) -> str:
    """Return docs/reference/licences.md."""
    rows = [
        f"| {part['name']} | {part['version']} | {licence(part)} |" for part in made["components"]
    ]
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Write both files."""
    made = bill(components())
    SBOM_PATH.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")
    PAGE_PATH.write_text(page(made), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Check the Kubernetes manifests and the Helm chart against the schemas of the Kubernetes API.

    make check-manifests

It installs kubernetes-validate, which brings the schemas, and helm-python-sdk, which is Helm, into
a temporary environment: together they are larger than everything else that the tests need.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ("bridge.yaml", "dask.yaml")
TOOLS = ("kubernetes-validate==1.37.0", "helm-python-sdk==0.2.2")
VERSIONS = ("1.29", "1.32", "1.37")
"""Kubernetes: ReadWriteOncePod is stable from 1.29 on."""

TOLERANT = {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"disk": "ssd"}}
VALUES: tuple[dict[str, object], ...] = (
    {},
    {
        "source": {"url": "http://one", "username": ""},
        "settings": {"BRIDGE_PROOF": "stored", "BRIDGE_SERVERS_ARE_DISTINCT": True},
        "state": {"size": "1Gi", "storageClass": "fast"},
        "imagePullSecrets": [{"name": "pull"}],
        **TOLERANT,
    },
)
"""What the chart is rendered with: as it comes, and with all that it has a place for."""

RENDER = """
import json, pathlib, sys
import helm_python as helm

chart, into, values = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
told = helm.lint(chart, strict=True)
if any(message["severity"] > 1 for message in told.get("messages") or []):
    raise SystemExit(f"helm lint: {told}")
with helm.Chart.load(chart) as loaded:
    for number, given in enumerate(values):
        rendered = loaded.render(given, name="bridge", namespace="pacs", is_install=True)
        texts = [text for name, text in sorted(rendered.items()) if name.endswith(".yaml")]
        pathlib.Path(into, f"chart-{number}.yaml").write_text("\\n---\\n".join(texts))
"""


def run(*command: str) -> None:
    """Run a tool; what it says is shown. Raises CalledProcessError when it finds something."""
    subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603


def main() -> int:
    """Render the chart, and hold it and the manifests against the schemas."""
    with tempfile.TemporaryDirectory(prefix="orthanc-bridge-manifests-") as directory:
        tools, rendered = Path(directory, "tools"), Path(directory, "rendered")
        rendered.mkdir()
        venv.create(tools, with_pip=True)
        python = str(tools / "bin" / "python")
        run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *TOOLS)
        chart = str(ROOT / "compose" / "helm" / "orthanc-bridge")
        run(python, "-c", RENDER, chart, str(rendered), json.dumps(VALUES))
        files = [*sorted(rendered.iterdir())]
        files += [ROOT / "compose" / "kubernetes" / name for name in MANIFESTS]
        for version in VERSIONS:
            for file in files:
                run(
                    str(tools / "bin" / "kubernetes-validate"),
                    *("--strict", "-k", version, str(file)),
                )
                sys.stdout.write(f"{file.name}: right for Kubernetes {version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

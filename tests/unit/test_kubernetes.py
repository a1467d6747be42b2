"""compose/kubernetes/bridge.yaml and the Helm chart, read without a cluster.

``make check-manifests`` renders the chart by Helm itself and holds both against the API's schemas.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.config import known_variables

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "compose" / "kubernetes" / "bridge.yaml"
CHART = ROOT / "compose" / "helm" / "orthanc-bridge"


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFEST.read_text("utf-8"))}


def container_of(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (found,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_every_setting_exists_and_every_file_is_mounted(
    manifests: dict[str, dict[str, Any]],
) -> None:
    settings = manifests["ConfigMap"]["data"]
    assert set(settings) <= known_variables()
    assert all(isinstance(value, str) for value in settings.values())
    mounts = [mount["mountPath"] for mount in container_of(manifests)["volumeMounts"]]
    for name, value in settings.items():
        if name.endswith("_FILE"):
            assert any(value.startswith(f"{mount}/") for mount in mounts), name
    assert "/var/lib/orthanc-bridge" in mounts, "where the image keeps its state"
    assert "/tmp" in mounts, "the root file system is read-only"  # noqa: S108


def test_there_is_never_a_second_bridge(manifests: dict[str, dict[str, Any]]) -> None:
    deployment = manifests["Deployment"]["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    assert manifests["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_it_may_do_nothing_that_it_need_not(manifests: dict[str, dict[str, Any]]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container_of(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_probes_ask_for_what_the_bridge_serves(manifests: dict[str, dict[str, Any]]) -> None:
    container = container_of(manifests)
    asked = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")}
    assert asked == {"/livez", "/readyz"}
    served = (ROOT / "bridge" / "monitoring" / "server.py").read_text("utf-8")
    assert all(f'Route("{path}"' in served for path in asked)


def test_memory_leaves_room_for_every_worker(manifests: dict[str, dict[str, Any]]) -> None:
    workers = int(manifests["ConfigMap"]["data"]["BRIDGE_WORKERS"])
    limit = container_of(manifests)["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Gi")) * 1024 > workers * 2048


def test_the_chart_has_the_defaults_of_the_manifest(manifests: dict[str, dict[str, Any]]) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    container = container_of(manifests)
    settings = manifests["ConfigMap"]["data"]
    assert values["image"] == container["image"]
    assert values["resources"] == container["resources"]
    assert values["source"]["url"] == settings["BRIDGE_SOURCE_URL"]
    assert str(values["settings"]["BRIDGE_WORKERS"]) == settings["BRIDGE_WORKERS"]
    assert set(values["settings"]) <= known_variables()


def test_the_chart_says_what_the_manifest_says() -> None:
    """Without a renderer: each line of the manifest is in a template, but for what varies."""
    varies = re.compile(
        r"^(#.*|---|.*(name: orthanc-bridge|labels|Labels|selector|BRIDGE_|image|requests|limits"
        r"|resources|secretName|claimName|sizeLimit|configMapRef|storage).*)?$"
    )
    templates = "".join(path.read_text("utf-8") for path in (CHART / "templates").glob("*.yaml"))
    there = {line.strip() for line in templates.splitlines()}
    wanted = {line.strip() for line in MANIFEST.read_text("utf-8").splitlines()}
    assert [line for line in wanted if not varies.match(line) and line not in there] == []

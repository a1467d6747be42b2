"""compose/ for a cluster, read without an engine: what is named exists, and the doors are shut."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from bridge.config import known_variables, load_settings
from bridge.credentials import credentials_of
from bridge.model import SideName

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")
PROGRAMS = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
TLS_NAMES = {"dask_ca", "dask_cert", "dask_key"}
MIB = {"Mi": 1, "Gi": 1024}


def load(name: str) -> dict[str, Any]:
    text = (COMPOSE / name).read_text("utf-8")
    loaded = yaml.safe_load(INTERPOLATION.sub(lambda found: found.group(2), text))
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def overlay() -> dict[str, Any]:
    return load("compose.dask.yaml")


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return load("compose.yaml")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make secrets in a copy, as a user does."""
    home = tmp_path_factory.mktemp("compose")
    (home / "secrets").mkdir()
    for name in ("make-secrets.sh", "make-cluster-secrets.sh"):
        (home / name).write_bytes((COMPOSE / name).read_bytes())
        subprocess.run(["sh", str(home / name)], check=True, capture_output=True)
    return home / "secrets"


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    text = (COMPOSE / "kubernetes" / "dask.yaml").read_text("utf-8")
    found = list(yaml.safe_load_all(text))
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(by_name) == len(found)
    return by_name


def pod(manifests: dict[tuple[str, str], dict[str, Any]], part: str) -> dict[str, Any]:
    spec = manifests["Deployment", f"orthanc-bridge-{part}"]["spec"]
    template: dict[str, Any] = spec["template"]
    assert spec["selector"]["matchLabels"] == template["metadata"]["labels"]
    inner: dict[str, Any] = template["spec"]
    return inner


def parsed(part: str, arguments: list[str]) -> dict[str, Any]:
    """Let Dask's own command read its arguments; it raises for what it does not know."""
    context: click.Context = PROGRAMS[part].make_context(f"dask {part}", list(arguments))
    assert not context.params["preload_argv"], "what it does not know goes to preloads"
    return context.params


# Compose


def test_it_obeys_the_schema_of_the_compose_specification(overlay: dict[str, Any]) -> None:
    vendor = resources.files("check_jsonschema.builtin_schemas") / "vendor"
    schema = json.loads((vendor / "compose-spec.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(overlay)] == []


def test_it_fits_what_it_is_laid_over(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    assert set(overlay["services"]) & set(base["services"]) == {"bridge"}
    networks = set(base["networks"]) | set(overlay["networks"])
    declared = set(base["secrets"]) | set(overlay["secrets"])
    for service in overlay["services"].values():
        assert set(service["networks"]) <= networks
        assert set(service["secrets"]) <= declared
    assert set(base["services"]["bridge"]["networks"]) < set(
        overlay["services"]["bridge"]["networks"]
    )
    for service in overlay["services"].values():
        assert service["image"] == "orthanc-bridge:dask"
        assert service["build"]["args"] == {"EXTRAS": "[dask]"}
        context = (COMPOSE / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).is_file()


def test_the_extra_of_the_image_exists(overlay: dict[str, Any]) -> None:
    extras = overlay["services"]["worker"]["build"]["args"]["EXTRAS"]
    assert f"\n{extras.strip('[]')} = [" in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"EXTRAS='{extras}'" in (COMPOSE / "Dockerfile").read_text("utf-8")


def test_nobody_else_is_near_the_scheduler(overlay: dict[str, Any], base: dict[str, Any]) -> None:
    assert overlay["networks"]["cluster"] == {"internal": True}
    assert overlay["services"]["scheduler"]["networks"] == ["cluster"]
    assert not any("cluster" in service["networks"] for service in base["services"].values())
    assert not any("ports" in service for service in overlay["services"].values())


@pytest.mark.parametrize("name", ["scheduler", "worker"])
def test_containers_are_closed_as_the_others_are(overlay: dict[str, Any], name: str) -> None:
    service = overlay["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "container_name" not in service, "--scale"


@pytest.mark.parametrize("name", ["scheduler", "worker"])
def test_dask_takes_the_arguments(overlay: dict[str, Any], secrets: Path, name: str) -> None:
    service = overlay["services"][name]
    assert service["entrypoint"] == ["dask", name]
    given = [re.sub(r"/run/secrets/(\w+)", rf"{secrets}/\1.pem", a) for a in service["command"]]
    options = parsed(name, given)
    assert {options["tls_ca_file"], options["tls_cert"], options["tls_key"]} == {
        f"{secrets}/{secret}.pem" for secret in TLS_NAMES
    }
    if name == "worker":
        assert options["scheduler"] == "tls://scheduler:8786"
        assert options["preload"] == ("bridge.worker.dask.remote",)
        assert options["nanny"] is False
    else:
        assert (options["host"], options["port"]) == ("tls://0.0.0.0", "8786")


def test_the_bridges_settings_are_accepted(
    base: dict[str, Any], overlay: dict[str, Any], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(secrets)
    for service in (base, overlay):
        for name, value in service["services"]["bridge"]["environment"].items():
            at = re.sub(r"^/run/secrets/(dask_\w+)$", rf"{secrets}/\1.pem", value)
            monkeypatch.setenv(name, at.replace("/run/secrets/", f"{secrets}/"))
    settings = load_settings()
    assert settings.executor == "tls://scheduler:8786"
    assert settings.dask_tls_key_file == str(secrets / "dask_key.pem")


def test_a_worker_reads_its_passwords_from_its_own_files(
    overlay: dict[str, Any], secrets: Path, tmp_path: Path
) -> None:
    environment = {
        name: value.replace("/run/secrets/", f"{secrets}/")
        for name, value in overlay["services"]["worker"]["environment"].items()
    }
    assert set(environment) <= known_variables()
    for side in SideName:
        found = credentials_of(side, environment, tmp_path / "none")
        assert found.username == "bridge"
        assert found.password == (secrets / f"{side}_password").read_text().strip()


def test_the_certificates_are_a_pair_of_their_authority(secrets: Path) -> None:
    context = ssl.create_default_context(cafile=str(secrets / "dask_ca.pem"))
    context.load_cert_chain(str(secrets / "dask_cert.pem"), str(secrets / "dask_key.pem"))
    verify = ["openssl", "verify", "-CAfile", "dask_ca.pem", "dask_cert.pem"]
    subprocess.run(verify, cwd=secrets, check=True, capture_output=True)
    assert {path.name for path in secrets.glob("dask_*")} == {f"{n}.pem" for n in TLS_NAMES}
    before = (secrets / "dask_key.pem").read_bytes()
    again = ["sh", str(secrets.parent / "make-cluster-secrets.sh")]
    subprocess.run(again, check=True, capture_output=True)
    assert (secrets / "dask_key.pem").read_bytes() == before


def test_the_secrets_that_are_named_are_those_that_are_made(
    overlay: dict[str, Any], secrets: Path
) -> None:
    for name, secret in overlay["secrets"].items():
        assert Path(secret["file"]).name == f"{name}.pem"
        assert (secrets / f"{name}.pem").is_file()


# Kubernetes


@pytest.mark.parametrize("part", ["scheduler", "worker", "bridge"])
def test_a_pod_is_closed_and_has_all_that_it_mounts(
    manifests: dict[tuple[str, str], dict[str, Any]], part: str
) -> None:
    spec = pod(manifests, part)
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert f"USER {spec['securityContext']['runAsUser']}:" in (COMPOSE / "Dockerfile").read_text()
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["image"].endswith("/orthanc-bridge:dask")
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("part", ["scheduler", "worker"])
def test_dask_takes_the_arguments_in_kubernetes(
    manifests: dict[tuple[str, str], dict[str, Any]], secrets: Path, part: str
) -> None:
    (container,) = pod(manifests, part)["containers"]
    assert container["command"] == ["dask", part]
    options = parsed(part, [a.replace("/run/tls", str(secrets)) for a in container["args"]])
    assert options["tls_key"] == f"{secrets}/dask_key.pem"
    if part == "worker":
        host, _, port = options["scheduler"].removeprefix("tls://").partition(":")
        service = manifests["Service", host]["spec"]
        assert service["ports"][0]["port"] == int(port)
        labels = manifests["Deployment", "orthanc-bridge-scheduler"]["metadata"]["labels"]
        assert service["selector"] == labels
        limit = container["resources"]["limits"]["memory"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        needed = options["nthreads"] * int(environment["BRIDGE_WORKER_MEMORY_MB"])
        assert int(limit[:-2]) * MIB[limit[-2:]] > needed


@pytest.mark.parametrize("part", ["worker", "bridge"])
def test_settings_in_kubernetes_exist_and_name_files_that_are_mounted(
    manifests: dict[tuple[str, str], dict[str, Any]], secrets: Path, part: str
) -> None:
    spec = pod(manifests, part)
    (container,) = spec["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert set(environment) <= known_variables()
    assert not [name for name in environment if name.endswith("_PASSWORD")]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    text = (COMPOSE / "kubernetes" / "dask.yaml").read_text("utf-8")
    for name, value in environment.items():
        if name.endswith("_FILE"):
            at, _, file = value.rpartition("/")
            assert at in mounted.values()
            assert f"--from-file=compose/secrets/{file}" in text
            assert (secrets / file).exists()
    used = {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    assert used == set(re.findall(r"create secret generic (\S+)", text))


def test_one_bridge_keeps_its_state_and_is_never_two(
    manifests: dict[tuple[str, str], dict[str, Any]],
) -> None:
    bridge = manifests["Deployment", "orthanc-bridge-bridge"]["spec"]
    assert bridge["replicas"] == 1
    assert bridge["strategy"] == {"type": "Recreate"}
    (container,) = pod(manifests, "bridge")["containers"]
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod(manifests, "bridge")["volumes"]
        if "persistentVolumeClaim" in volume
    }
    (name,) = claims
    assert manifests["PersistentVolumeClaim", claims[name]]
    path = next(m["mountPath"] for m in container["volumeMounts"] if m["name"] == name)
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert Path(environment["BRIDGE_STATE_PATH"]).parent == Path(path)
    assert container["args"] == ["run"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_only_the_cluster_may_speak_to_scheduler_and_workers(
    manifests: dict[tuple[str, str], dict[str, Any]],
) -> None:
    policy = manifests["NetworkPolicy", "orthanc-bridge-cluster"]["spec"]
    (expression,) = policy["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == {"scheduler", "worker"}
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": {"app": "orthanc-bridge"}}}]}
    ]

"""compose/, read without a container engine: schema, names, paths, and rules that must hold."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bridge.config import known_variables, load_settings
from bridge.credentials import credentials_of
from bridge.model import SideName

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")
UNIT_S = {"s": 1, "m": 60}


def interpolate(text: str) -> str:
    """Put the defaults in, as compose does when neither .env nor the environment says more."""
    return INTERPOLATION.sub(lambda found: found.group(2), text).replace("$$", "$")


@pytest.fixture(scope="module")
def compose_text() -> str:
    return (COMPOSE / "compose.yaml").read_text("utf-8")


@pytest.fixture(scope="module")
def compose(compose_text: str) -> dict[str, Any]:
    loaded = yaml.safe_load(interpolate(compose_text))
    assert isinstance(loaded, dict)
    return loaded


def published(service: dict[str, Any]) -> dict[int, str]:
    """Container port to the address it is published on."""
    ports = {}
    for entry in service["ports"]:
        address, _host_port, container_port = entry.rsplit(":", 2)
        ports[int(container_port)] = address
    return ports


def seconds(duration: str) -> int:
    return int(duration[:-1]) * UNIT_S[duration[-1]]


def test_compose_yaml_obeys_the_schema_of_the_compose_specification(
    compose: dict[str, Any],
) -> None:
    vendor = resources.files("check_jsonschema.builtin_schemas") / "vendor"
    schema = json.loads((vendor / "compose-spec.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []
    broken = compose | {"services": {"bridge": {"imgae": "x"}}}
    assert list(validator.iter_errors(broken)), "the schema lets everything pass"


def test_every_bridge_variable_is_a_setting(compose: dict[str, Any], compose_text: str) -> None:
    used = set(compose["services"]["bridge"]["environment"])
    assert used
    assert used <= known_variables()
    everywhere = "".join(
        path.read_text("utf-8")
        for path in sorted(COMPOSE.iterdir())
        if path.is_file() and path.suffix != ".json"
    )
    mentioned = set(re.findall(r"\bBRIDGE_[A-Z0-9_]+", everywhere))
    assert used < mentioned
    assert mentioned <= known_variables()
    interpolated = {name for name, _default in INTERPOLATION.findall(compose_text)}
    assert not {name for name in interpolated if name.startswith("BRIDGE_")}


def test_the_services_settings_are_accepted(
    compose: dict[str, Any], secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in compose["services"]["bridge"]["environment"].items():
        assert isinstance(value, str), f"{name} is not a string in YAML"
        monkeypatch.setenv(name, value.replace("/run/secrets/", f"{secrets}/"))
    settings = load_settings()
    assert settings.source_url == "http://source:8042"
    assert settings.target_url == "http://target:8042"
    grace_s = seconds(compose["services"]["bridge"]["stop_grace_period"])
    assert grace_s > settings.shutdown_timeout_s


def test_env_example_lists_what_compose_interpolates_with_its_defaults(compose_text: str) -> None:
    example = (COMPOSE / ".env.example").read_text("utf-8")
    listed = dict(re.findall(r"^#(\w+)=(.*)$", example, re.MULTILINE))
    overlay = (COMPOSE / "compose.dask.yaml").read_text("utf-8")
    assert listed == dict(INTERPOLATION.findall(compose_text + overlay))


def test_every_path_exists(compose: dict[str, Any]) -> None:
    build = compose["services"]["bridge"]["build"]
    context = (COMPOSE / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()
    binds = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    ]
    assert len(binds) == 5
    assert all((COMPOSE / bind).exists() for bind in binds)


def test_every_named_volume_network_and_secret_is_declared_and_used(
    compose: dict[str, Any],
) -> None:
    volumes, networks, secrets = set(), set(), set()
    for service in compose["services"].values():
        volumes |= {v.split(":")[0] for v in service["volumes"] if not v.startswith(".")}
        networks |= set(service["networks"])
        used = service.get("secrets", [])
        secrets |= {s if isinstance(s, str) else s["source"] for s in used}
    assert volumes == set(compose["volumes"])
    assert networks == set(compose["networks"])
    assert secrets == set(compose["secrets"])


@pytest.mark.parametrize("name", ["source", "target", "bridge", "prometheus", "grafana"])
def test_containers_are_closed_as_far_as_they_can_be(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert not service.get("privileged")
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108
    others = {port: at for port, at in published(service).items() if port != 4242}
    assert others
    assert set(others.values()) == {"127.0.0.1"}, "only DICOM is for the network"


def test_images_are_pinned_by_tag(compose: dict[str, Any]) -> None:
    for name in ("source", "target", "prometheus", "grafana"):
        _image, _, tag = compose["services"][name]["image"].rpartition(":")
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)


def test_monitoring_is_there_only_when_asked_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    asked_for = {name for name, service in services.items() if "profiles" in service}
    assert asked_for == {"prometheus", "grafana"}
    for name in asked_for:
        assert services[name]["profiles"] == ["monitoring"]
        assert services[name]["networks"] == ["monitoring"], "no way to the Orthancs"
    needed = {n for s in services.values() if "profiles" not in s for n in s.get("depends_on", [])}
    assert not needed & asked_for


def test_nobody_can_log_in_to_grafana(compose: dict[str, Any]) -> None:
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_the_bridge_waits_for_healthy_servers(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["bridge"]["depends_on"] == {
        "source": {"condition": "service_healthy"},
        "target": {"condition": "service_healthy"},
    }
    assert all("healthcheck" in services[name] for name in ("source", "target"))


def test_no_password_is_written_anywhere(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET", name):
                assert name.endswith("_FILE")
                assert value.startswith("/run/secrets/")
    for name in ("source", "target"):
        assert 'RegisteredUsers" : {\n' not in (COMPOSE / f"orthanc-{name}.json").read_text()
    kept = {path.name for path in (COMPOSE / "secrets").iterdir()}
    assert {".gitignore", "README.md"} <= kept
    ignored = (COMPOSE / "secrets" / ".gitignore").read_text().splitlines()
    assert ignored == ["*", "!.gitignore", "!README.md"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Make secrets in a copy, as a user does."""
    (tmp_path / "secrets").mkdir()
    script = tmp_path / "make-secrets.sh"
    script.write_bytes((COMPOSE / "make-secrets.sh").read_bytes())
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    return tmp_path / "secrets"


def test_make_secrets_writes_what_compose_names(secrets: Path, compose: dict[str, Any]) -> None:
    named = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    assert {path.name for path in secrets.iterdir()} == named
    assert secrets.stat().st_mode & 0o777 == 0o700
    passwords = set()
    for side in ("source", "target"):
        password = (secrets / f"{side}_password").read_text().rstrip("\n")
        users = json.loads((secrets / f"{side}_users.json").read_text())
        assert users == {"RegisteredUsers": {"bridge": password}}
        assert len(password) == 48
        passwords.add(password)
    assert len(passwords) == 2, "both Orthancs have the same password"
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}


def test_make_secrets_keeps_what_is_there(secrets: Path) -> None:
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    (secrets / "source_users.json").unlink()
    command = ["sh", str(secrets.parent / "make-secrets.sh")]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    (secrets / "source_password").unlink()
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "source_password" in refused.stderr
    assert (secrets / "source_users.json").read_text() == before["source_users.json"]


def test_the_bridge_reads_the_secret_that_orthanc_got(secrets: Path, tmp_path: Path) -> None:
    environment = {
        "BRIDGE_SOURCE_USERNAME": "bridge",
        "BRIDGE_SOURCE_PASSWORD_FILE": str(secrets / "source_password"),
    }
    found = credentials_of(SideName.SOURCE, environment, tmp_path / "none")
    users = json.loads((secrets / "source_users.json").read_text())["RegisteredUsers"]
    assert {found.username: found.password} == users


class _Ready(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        assert self.path == "/readyz"
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def monitoring_port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def healthcheck(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(COMPOSE / "healthcheck.py")],
        env={"BRIDGE_HEALTH_PORT": str(port), "http_proxy": "http://192.0.2.1:9"},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1)])
def test_the_health_check_reports_readyz(
    monitoring_port: int, status: int, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Ready, "status", status)
    result = healthcheck(monitoring_port)
    assert (result.returncode, result.stderr) == (exit_code, "")
    assert result.stdout.startswith(f"{status} ")


def test_the_health_check_fails_when_nothing_listens(monitoring_port: int) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Ready) as server:
        free_port = server.server_port
    assert free_port != monitoring_port
    result = healthcheck(free_port)
    assert (result.returncode, result.stdout, result.stderr) == (1, "ConnectionRefusedError\n", "")

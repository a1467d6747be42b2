"""compose/Dockerfile, read without a container engine."""

from __future__ import annotations

import importlib.metadata
import json
import re
from fnmatch import fnmatch

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bridge.config import known_variables
from tests.dockerfile import DOCKERFILE, ROOT, Instruction, instructions

BUILD_TOOLS = re.compile(
    r"\b(?:apt-get|apk|gcc|g\+\+|make|build-essential|curl|wget|git|uv|pip install|-dev)\b"
)


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    return instructions(DOCKERFILE.read_text("utf-8"))


@pytest.fixture(scope="module")
def final_stage(dockerfile: list[Instruction]) -> list[Instruction]:
    last = max(index for index, (name, _) in enumerate(dockerfile) if name == "FROM")
    return dockerfile[last:]


def values(stage: list[Instruction], name: str) -> list[str]:
    return [rest for found, rest in stage if found == name]


def test_two_stages_from_one_slim_image_pinned_by_tag(dockerfile: list[Instruction]) -> None:
    image, extras = values(dockerfile, "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-\w+", image)
    assert extras == "EXTRAS=", "none unless asked for"
    assert values(dockerfile, "FROM") == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


def test_the_final_stage_installs_nothing_and_drops_what_installs(
    final_stage: list[Instruction],
) -> None:
    (run,) = values(final_stage, "RUN")
    assert re.search(r"pip uninstall --yes .*\bpip setuptools wheel\b", run)
    assert not BUILD_TOOLS.search(run)
    assert not values(final_stage, "ADD")


def test_an_extra_is_installed_in_the_locked_versions(dockerfile: list[Instruction]) -> None:
    wheel = next(run for run in values(dockerfile, "RUN") if "pip wheel" in run)
    assert '--constraint requirements-dev.lock "$(echo /wheels/*.whl)${EXTRAS}"' in wheel
    lines = "".join((ROOT / f"requirements{name}.lock").read_text("utf-8") for name in ("", "-dev"))
    locked = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", lines, re.M)}
    assert requires("distributed") <= locked


def test_what_a_list_of_requirements_includes_is_copied_too(dockerfile: list[Instruction]) -> None:
    copied = {name for line in values(dockerfile, "COPY") for name in line.split()[:-1]}
    lists = {name for name in copied if name.startswith("requirements")}
    named = set(re.findall(r"requirements[\w.-]*\w", " ".join(values(dockerfile, "RUN"))))
    included = {
        name
        for found in lists | named
        for name in re.findall(
            r"^--requirement (\S+)", (ROOT / found).read_text("utf-8"), re.MULTILINE
        )
    }
    assert {"requirements.lock"} <= included
    assert named | included <= lists


def requires(package: str) -> set[str]:
    """The packages that a package needs on this machine, itself included."""
    found: set[str] = set()
    to_see = [package]
    while to_see:
        name = canonicalize_name(to_see.pop())
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                to_see.append(requirement.name)
    return found


def test_the_final_stage_does_not_run_as_root(final_stage: list[Instruction]) -> None:
    assert values(final_stage, "USER") == ["10001:10001"], "a number, so that it can be checked"
    names = [name for name, _ in final_stage]
    after = names[names.index("USER") :]
    assert not {"RUN", "COPY", "ADD", "USER"} & set(after[1:])
    (run,) = values(final_stage, "RUN")
    assert "--uid 10001" in run
    assert "--gid 10001" in run


def test_state_is_a_volume_that_the_user_owns(final_stage: list[Instruction]) -> None:
    assert values(final_stage, "VOLUME") == ['["/var/lib/orthanc-bridge"]']
    (run,) = values(final_stage, "RUN")
    assert "install -d -o bridge -g bridge -m 0750 /var/lib/orthanc-bridge" in run
    names = [name for name, _ in final_stage]
    assert names.index("RUN") < names.index("VOLUME"), "what a volume hides is lost"


def test_it_starts_and_stops_in_exec_form(final_stage: list[Instruction]) -> None:
    assert [json.loads(value) for value in values(final_stage, "ENTRYPOINT")] == [
        ["orthanc-bridge"]
    ]
    assert [json.loads(value) for value in values(final_stage, "CMD")] == [["run"]]
    assert values(final_stage, "STOPSIGNAL") == ["SIGTERM"]


def test_it_has_a_health_check_that_needs_python_only(final_stage: list[Instruction]) -> None:
    (check,) = values(final_stage, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command == ["python", "/opt/orthanc-bridge/healthcheck.py"]
    assert f"compose/healthcheck.py {command[1]}" in values(final_stage, "COPY")


def test_every_variable_is_a_setting(final_stage: list[Instruction]) -> None:
    (environment,) = values(final_stage, "ENV")
    names = set(re.findall(r"\b(BRIDGE_\w+)=", environment))
    assert {"BRIDGE_STATE_PATH", "BRIDGE_HEALTH_HOST"} <= names
    assert names <= known_variables()
    assert "TMPDIR=/tmp" in environment


def test_what_is_copied_exists_and_is_not_kept_out(dockerfile: list[Instruction]) -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*", "only what is named goes to the engine"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [
        source
        for value in values(dockerfile, "COPY")
        if not value.startswith("--from=")
        for source in value.split()[:-1]
    ]
    assert len(copied) == 12
    for source in copied:
        assert (ROOT / source).exists()
        assert source in allowed
    assert allowed == set(copied), "something is sent to the engine and not used"
    assert not any(fnmatch(name, rule) for name in (".env", "state") for rule in allowed)

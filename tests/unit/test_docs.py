"""The documentation is compared with the code: nothing missing, nothing that does not exist."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

from bridge import errors
from bridge.cli import app
from bridge.config import Settings, known_variables, load_settings
from bridge.credentials import ENV_FILE
from bridge.model import Endpoint, Reason, SideName, SideProblem
from bridge.orthanc import fault_table
from bridge.orthanc.faults import error_of_status, not_orthanc
from scripts import settings_docs
from tests.metrics_page import METRIC_NAMES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "compose").rglob("*.md")],
    key=str,
)
REDIRECTED = fault_table.Request(Endpoint(SideName.TARGET, "http://a"), "GET", "/system")
ROOT_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}
ENDPOINTS = ("/livez", "/readyz", "/health", "/metrics", "/api/status", "/")
NOT_PARKED = {Reason.GONE, Reason.RULE, Reason.DRY_RUN}


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose(text: str) -> str:
    """Drop code blocks: what is in them is neither a heading nor a link."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """Return what a heading is linked by."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(path: Path) -> set[str]:
    return {anchor(h) for h in re.findall(r"^#+ (.+)$", prose(path.read_text("utf-8")), re.M)}


def commands(group: TyperGroup, before: str = "") -> dict[str, TyperCommand]:
    """Every command of the program by the words that call it."""
    found: dict[str, TyperCommand] = {}
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found |= commands(command, f"{before}{name} ")
        else:
            assert isinstance(command, TyperCommand)
            found[f"{before}{name}"] = command
    return found


@pytest.fixture(scope="module")
def program() -> dict[str, TyperCommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return commands(group)


def mentioned_commands(text: str) -> set[str]:
    """Words after ``orthanc-bridge`` in code, as far as they can be a command."""
    return set(re.findall(r"orthanc-bridge ((?:parked )?[a-z]+)\b", text))


def test_every_command_is_in_the_readme(program: dict[str, TyperCommand]) -> None:
    readme = read("README.md")
    for name in program:
        assert re.search(rf"`(?:orthanc-bridge )?{name}[ `]", readme), name


def test_no_command_is_documented_that_does_not_exist(program: dict[str, TyperCommand]) -> None:
    known = set(program) | {name.split()[0] for name in program}
    for page in PAGES:
        code = " ".join(re.findall(r"`[^`\n]+`|^```.*?^```$", page.read_text("utf-8"), re.M | re.S))
        assert mentioned_commands(code) <= known, page


def test_no_option_is_documented_that_does_not_exist(program: dict[str, TyperCommand]) -> None:
    seen = 0
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = re.findall(r"(?<!deploy/)orthanc-bridge ([^`\n]*--[^`\n]*)", text)
        for line in lines:
            words = re.findall(r"^(?:[a-z]+ ?)+", line)
            name = next((n for n in program if words and words[0].strip().startswith(n)), None)
            if name is None:
                assert line.split()[0] in ROOT_OPTIONS, f"{page}: {line}"
                continue
            known = {option for parameter in program[name].params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", line)) <= {*known, "--help"}, f"{page}: {line}"
            seen += 1
    assert seen > 5


def test_every_endpoint_is_described_in_one_place() -> None:
    table = "| path | answers | for |"
    assert [page.name for page in PAGES if table in page.read_text("utf-8")] == ["monitoring.md"]
    rows = read("docs/monitoring.md").partition(table)[2].partition("\n\n")[0]
    assert [path for path in ENDPOINTS if f"| `{path}` |" not in rows] == []


def test_exit_codes_are_those_of_the_program_and_stand_once() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    table = read("docs/operations.md").partition("code | means")[2].partition("\n\n")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == codes
    elsewhere = [page for page in PAGES if page.name != "operations.md"]
    assert [page.name for page in elsewhere if "code | means" in page.read_text("utf-8")] == []


def test_every_metric_is_described_once_and_no_page_names_another() -> None:
    """That they are those of the program: tests/unit/monitoring/test_metrics.py."""
    assert len(METRIC_NAMES) == len(set(METRIC_NAMES)) > 0
    for page in PAGES:
        used = set(re.findall(r"\borthanc_bridge_\w+", page.read_text("utf-8")))
        assert used <= {*METRIC_NAMES, "orthanc_bridge_"}, page


def test_every_reason_is_described() -> None:
    operations = read("docs/operations.md")
    parked = operations.partition("## Something is parked")[2].partition("\n## ")[0]
    described = set(re.findall(r"^\| `(\w+)` \|", parked, re.M))
    assert described == {str(reason) for reason in Reason} - {str(r) for r in NOT_PARKED}
    rows = re.findall(r"^\| `\w+` \|.*", parked, re.M)
    advice = [row.split("|")[3].strip() for row in rows]
    assert len(advice) == len(described)
    assert all(advice), "each says what to do"
    health = operations.partition("## What do the reasons")[2].partition("\n## ")[0]
    assert [p for p in SideProblem if f"`{p}`" not in health] == []


def test_no_setting_is_mentioned_that_does_not_exist() -> None:
    known = known_variables() | {ENV_FILE}
    for page in [*PAGES, ROOT / ".env.example"]:
        mentioned = set(re.findall(r"\bBRIDGE_[A-Z0-9_]+", page.read_text("utf-8")))
        assert {name for name in mentioned if name != "BRIDGE_"} <= known, page


def test_every_setting_is_in_configuration_md_and_in_env_example() -> None:
    configuration, example = read("docs/configuration.md"), read(".env.example")
    for name in known_variables():
        assert f"`{name}`" in configuration, name
        assert re.search(rf"^#?{name}=", example, re.M), name


def test_the_settings_are_documented_as_they_are() -> None:
    configuration = read("docs/configuration.md")
    assert settings_docs.with_table(configuration) == configuration, "run: make docs"
    assert settings_docs.example() == read(".env.example"), "run: make docs"


def test_every_setting_is_in_one_group() -> None:
    named = [name for names in settings_docs.GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= set(Settings.model_fields)
    shown = [name for names in settings_docs.grouped().values() for name in names]
    assert sorted(shown) == sorted(Settings.model_fields)


def test_env_example_is_a_valid_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in known_variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    # Commented lines are the defaults: with and without them the settings are the same.
    plain = read(".env.example")
    filled = re.sub(r"^#(BRIDGE_\w+=)", r"\1", plain, flags=re.M)
    (tmp_path / ".env").write_text(plain, "utf-8")
    settings = load_settings()
    assert settings.source_url == settings_docs.EXAMPLE_URLS["source_url"]
    (tmp_path / ".env").write_text(filled, "utf-8")
    assert load_settings() == settings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = prose(page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        file, _, fragment = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT)
        if fragment:
            assert fragment in anchors(target), f"{page.name}: {link}"


def test_readme_begins_with_the_two_commands() -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", read("README.md"), re.MULTILINE | re.DOTALL)
    assert blocks[0] == "make demo\nmake test\n"
    assert blocks[1] == "docker compose -f compose/compose.yaml up\n"
    pitch = read("README.md").partition("## ")[0].strip().split("\n\n")
    assert len(pitch) == 3, "a title, one paragraph, one picture"


def test_every_question_is_listed_at_the_top_of_operations() -> None:
    text = read("docs/operations.md")
    questions = re.findall(r"^## (.+)$", text, re.M)
    listed = re.findall(r"^- \[(.+)\]\(#(.+)\)$", text, re.M)
    assert listed == [(question, anchor(question)) for question in questions]
    assert all(question.endswith("?") for question in questions)


def test_the_proofs_exist() -> None:
    page = read("docs/proofs.md")
    guarantees = re.findall(r"^\*\*(G\d [^*]+?)\.?\*\*", read("docs/architecture.md"), re.M)
    assert re.findall(r"^## (G\d .+)$", page, re.M) == guarantees
    assert [name.split()[0] for name in guarantees] == [f"G{number}" for number in range(1, 9)]
    for section in page.split("\n## ")[1:]:
        proofs = re.findall(r"^- `([\w/]+\.py)::(\w+)`", section, re.M)
        assert proofs, section
        for file, test in proofs:
            text = (ROOT / "tests" / file).read_text("utf-8")
            assert re.search(rf"^def {test}\(", text, re.M), f"{file}::{test}"


def test_the_proxy_page_shows_the_file_that_the_tests_run() -> None:
    (shown,) = re.findall(r"^```nginx\n(.*?)^```$", read("docs/proxies.md"), re.M | re.S)
    assert shown == read("docs/examples/nginx-orthanc.conf")


def test_the_proxy_page_quotes_what_the_bridge_says() -> None:
    """What stands in quotation marks there is the text of a fault, as it is told."""
    told = " ".join(
        f"{fault.seen} {fault.advice}".format_map(defaultdict(lambda: "BRIDGE_TARGET_URL"))
        for fault in [*fault_table.STATUS_FAULTS.values(), *vars(fault_table).values()]
        if isinstance(fault, fault_table.Fault)
    )
    told += " ".join(
        str(error_of_status(301, {"location": to}, None, REDIRECTED))
        for to in ("https://a/system", "/login", "http://a/system/")
    )
    told += str(not_orthanc(REDIRECTED, ""))
    table = read("docs/proxies.md").partition("## What the bridge says")[2].partition("\n## ")[0]
    quoted = re.findall(r'"([^"]+)"', table)
    assert len(quoted) > 8
    assert [text for text in quoted if text not in told] == []

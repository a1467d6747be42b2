"""The manual page and the completions are those of the program as it is."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import typer

from bridge.cli import app
from scripts import man_page


def test_the_page_is_written_anew_when_the_help_changes() -> None:
    assert man_page.PAGE_PATH.read_text("utf-8") == man_page.page(), "run: make docs"


def test_every_command_and_option_is_in_it() -> None:
    text = man_page.page().replace("\\-", "-")
    root = typer.main.get_command(app)
    names = [name for name, _ in man_page.commands(root)]
    assert len(names) > 15
    assert "parked retry" in names
    for name, command in man_page.commands(root):
        (section,) = re.findall(
            rf"^\.SS orthanc-bridge {re.escape(name)} .*?(?=^\.S[SH] )", text, re.M | re.S
        )
        for parameter in command.params:
            for option in parameter.opts if parameter.opts[0].startswith("--") else ():
                assert option in section, name
    assert "\n.B 13\n" in text, "the exit codes"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff on PATH")
def test_roff_finds_nothing_wrong_with_it() -> None:
    told = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", str(man_page.PAGE_PATH)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stderr == ""


@pytest.mark.parametrize("shell", list(man_page.COMPLETIONS))
def test_the_completions_are_what_the_program_prints(shell: str) -> None:
    path = man_page.COMPLETIONS[shell]
    assert path.read_text("utf-8") == man_page.completion(shell), "run: make docs"

"""``orthanc-bridge doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

LEVEL_WORDS = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Check the settings, both servers, the decoders and the state file.

    The exit code is that of the first error: 2 settings, 10 source, 11 target, 12 state file,
    13 a feed that is not the one that was followed.
    """
    from dataclasses import asdict

    from bridge.commands.output import print_json
    from bridge.diagnosis import diagnose

    findings = diagnose()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            word = LEVEL_WORDS[finding.level]
            typer.echo(f"{word:<8} {finding.subject}: {finding.message}")
            if finding.advice:
                typer.echo(f"{'':<8} -> {finding.advice}")
    return next((f.exit_code for f in findings if f.level == "error"), 0)

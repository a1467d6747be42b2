"""``orthanc-bridge doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

LEVEL_WORDS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Check settings, servers and decoders; say what to fix.

    Also checks the state file, directories and worker processes. Changes nothing.

    Exit code of the first error: 2 settings, 10 source, 11 target, 12 state file, 13 the source's
    feed was reset or replaced.
    """
    from dataclasses import asdict

    from bridge.commands.output import print_json, say
    from bridge.doctor import diagnose
    from bridge.untrusted_text import visible

    findings = diagnose()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            word = LEVEL_WORDS[finding.level]
            say(f"{word:<8} {visible(finding.subject)}: {visible(finding.message)}")
            if finding.advice:
                say(f"{'':<8} -> {visible(finding.advice)}")
    return next((f.exit_code for f in findings if f.level == "error"), 0)

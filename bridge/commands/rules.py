"""``orthanc-bridge rules test``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import EXIT_DONE, EXIT_INCOMPLETE, ConfigurationError, InstanceError

if TYPE_CHECKING:
    from bridge.decision import Handling
    from bridge.model import Facts, Job

rules_app = typer.Typer(
    help="Test the rules file.\n\nRules (BRIDGE_RULES_FILE) decide which instances are "
    "transcoded, forwarded or skipped.",
    no_args_is_help=True,
)

INSTANCE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


@rules_app.command("test")
def try_rules(
    what: Annotated[
        list[str],
        typer.Argument(metavar="FILE|ID...", help="DICOM files, or instances of the source."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Show which rule decides for a file or instance, and why.

    Moves nothing and prints no attribute values. A file is treated as uploaded by REST, without a
    sending modality. Exit code 3 if one cannot be decided.
    """
    from bridge.commands.output import print_json, say
    from bridge.config import load_settings
    from bridge.untrusted_text import visible

    job = load_settings().job()
    told: list[dict[str, object]] = []
    failed = False
    for name in what:
        try:
            told.append({"what": name} | _judged(job, *_decided(name, job)))
        except InstanceError as exc:
            failed = True
            told.append({"what": name, "error": exc.message, "reason": str(exc.reason)})
    if as_json:
        print_json(told)
    else:
        for one in told:
            for line in _lines(one):
                say(visible(line))
    return EXIT_INCOMPLETE if failed else EXIT_DONE


def _decided(name: str, job: Job) -> tuple[Handling, Facts]:
    from bridge.checks.ask_both_servers import inspector
    from bridge.checks.expected import decided, decided_of_file

    path = Path(name)
    if path.is_file():
        try:
            return decided_of_file(memoryview(path.read_bytes()), job)
        except OSError as exc:
            raise ConfigurationError(f"{name} cannot be read: {exc.strerror}.") from exc
    if not INSTANCE_ID.fullmatch(name):
        raise ConfigurationError(
            f"{name} is neither a file nor the ID of an instance.",
            advice="An ID is Orthanc's: five groups of eight digits, as parked list has them.",
        )
    with inspector(job.source) as client:
        return decided(client, name, job)


def _judged(job: Job, handling: Handling, facts: Facts) -> dict[str, object]:
    from bridge.dicom.syntaxes import syntax_of
    from bridge.rules import steps_to

    steps = steps_to(job.rules, facts)
    decides = next((step.line for step in steps if not step.failed), None)
    ways = (handling.source_syntax, handling.target_syntax)
    return {
        "rule_at_line": decides,
        "treatment": str(handling.treatment),
        "source_syntax": syntax_of(ways[0]).keyword if ways[0] else "",
        "target_syntax": syntax_of(ways[1]).keyword if ways[1] else "",
        "reason": None if handling.reason is None else str(handling.reason),
        "passed_over": [
            {"line": step.line, "does_not_hold": step.failed} for step in steps if step.failed
        ],
        "rules": job.rules_generation,
    }


def _lines(one: dict[str, object]) -> list[str]:
    if "error" in one:
        return [f"{one['what']}: cannot be decided ({one['reason']}): {one['error']}"]
    line = one["rule_at_line"]
    decides = "no rule decides" if line is None else f"the rule at line {line} decides"
    ways = " -> ".join(str(one[name]) for name in ("source_syntax", "target_syntax") if one[name])
    reason = f" ({one['reason']})" if one["reason"] else ""
    lines = [f"{one['what']}: {decides}: {one['treatment']}{reason}, {ways}"]
    passed = one["passed_over"]
    if isinstance(passed, list):
        lines += [f"  line {s['line']} does not: {s['does_not_hold']}" for s in passed]
    return lines

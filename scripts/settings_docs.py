"""Write the settings into docs/configuration.md and .env.example, from bridge.config.

    make docs        writes both files
    tests/unit/test_docs.py calls the same functions and compares

The description of a field in bridge.config.Settings is its documentation; only secrets, which
are not fields, are described here.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from bridge.config import SECRETS, WORKERS_BEYOND_CPUS, Settings, variable_of
from bridge.credentials import ADMIN_TOKEN, NOTIFY_URLS, POKE_TOKEN, WEBHOOK_SECRET

ROOT = Path(__file__).resolve().parents[1]
TABLE_PATH = ROOT / "docs" / "configuration.md"
EXAMPLE_PATH = ROOT / ".env.example"
BEGIN = "<!-- settings: written by make docs -->"
END = "<!-- settings: end -->"

# Each group begins with what is set most often. A setting that no group names is in the last one.
_GROUPS = {
    "Connection": "source_url target_url source_ca_file target_ca_file source_client_cert_file "
    "source_client_key_file target_client_cert_file target_client_key_file http_timeout_s",
    "What becomes of instances": "transfer_syntax on_undecodable rules_file start verify on_video "
    "on_wrong_label",
    "Pace": "workers transfers max_instances_s schedule max_mbit_s rate_timetable window "
    "worker_memory_mb spool_above_mb task_timeout_s attempts parked_retry parked_retries_per_hour "
    "poll_interval_s page_size",
    "Safety": "state_path proof source_retention on_feed_reset feed_confirm_s retention_per_hour "
    "retention_day_share retention_trial_s retention_risk servers_are_distinct shared_directory "
    "shutdown_timeout_s command_patience_s recount_interval_s feed_overlap feed_gap_hours "
    "feed_gaps_max",
    "Keeping two servers equal": "verify_every repair mirror_deletions repair_limit verify_rate "
    "verify_deep carry carry_every carry_max_mb delivered_sign",
    "Monitoring": "name health_host health_port health_cert_file health_key_file log_level "
    "log_format audit_path audit_max_mb "
    "keep_studies_days traces_url stall_after_s lag_limit_s parked_limit "
    "source_public_url target_public_url command_prefix",
    "Events": "events webhook_url webhook_ca_file webhook_client_cert_file webhook_client_key_file "
    "events_fold_s digest_at",
    "Cluster": "executor dask_tls_ca_file dask_tls_cert_file dask_tls_key_file",
    "Others": "",
}
GROUPS = {title: tuple(names.split()) for title, names in _GROUPS.items()}

EXAMPLE_WIDTH = 98
EXAMPLE_URLS = {
    "source_url": "http://127.0.0.1:8042",
    "target_url": "http://127.0.0.1:8043",
}
SECRET_MEANINGS = {
    "USERNAME": "User name for HTTP basic authentication at the {side}.",
    "PASSWORD": "Password of that user.",
    "TOKEN": "Bearer token for the {side}, instead of a user name and a password.",
}
POKE_MEANING = (
    "Token that a POST to /poke must contain (docs/poke.md), 16 characters or more. Without it "
    "/poke does not exist."
)
ADMIN_MEANING = (
    "Token that lets people pause, retry, replay and more over HTTP (docs/actions.md), 24 "
    "characters or more. Several: NAME:TOKEN, one on each line. Without it nobody can."
)
OTHER_MEANINGS = {
    WEBHOOK_SECRET: "Secret that events are signed with, 16 characters or more; BRIDGE_WEBHOOK_URL "
    "needs it.",
    NOTIFY_URLS: "Addresses, as apprise writes them, to which events are sent; separated by spaces "
    "or line breaks (docs/events.md).",
}
EXAMPLE_HEAD = """\
# The settings of orthanc-bridge. A line that begins with # shows a default.
#
# The bridge reads this file if it is called .env and is in the directory in which it starts. If the
# file has another name, set that in the environment: BRIDGE_ENV_FILE=/etc/orthanc-bridge.env
# A variable of the environment takes precedence over the same one in this file.
# More on each setting: orthanc-bridge docs configuration
"""
EXAMPLE_SECRETS = """\

# Secrets. Better put each into its own file, whose only line is the secret, and set the variable
# that ends in _FILE to the name of that file. Others can read an environment easily.
"""


def accepted(field: FieldInfo) -> str:
    """Say which values a field takes, as far as its type tells."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    low = high = ""
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            low = f"{rule.ge}"
        elif isinstance(rule, annotated_types.Gt):
            low = f"more than {rule.gt}"
        elif isinstance(rule, annotated_types.Le):
            high = f"{rule.le}"
    if low and high:
        return f"{low} to {high}"
    if low:
        return low if low.startswith("more") else f"{low} or more"
    return ""


def default(name: str, field: FieldInfo) -> str:
    """Return the default as it would be written, "" when there is none to write."""
    if field.is_required() or field.default is None or name == "workers":
        return ""
    return str(field.default)


def grouped() -> dict[str, list[str]]:
    """Return the settings of each group, in the order in which they are shown."""
    named = {name for names in GROUPS.values() for name in names}
    found = {title: list(names) for title, names in GROUPS.items()}
    found[list(GROUPS)[-1]] += [name for name in Settings.model_fields if name not in named]
    return {title: names for title, names in found.items() if names}


def tables() -> str:
    """Return the Markdown tables of every setting that is not a secret, one for each group."""
    parts = [f"### {title}\n\n{table(names)}" for title, names in grouped().items()]
    return "\n\n".join(parts)


def table(names: list[str]) -> str:
    """Return the Markdown table of some settings."""
    lines = ["| variable | default | accepts | meaning |", "|---|---|---|---|"]
    for name in names:
        field = Settings.model_fields[name]
        shown = f"`{default(name, field)}`" if default(name, field) else "none"
        if field.is_required():
            shown = "**required**"
        elif name == "workers":
            shown = f"number of CPUs + {WORKERS_BEYOND_CPUS}"
        lines.append(
            f"| `{variable_of(name)}` | {shown} | {accepted(field)} | {field.description} |"
        )
    return "\n".join(lines)


def comment(text: str) -> str:
    """Return the text as comment lines of a bounded width."""
    lines = textwrap.wrap(text, EXAMPLE_WIDTH, initial_indent="# ", subsequent_indent="# ")
    return "\n".join(lines) + "\n"


def example() -> str:
    """Return the text of .env.example."""
    parts = [EXAMPLE_HEAD]
    titles = {names[0]: title for title, names in grouped().items()}
    for name in (name for names in grouped().values() for name in names):
        field = Settings.model_fields[name]
        if name in titles:
            parts.append(f"\n# ---- {titles[name]} ----\n")
        takes = accepted(field)
        # The descriptions name the words that a setting takes; they leave out its limits.
        limits = f" ({takes})" if takes and "`" not in takes else ""
        parts.append("\n" + comment(f"{field.description}{limits}"))
        if name in EXAMPLE_URLS:
            parts.append(f"{variable_of(name)}={EXAMPLE_URLS[name]}\n")
        else:
            parts.append(f"#{variable_of(name)}={default(name, field)}\n")
    parts.append(EXAMPLE_SECRETS)
    for secret in SECRETS:
        side = "source" if "_SOURCE_" in secret else "target"
        known = OTHER_MEANINGS | {POKE_TOKEN: POKE_MEANING, ADMIN_TOKEN: ADMIN_MEANING}
        meaning = known.get(secret) or SECRET_MEANINGS[secret.rpartition("_")[2]].format(side=side)
        parts.append(f"\n{comment(meaning)}#{secret}=\n#{secret}_FILE=\n")
    return "".join(parts)


def with_table(text: str) -> str:
    """Return the text of docs/configuration.md with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{TABLE_PATH} has lost its marks: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> int:
    """Write both files."""
    TABLE_PATH.write_text(with_table(TABLE_PATH.read_text("utf-8")), "utf-8")
    EXAMPLE_PATH.write_text(example(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

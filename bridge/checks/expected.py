"""What the bridge would do with an instance, told without moving it: for check, plan, dry run.

Orthanc's metadata is asked first. Where it does not tell (Orthanc 1.10 does not keep the syntax of
HTJ2K, JPEG XL and a few others; a rule may ask for an attribute) the head of the file is read.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.checks.ask_both_servers import ReadingClient
from bridge.decision import Handling, handling_of, handling_of_file
from bridge.dicom.facts import HEAD_BYTES, HEAD_GROWS, facts_of_file
from bridge.dicom.file_meta import read_file_meta
from bridge.model import SIZE_FACT, Facts, Job
from bridge.rules import attributes_of, facts_of_metadata

SYNTAX_HEAD_BYTES = 64 * 1024
"""More than any file meta information needs."""


def expected_handling(
    client: ReadingClient,
    instance_id: str,
    job: Job,
    *,
    known: Mapping[str, str] | None = None,
) -> Handling:
    """Tell what would become of an instance of the source.

    ``known``: its metadata, where they were read with those of others. Raises SideError,
    InstanceGone, and InstanceError for a file that is not DICOM.
    """
    return decided(client, instance_id, job, known=known)[0]


def decided(
    client: ReadingClient,
    instance_id: str,
    job: Job,
    *,
    known: Mapping[str, str] | None = None,
) -> tuple[Handling, Facts]:
    """Tell what would become of an instance, and the facts that decide it. Raises the same."""
    facts = facts_of_metadata(client.instance_metadata(instance_id) if known is None else known)
    handling = handling_of(job, facts)
    if handling is not None:
        return handling, facts
    if any(rule.looks_at_size for rule in job.rules):
        facts[SIZE_FACT] = str(client.attachment_size(instance_id))
    # As the worker asks: for more than its syntax only where a rule does.
    head_bytes = HEAD_BYTES
    while True:
        head = memoryview(client.head(instance_id, head_bytes))
        whole = len(head) < head_bytes
        syntax = read_file_meta(head).syntax
        handling = handling_of(job, facts, file_syntax=syntax)
        if handling is not None:
            return handling, facts
        complete = facts | facts_of_file(head, attributes_of(job.rules), whole=whole)
        if whole:
            return handling_of_file(job, complete, file_syntax=syntax), complete
        handling = handling_of(job, complete, file_syntax=syntax)
        if handling is not None:
            return handling, complete
        head_bytes *= HEAD_GROWS


def decided_of_file(data: memoryview, job: Job) -> tuple[Handling, Facts]:
    """Tell what would become of a file that came to the source by REST. Raises InstanceError."""
    facts = facts_of_metadata({}) | {SIZE_FACT: str(len(data))}
    known = facts | facts_of_file(data, attributes_of(job.rules))
    return handling_of_file(job, known, file_syntax=read_file_meta(data).syntax), known


def syntax_of_head(client: ReadingClient, instance_id: str) -> str:
    """Read the transfer syntax of an instance from its file. Raises InstanceError."""
    head = client.head(instance_id, SYNTAX_HEAD_BYTES)
    return read_file_meta(memoryview(head)).syntax

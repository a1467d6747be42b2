"""Answers that Orthanc would not give are refused, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.model import Change, Page, StoreAnswer
from bridge.orthanc import answers
from bridge.orthanc.answers import WrongAnswer

ID = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
OTHER_ID = "12e9b94a-ce1275f6-af8e90a2-32cbcb9e-ac022d34"


def row(seq: object = 1, **other: object) -> dict[str, object]:
    made: dict[str, object] = {
        "ChangeType": "NewInstance",
        "Date": "20200101T120000",
        "ID": ID,
        "Path": f"/instances/{ID}",
        "ResourceType": "Instance",
        "Seq": seq,
    }
    return made | other


def page(*rows: object, done: object = True, last: object = 1) -> bytes:
    return json.dumps({"Changes": list(rows), "Done": done, "Last": last}).encode()


def changes(body: bytes) -> Page:
    return answers.parse_changes(body, since=0, rows_max=3)


def test_a_page() -> None:
    change = Change(1, "NewInstance", ID, "20200101T120000")
    assert changes(page(row())) == Page((change,), done=True, last=1)
    assert changes(page(last=105)) == Page((), done=True, last=105)


@pytest.mark.parametrize(
    "body",
    [
        page(row("1")),
        page(row(None)),
        page(row(1.0)),
        page(row(True)),
        page(row(-2147483648)),  # the counter is cast to 32 bits in the JSON
        page(row(0)),  # not above since
        page(row(2), row(1)),
        page(row(1), row(1)),
        page(*(row(seq) for seq in range(1, 5))),  # more than asked for
        page(row(ID="")),
        page(row(ID=5)),
        page(row(ID="../../x")),
        page(row(ID="a" * 65)),
        page(row(ID="x\n")),
        page(row(ChangeType="")),
        page(row(ChangeType="x" * 257)),
        page(row(Date=None)),
        page([1]),
        page("x"),
        page(done=None),
        page(done=1),
        page(last="1"),
        page(last=None),
        page(last=-1),
        b'{"Changes": {}, "Done": true, "Last": 1}',
        b"{}",
        b"[]",
        b"null",
        b"1",
        b"",
        b"<html>Login</html>",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"Last":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: str(body[:60]),
)
def test_a_page_that_is_not_one(body: bytes) -> None:
    with pytest.raises(WrongAnswer) as caught:
        changes(body)
    assert len(str(caught.value)) < 100


def test_system_of_an_old_and_of_a_new_version() -> None:
    old = answers.parse_system(b'{"ApiVersion": 16, "Version": "1.10.1", "Name": "A"}')
    assert (old.version, old.has_extended_changes, old.overwrite_instances) == (
        "1.10.1",
        False,
        None,
    )
    assert old.maximum_storage_bytes is None
    new = answers.parse_system(
        json.dumps(
            {
                "ApiVersion": 29,
                "Version": "1.12.10",
                "Name": None,
                "PluginsEnabled": True,
                "DatabaseBackendPlugin": "libOrthancPostgreSQLIndex.so",
                "Capabilities": {"HasExtendedChanges": True},
                "OverwriteInstances": False,
                "MaximumStorageSize": 10,
                "MaximumPatientCount": 3,
                "MaximumStorageMode": "Recycle",
                "IngestTranscoding": "1.2.840.10008.1.2.4.80",
                "ReadOnly": False,
                "StorageCompression": True,
            }
        ).encode()
    )
    assert new.has_extended_changes
    assert (new.name, new.plugins_enabled) == ("", True)
    assert new.database_backend == "libOrthancPostgreSQLIndex.so"
    assert new.overwrite_instances is False
    assert new.maximum_storage_bytes == 10 * 1024 * 1024
    assert (new.maximum_patient_count, new.maximum_storage_mode) == (3, "Recycle")
    assert new.ingest_transcoding == "1.2.840.10008.1.2.4.80"
    assert (new.read_only, new.storage_compression) == (False, True)


def test_a_store_answer() -> None:
    body = json.dumps({"ID": ID, "Status": "Success", "Path": "x"}).encode()
    assert answers.parse_store(body) == StoreAnswer(ID, "Success")
    body = json.dumps({"ID": ID, "Status": "Success", "ParentStudy": OTHER_ID}).encode()
    assert answers.parse_store(body) == StoreAnswer(ID, "Success", OTHER_ID)
    body = json.dumps({"ID": ID, "Status": "Success", "ParentStudy": "DOE^JOHN"}).encode()
    assert answers.parse_store(body) == StoreAnswer(ID, "Success"), "no ID: not kept"


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (answers.parse_system, b'{"Version": "1.10.1"}'),
        (answers.parse_system, b'{"ApiVersion": 16}'),
        (answers.parse_store, b'{"ID": "short", "Status": "Success"}'),
        (answers.parse_store, json.dumps({"ID": ID}).encode()),
        (answers.parse_store, json.dumps({"ID": ID.upper(), "Status": "Success"}).encode()),
        (answers.parse_store, json.dumps([{"ID": ID, "Status": "Success"}]).encode()),
        (answers.parse_metadata, b'{"TransferSyntax": 5}'),
        (answers.parse_metadata, b'["TransferSyntax"]'),
        (answers.parse_md5, b"ccf71ca6735bc1c52fbe33e29eb4288"),
        (answers.parse_md5, b"CCF71CA6735BC1C52FBE33E29EB42886"),
        (answers.parse_md5, b"\xff" * 32),
        (answers.parse_size, b"-1"),
        (answers.parse_size, b"1.5"),
        (answers.parse_size, b"9" * 30),
        (answers.parse_size, "٣".encode()),
        (answers.parse_statistics, b'{"TotalDiskSize": 5, "TotalUncompressedSize": 5}'),
        (answers.parse_statistics, b'{"TotalDiskSize": "x", "TotalUncompressedSize": "5"}'),
    ],
)
def test_other_answers_that_are_not_ones(parse: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(WrongAnswer):
        parse(body)


@pytest.mark.parametrize("body", [b"{}", b'["x"]', b"[1]", b'["a", "b", "c"]'])
def test_identifier_lists_that_are_not_ones(body: bytes) -> None:
    with pytest.raises(WrongAnswer):
        answers.parse_instance_ids(body, rows_max=2)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_an_answer_or_a_wrong_one(value: object) -> None:
    body = json.dumps(value).encode()
    for parse in (changes, answers.parse_system, answers.parse_store, answers.parse_statistics):
        with pytest.raises(WrongAnswer):
            parse(body)


@given(st.fixed_dictionaries({"Changes": st.lists(JSON, max_size=3), "Done": JSON, "Last": JSON}))
def test_any_page_is_valid_or_refused(value: dict[str, object]) -> None:
    try:
        made = changes(json.dumps(value).encode())
    except WrongAnswer:
        return
    assert len(made.changes) == len(value["Changes"])  # type: ignore[arg-type]
    assert made.last >= 0

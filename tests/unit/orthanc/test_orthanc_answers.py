"""Answers that Orthanc would not give are refused, whatever they are."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Change, Page, StoreAnswer
from bridge.orthanc import answers
from bridge.orthanc.answers import FEW_VALUES, ROW_VALUES_MAX, VALUE_BYTES_MIN, WrongAnswer

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
    ids=lambda body: body[:20].hex(),
)
def test_a_page_that_is_not_one(body: bytes) -> None:
    with pytest.raises(WrongAnswer) as caught:
        changes(body)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("strange", ["..", "../../x", "a" * 65, f"{ID}\n", ID.upper(), "\ud800"])
def test_a_row_that_names_no_identifier_names_nothing(strange: str) -> None:
    told = changes(page(row(1), row(2, ID=strange), row(3, Date="\x1b[2J"), last=3))
    assert [change.resource_id for change in told.changes] == [ID, "", ID]
    assert [change.date for change in told.changes] == ["20200101T120000"] * 2 + [""]


@pytest.mark.parametrize("seq", [2**53, 2**63, 2**64, 10**30])
def test_a_sequence_that_no_database_has(seq: int) -> None:
    with pytest.raises(WrongAnswer, match="Seq"):
        changes(page(row(seq)))
    with pytest.raises(WrongAnswer, match="Last"):
        changes(page(last=seq))


def test_what_a_server_says_of_itself_is_valid_bounded_and_shown_as_it_is() -> None:
    told = {"ApiVersion": 16, "Version": "1.10\ud800", "Name": "\x1b[2J\u202e" + "n" * 60_000}
    info = answers.parse_system(json.dumps(told).encode())
    assert info.version == "1.10\ufffd"
    assert info.name.startswith("\\x1b[2J\\u202en")
    assert len(info.name) <= answers.SHOWN_CHARACTERS_MAX
    raw = b'{"ApiVersion": 16, "Version": "1.10\xed\xa0\x80"}'
    assert "\ud800" not in answers.parse_system(raw).version


def test_a_metadata_that_is_no_unicode_is_told_without_it() -> None:
    told = answers.parse_metadata(b'{"1024": "a\\ud800b", "TransferSyntax": "1.2"}')
    assert told == {"1024": "a\ufffdb", "TransferSyntax": "1.2"}
    assert "\ud800" not in str(answers.parse_metadata(b'{"1024": "a\xed\xa0\x80b"}'))


def test_limits_out_of_range_are_not_told() -> None:
    for number in (-1, 2**64, 1.5, True, "5"):
        told = {"ApiVersion": 16, "Version": "1", "MaximumStorageSize": number}
        assert answers.parse_system(json.dumps(told).encode()).maximum_storage_bytes is None


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
                "DatabaseVersion": 6,
                "Capabilities": {
                    "HasExtendedChanges": True,
                    "HasExtendedFind": True,
                    "HasLabels": False,
                },
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
    assert (old.database_backend, old.database_version, old.capabilities) == (None, None, ())
    assert new.database_backend == "libOrthancPostgreSQLIndex.so"
    assert new.database_version == 6
    assert new.capabilities == ("HasExtendedChanges", "HasExtendedFind")
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


@pytest.mark.slow
@given(JSON)
def test_any_json_is_an_answer_or_a_wrong_one(value: object) -> None:
    body = json.dumps(value).encode()
    for parse in (changes, answers.parse_system, answers.parse_store, answers.parse_statistics):
        with pytest.raises(WrongAnswer):
            parse(body)


@pytest.mark.slow
@given(st.fixed_dictionaries({"Changes": st.lists(JSON, max_size=3), "Done": JSON, "Last": JSON}))
def test_any_page_is_valid_or_refused(value: dict[str, object]) -> None:
    try:
        made = changes(json.dumps(value).encode())
    except WrongAnswer:
        return
    assert len(made.changes) == len(value["Changes"])  # type: ignore[arg-type]
    assert made.last >= 0


LISTED_BYTES = 64 * 1024
MEMORY_FACTOR = 40
"""An empty object takes two bytes and a comma as text, and 72 as a value in a list."""


def listed(item: bytes) -> bytes:
    return b"[" + b",".join([item] * (LISTED_BYTES // (len(item) + 1))) + b"]"


def named(value: bytes) -> bytes:
    items = (b'"%x":%s' % (number, value) for number in range(LISTED_BYTES // 9))
    return b"{" + b",".join(items) + b"}"


HOLDERS: dict[str, tuple[Callable[[bytes], object], Callable[[bytes], bytes]]] = {
    "changes": (
        lambda body: answers.parse_changes(body, since=0, rows_max=30_000),
        lambda rows: b'{"Done":true,"Last":1,"Changes":%s}' % rows,
    ),
    "instances": (
        lambda body: answers.parse_instance_ids(body, rows_max=30_000),
        lambda rows: rows,
    ),
    "children": (
        lambda body: answers.parse_children(body, "Series"),
        lambda rows: b'{"Series":%s}' % rows,
    ),
    "lookup": (answers.parse_lookup, lambda rows: rows),
    "bulk metadata": (
        lambda body: answers.parse_bulk_metadata(body, asked=[ID] * 30_000),
        lambda rows: rows,
    ),
    "bulk described": (
        lambda body: answers.parse_bulk_described(body, asked=[ID] * 30_000),
        lambda rows: rows,
    ),
    "found described": (
        lambda body: answers.parse_found_described(body, rows_max=30_000),
        lambda rows: rows,
    ),
    "attachments of one that is found": (
        lambda body: answers.parse_found_described(body, rows_max=1),
        lambda rows: b'[{"ID":"%s","Metadata":{},"Attachments":%s}]' % (ID.encode(), rows),
    ),
    "bulk held": (
        lambda body: answers.parse_bulk_held(body, asked=[ID] * 30_000),
        lambda rows: rows,
    ),
    "bulk studies": (
        lambda body: answers.parse_bulk_studies(body, rows_max=30_000),
        lambda rows: rows,
    ),
    "bulk metadata of one": (
        lambda body: answers.parse_bulk_metadata(body, asked=[ID]),
        lambda rows: b'[{"ID":"%s","Metadata":%s}]' % (ID.encode(), rows),
    ),
    "metadata": (answers.parse_metadata, lambda rows: rows),
    "peers": (answers.parse_peers, lambda rows: rows),
    "system": (answers.parse_system, lambda rows: rows),
    "store": (answers.parse_store, lambda rows: rows),
    "statistics": (answers.parse_statistics, lambda rows: rows),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        *(listed(item) for item in (b"{}", b"[]", b'{"a":1}', b"[1]", b'"ab"', b"999", b"null")),
        listed(b'{"Seq":1}'),
        listed(b'{"":{}}'),
        named(b"1"),
        named(b"{}"),
    ],
    ids=lambda content: content[:12].decode(),
)
@pytest.mark.parametrize("holder", HOLDERS)
def test_an_answer_that_is_all_mistakes_takes_little_memory(holder: str, content: bytes) -> None:
    """Each mistake as an object of its own took a thousand times the bytes of the answer."""
    parse, around = HOLDERS[holder]
    body = around(content)
    tracemalloc.start()
    try:
        with pytest.raises(WrongAnswer):
            parse(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_FACTOR * len(body)


def test_so_many_values_as_a_page_can_have_are_read_and_no_more() -> None:
    allowed = FEW_VALUES + 3 * ROW_VALUES_MAX
    # The objects around and the list of rows, two commas, and one more comma for each number.
    for surplus, fits in ((-1, True), (0, True), (1, False)):
        body = b'{"Changes":[],"Done":true,"Last":1,"More":[1%s]}' % (
            b",1" * (allowed - 6 + surplus)
        )
        if fits:
            assert changes(body).last == 1
            continue
        with pytest.raises(WrongAnswer, match=f"more than {allowed} values"):
            changes(body)


@pytest.mark.parametrize("rows", [1, 1000, 20_000])
def test_a_full_page_of_orthanc_s_rows_is_read(rows: int) -> None:
    """As 1.10 to 1.13 write it, indented, with fields to spare."""
    more = {f"New{number}": number for number in range(6)}
    body = json.dumps(
        {
            "Changes": [row(number, **more) for number in range(1, rows + 1)],
            "Done": False,
            "Last": rows,
        },
        indent=3,
    ).encode()
    assert len(answers.parse_changes(body, since=0, rows_max=rows).changes) == rows
    listing = json.dumps([ID] * rows, indent=3).encode()
    assert len(answers.parse_instance_ids(listing, rows_max=rows)) == rows
    assert len(answers.parse_children(b'{"Instances":%s}' % listing, "Instances")) == rows


def test_children_may_have_as_many_values_as_their_bytes_allow() -> None:
    allowed = FEW_VALUES + 64_000 // VALUE_BYTES_MIN
    for values, fits in ((allowed - 1, True), (allowed, True), (allowed + 1, False)):
        text = b"," * (values - 4)  # four are around it
        body = b'{"Series":[],"Tags":{"a":"%s"}}' % text
        body += b" " * (64_000 - len(body))
        if fits:
            assert answers.parse_children(body, "Series") == []
            continue
        with pytest.raises(WrongAnswer, match=f"more than {allowed} values"):
            answers.parse_children(body, "Series")


def test_texts_of_a_server_are_made_fit_to_be_shown_and_others_than_texts_are_not_told() -> None:
    told = {"Version": "1.12\x1b[31m", "ApiVersion": 27, "Name": "a\x07b", "MaximumStorageMode": 5}
    info = answers.parse_system(json.dumps(told).encode())
    assert not any(ord(character) < 32 for character in info.version + info.name)
    assert info.version.startswith("1.12")
    assert info.maximum_storage_mode is None
    for other in ({"Version": ""}, {"Version": 5}, {"Version": "x" * 257}):
        with pytest.raises(WrongAnswer):
            answers.parse_system(json.dumps(told | other).encode())


def many(count: int, value: object) -> dict[str, object]:
    return {f"n{number:05}": value for number in range(count)}


@pytest.mark.parametrize(
    ("parse", "value", "most"),
    [
        (answers.parse_metadata, "1", answers.METADATA_MAX),
        (answers.parse_peers, {"Url": "http://h/"}, answers.PEERS_MAX),
    ],
)
def test_more_than_a_server_has_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    parse: Callable[[bytes], dict[str, str]],
    value: object,
    most: int,
) -> None:
    monkeypatch.setattr(answers, "FEW_VALUES", 10**6)  # another bound, which comes before
    assert len(parse(json.dumps(many(most, value)).encode())) == most
    with pytest.raises(WrongAnswer, match=f"more than {most}"):
        parse(json.dumps(many(most + 1, value)).encode())


def test_so_many_capabilities_are_told() -> None:
    for count in (3, answers.CAPABILITIES_MAX, answers.CAPABILITIES_MAX + 1):
        told = {"ApiVersion": 1, "Version": "1.13.0", "Capabilities": many(count, True)}
        info = answers.parse_system(json.dumps(told).encode())
        assert info.capabilities == tuple(many(min(count, 20), True))

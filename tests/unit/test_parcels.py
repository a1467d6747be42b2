"""Large things go through files, and come out the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from pydicom.uid import UID

from bridge.core.errors import InstanceError
from bridge.core.file_meta import read_file_meta
from bridge.core.model import TranscodeOptions
from bridge.core.transcode import transcode
from bridge.parcels import FileRoom, transcoded
from tests.dicom_samples import file_bytes, small_ct_dataset

NATIVE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"


def _deflated() -> bytes:
    dataset = small_ct_dataset(rows=128, columns=128)
    dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    return file_bytes(dataset)


@pytest.mark.parametrize("spool_above_bytes", [1, 1000, 10_000_000])
def test_a_deflated_data_set_is_the_same_through_memory_and_file(spool_above_bytes: int) -> None:
    data = _deflated()
    options = TranscodeOptions()
    plain = b"".join(transcode(data, wanted_syntax=NATIVE, options=options).body)
    with transcoded(
        data,
        meta=read_file_meta(memoryview(data)),
        wanted_syntax=NATIVE,
        options=options,
        instance_id="i",
        spool_above_bytes=spool_above_bytes,
    ) as parcel:
        assert b"".join(parcel.chunks()) == plain
        assert parcel.body_bytes == len(plain)


def test_what_inflates_beyond_the_limit_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    make = tempfile.TemporaryFile

    def counted() -> object:
        made.append(1)
        return make(dir=tmp_path)

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    room = FileRoom(100)
    for _ in range(10):
        room.append(b"x" * 25)
    assert bytes(room.view()) == b"x" * 250
    assert len(made) == 1
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_a_cut_stream_is_refused_with_a_file_too() -> None:
    data = _deflated()[:-200]
    with (
        pytest.raises(InstanceError),
        transcoded(
            data,
            meta=read_file_meta(memoryview(data)),
            wanted_syntax=NATIVE,
            options=TranscodeOptions(),
            instance_id="i",
            spool_above_bytes=1,
        ),
    ):
        pytest.fail("it was accepted")


def test_long_private_file_meta_is_no_obstacle() -> None:
    dataset = small_ct_dataset()
    dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.3")
    dataset.file_meta.PrivateInformation = b"\0" * 70_000
    data = file_bytes(dataset)
    result = transcode(data, wanted_syntax="1.2.840.10008.1.2", options=TranscodeOptions())
    assert result.source_syntax == NATIVE

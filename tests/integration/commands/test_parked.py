"""``parked`` and ``doctor`` as commands, between two real Orthancs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from bridge.demo.orthanc_server import OrthancServer
from bridge.errors import EXIT_CONFIGURATION, EXIT_DONE, EXIT_INCOMPLETE, EXIT_TARGET
from tests.dicom_samples import file_bytes, small_ct, small_ct_dataset
from tests.integration.conftest import ORTHANC, Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

J2K = "1.2.840.10008.1.2.4.90"


def undecodable_jpeg_ls() -> bytes:
    dataset = small_ct_dataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = encapsulate([b"no codestream either"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


def listed(pair: Pair, *filters: str) -> list[str]:
    done = pair.run("parked", "list", "--json", *filters)
    assert done.exit_code == EXIT_DONE, done.stderr
    return [row["instance"] for row in done.json]


def test_parked_instances_are_chosen_by_every_filter(pair: Pair) -> None:
    first = pair.send(undecodable_ct())
    middle = pair.last()
    second = pair.send(undecodable_jpeg_ls())
    assert pair.run("run", "--once").exit_code == EXIT_INCOMPLETE
    both = sorted([first, second])
    assert listed(pair) == both
    assert listed(pair, "--reason", "undecodable") == both
    assert listed(pair, "--reason", "video") == []
    assert listed(pair, "--syntax", "JPEG2000Lossless") == [first]
    assert listed(pair, "--syntax", "1.2.840.10008.1.2.4.80") == [second]
    assert listed(pair, "--from", str(middle + 1)) == [second]
    assert listed(pair, "--to", str(middle)) == [first]
    assert listed(pair, "--older-than", "1") == []
    assert listed(pair, "--newer-than", "1") == both
    assert listed(pair, "--newer-than", "1", "--syntax", J2K, "--reason", "undecodable") == [first]
    assert pair.run("parked", "list", "--syntax", "Nonsense").exit_code == EXIT_CONFIGURATION

    done = pair.run("parked", "drop", "--syntax", J2K, "--json")
    assert (done.exit_code, done.json) == (EXIT_DONE, {"dropped": [first]})
    settings = {"ON_UNDECODABLE": "forward"}
    assert pair.run("parked", "retry", "--from", "1", **settings).exit_code == EXIT_DONE
    assert listed(pair) == []
    assert pair.held() == {second}


def test_show_tells_what_a_bug_report_needs_and_no_more(pair: Pair) -> None:
    parked = pair.send(undecodable_ct())
    assert pair.run("run", "--once").exit_code == EXIT_INCOMPLETE
    done = pair.run("parked", "show", parked, "--json")
    assert done.exit_code == EXIT_DONE, done.stderr
    told = done.json
    assert (told["reason"], told["source_syntax"]) == ("undecodable", J2K)
    assert told["message"]
    assert told["bridge"]["versions"]["imagecodecs"]
    assert told["bridge"]["decoders"]["OpenJPEG"].startswith("pylibjpeg-openjpeg ")
    assert told["source"]["file_bytes"] == len(
        b"".join(pair.source.open_instance(parked, deadline_s=10).__enter__().chunks)
    )
    assert told["source"]["orthanc"].count(".") == 2
    text = pair.run("parked", "show", parked).stdout
    for secret in ("Bridge^Test", "BRIDGE-TEST"):
        assert secret not in done.stdout + text
    pair.source_server.stop()
    done = pair.run("parked", "show", parked, "--json")
    assert done.exit_code == EXIT_DONE, done.stderr
    assert "not_available" in done.json["source"]


def test_export_writes_a_reproducer_after_a_confirmation(pair: Pair, tmp_path: Path) -> None:
    data = undecodable_ct()
    parked = pair.send(data)
    assert pair.run("run", "--once").exit_code == EXIT_INCOMPLETE
    out = tmp_path / "reproducer.dcm"
    done = pair.run("parked", "export", parked, str(out))
    assert done.exit_code == EXIT_CONFIGURATION
    assert "--yes" in done.stderr
    assert not out.exists()

    done = pair.run("parked", "export", parked, str(out), "--yes", "--json")
    assert done.exit_code == EXIT_DONE, done.stderr
    assert "WARNING" in done.stderr
    assert json.loads(done.stdout)["elements_replaced"] > 3
    assert oct(out.stat().st_mode)[-3:] == "600"
    before, after = dcmread(io.BytesIO(data)), dcmread(out)
    assert after.PixelData == before.PixelData
    assert after.PatientName != before.PatientName
    assert after.SOPInstanceUID != before.SOPInstanceUID
    again = pair.send(out.read_bytes())
    assert pair.run("run", "--once").exit_code == EXIT_INCOMPLETE
    assert set(listed(pair, "--reason", "undecodable")) == {parked, again}, "it shows the fault"

    assert pair.run("parked", "export", parked, str(out), "--yes").exit_code == EXIT_CONFIGURATION
    pair.source.delete_instance(parked)
    gone = pair.run("parked", "export", parked, str(tmp_path / "gone.dcm"), "--yes")
    assert gone.exit_code == EXIT_INCOMPLETE
    assert list(tmp_path.glob("*gone*")) == []


def test_doctor_is_content_with_two_real_servers_and_leaves_nothing(pair: Pair) -> None:
    pair.send(small_ct())
    done = pair.run("doctor", "--json", SOURCE_RETENTION="24h")
    assert done.exit_code == EXIT_DONE, done.stdout + done.stderr
    assert {one["level"] for one in done.json} == {"ok", "note"}, done.stdout
    assert "worker processes can be started" in done.stdout
    assert pair.held() == set()
    assert len(pair.source.list_instances(0, 10)) == 1
    assert not pair.state_path.exists()


def test_doctor_finds_a_target_that_may_only_be_read(
    pair: Pair, orthanc: Callable[..., OrthancServer], tmp_path: Path
) -> None:
    lua = tmp_path / "readonly.lua"
    lua.write_text("function IncomingHttpRequestFilter(m) return m == 'GET' end", "ascii")
    server = orthanc("readonly", config=ORTHANC | {"LuaScripts": [str(lua)]})
    done = pair.run("doctor", "--json", TARGET_URL=server.url)
    assert done.exit_code == EXIT_TARGET, done.stdout
    errors = [one for one in done.json if one["level"] == "error"]
    assert [one["subject"] for one in errors] == ["target"]
    assert "POST /instances" in errors[0]["message"]

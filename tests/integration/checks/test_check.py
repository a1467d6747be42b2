"""``check``, ``plan`` and ``report`` between two real Orthancs, as commands."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
from pathlib import Path

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, RLELossless, generate_uid

from bridge.dicom import encoders
from bridge.dicom.description import Description
from bridge.errors import EXIT_CONFIGURATION, EXIT_DONE, EXIT_INCOMPLETE
from tests.bridge_process import BridgeProcess, wait_until
from tests.dicom_samples import (
    file_bytes,
    identity_of,
    small_ct,
    small_ct_dataset,
    small_series,
)
from tests.integration.conftest import Pair, undecodable_ct

pytestmark = pytest.mark.orthanc

NATIVE = "1.2.840.10008.1.2.1"


def compressed(seed: int = 0, *, study_uid: str | None = None) -> bytes:
    """Return a CT slice in RLE, or (even seeds) JPEG 2000 without loss."""
    dataset = small_ct_dataset(rows=64, columns=64, seed=seed, study_uid=study_uid)
    samples = dataset.pixel_array
    description = Description(
        rows=64, columns=64, samples=1, photometric="MONOCHROME2", planar=None, allocated=16,
        stored=12, signed=False, frames=1, lossy="",
    )  # fmt: skip
    rle = seed % 2 == 1
    frame = (encoders.rle if rle else encoders.jpeg_2000)(samples, description)
    dataset.file_meta.TransferSyntaxUID = RLELossless if rle else JPEG2000Lossless
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


def high_throughput() -> bytes:
    """Return a CT slice in HTJ2K, whose syntax Orthanc 1.10 does not keep as metadata."""
    dataset = small_ct_dataset(rows=64, columns=64, seed=7)
    description = Description(
        rows=64, columns=64, samples=1, photometric="MONOCHROME2", planar=None, allocated=16,
        stored=12, signed=False, frames=1, lossy="",
    )  # fmt: skip
    frame = encoders.htj2k(dataset.pixel_array, description)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


def by_state(found: dict[str, object]) -> dict[str, str]:
    differences = found["findings"]
    assert isinstance(differences, list)
    return {difference["instance"]: difference["state"] for difference in differences}


def test_check_finds_every_kind_of_difference_and_fixes_what_is_missing(pair: Pair) -> None:
    ids = [pair.send(compressed(seed)) for seed in range(4)]
    parked = pair.send(undecodable_ct())
    done = pair.run("check", "--json")
    assert by_state(done.json) == dict.fromkeys([*ids, parked], "waiting")
    done = pair.run("run", "--once")
    assert done.exit_code == EXIT_INCOMPLETE
    assert "1 instance parked in all" in done.stderr
    late = pair.send(compressed(9))
    pair.target.delete_instance(ids[0])
    extra = pair.target.store(small_ct(), deadline_s=10).instance_id
    wrong_data = compressed(11)
    wrong = pair.send(wrong_data)
    pair.target.store(wrong_data, deadline_s=10)

    done = pair.run("check", "--json")
    assert done.exit_code == EXIT_INCOMPLETE, done.stderr
    assert by_state(done.json) == {
        ids[0]: "missing",
        late: "waiting",
        parked: "parked",
        extra: "extra",
        wrong: "syntax",
    }
    assert done.json["summary"]["instances_per_second"] > 0

    done = pair.run("check", "--fix", "--format", "csv")
    assert done.exit_code == EXIT_INCOMPLETE, done.stderr
    rows = {row["instance"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert {i: row["state"] for i, row in rows.items()} == {
        ids[0]: "fixed",
        late: "fixed",
        parked: "parked",
        extra: "extra",
        wrong: "syntax",
    }
    assert {ids[0], late} <= pair.held()

    pair.target.delete_instance(extra)
    pair.target.delete_instance(wrong)
    assert pair.run("parked", "drop", parked).exit_code == EXIT_DONE
    pair.source.delete_instance(parked)
    done = pair.run("check", "--deep", "--fix")
    assert done.exit_code == EXIT_DONE, done.stdout
    assert re.search(r"^images_compared +[0-9]+$", done.stdout, re.MULTILINE)
    done = pair.run("check")
    assert re.search(r"^images_compared +none; .*--deep", done.stdout, re.MULTILINE)
    assert pair.run("check", "--json").json["summary"]["images_compared"] is None
    done = pair.run("check", "--sample", "3", "--json")
    assert (done.exit_code, done.json["summary"]["images_compared"]) == (EXIT_DONE, 3)


def test_deep_finds_one_changed_sample(pair: Pair) -> None:
    right = pair.send(compressed(1))
    original = small_ct_dataset(rows=64, columns=64, seed=2)
    wrong = pair.send(file_bytes(original))
    pixels = bytearray(original.PixelData)
    pixels[100] ^= 1
    original.PixelData = bytes(pixels)
    pair.target.store(file_bytes(original), deadline_s=10)
    unreadable = pair.send(undecodable_ct())
    pair.run("run", "--once", ON_UNDECODABLE="forward")
    assert pair.run("check", ON_UNDECODABLE="forward").exit_code == EXIT_DONE
    done = pair.run("check", "--deep", "--json", ON_UNDECODABLE="forward")
    assert done.exit_code == EXIT_INCOMPLETE
    assert by_state(done.json) == {wrong: "pixels"}
    assert done.json["summary"]["images_compared"] == 3
    assert {right, unreadable} <= pair.held()


def test_the_audit_file_and_the_report_answer_for_a_study(pair: Pair) -> None:
    audit = pair.home / "audit.jsonl"
    study = generate_uid()
    ids = [pair.send(compressed(seed, study_uid=study)) for seed in range(3)]
    native = small_ct(study_uid=study)
    ids.append(pair.send(native))
    settings = {"AUDIT_PATH": str(audit), "PROOF": "stored"}
    assert pair.run("run", "--once", **settings).exit_code == EXIT_DONE

    lines = {line["instance"]: line for line in map(json.loads, audit.open())}
    assert set(lines) == set(ids)
    for instance_id in ids[:3]:
        line = lines[instance_id]
        assert line["outcome"] == "delivered"
        assert len(line["samples_sha256"]) == 64
        assert line["target_md5"] == pair.target.stored_md5(instance_id)
        assert line["decoder_version"]
    assert lines[ids[3]]["sop_instance_uid"] == identity_of(native).sop_uid
    assert "Bridge^Test" not in audit.read_text()
    assert "BRIDGE-TEST" not in audit.read_text()

    done = pair.run("report", "--study", study, "--json", **settings)
    assert done.exit_code == EXIT_DONE, done.stderr
    assert {row["instance"]: row["fate"] for row in done.json["instances"]} == dict.fromkeys(
        ids, "arrived"
    )

    # The source lets them go: the audit file still tells whether the target has the same image.
    for instance_id in ids:
        pair.source.delete_instance(instance_id)
    done = pair.run("report", "--study", study, "--format", "json", **settings)
    assert done.exit_code == EXIT_DONE, done.stdout
    hows = [row["how"] for row in done.json["instances"]]
    assert sum("audit file" in how for how in hows) == 3
    assert sum("MD5" in how for how in hows) == 1

    pair.target.delete_instance(ids[0])
    done = pair.run("report", "--since", "1h", "--json", **settings)
    assert done.exit_code == EXIT_INCOMPLETE
    fates = {row["instance"]: row["fate"] for row in done.json["instances"]}
    assert fates == dict.fromkeys(ids, "arrived") | {ids[0]: "missing"}
    # Nor does the study seem complete, although neither server knows of that one any more.
    orthanc_study = next(iter(lines.values()))["study"]
    for name in (study, orthanc_study):
        done = pair.run("report", "--study", name, "--json", **settings)
        assert done.exit_code == EXIT_INCOMPLETE
        assert {row["instance"]: row["fate"] for row in done.json["instances"]} == fates
    for instance_id in ids[1:]:
        pair.target.delete_instance(instance_id)
    done = pair.run("report", "--study", orthanc_study, "--json", **settings)
    assert {row["fate"] for row in done.json["instances"]} == {"missing"}
    assert len(done.json["instances"]) == len(ids)
    assert pair.run("report", "--study", "1.2.3.4", **settings).exit_code == EXIT_CONFIGURATION


def test_the_report_of_a_range_names_what_is_not_done(pair: Pair) -> None:
    parked = pair.send(undecodable_ct())
    first = pair.send(compressed(1))
    settings = {"AUDIT_PATH": str(pair.home / "audit.jsonl")}
    assert pair.run("run", "--once", **settings).exit_code == EXIT_INCOMPLETE
    last = pair.last()
    later = pair.send(compressed(2))
    done = pair.run("report", "--from", "1", "--to", str(last), "--json", **settings)
    assert done.exit_code == EXIT_INCOMPLETE
    fates = {row["instance"]: row["fate"] for row in done.json["instances"]}
    assert fates == {parked: "parked", first: "arrived"}
    done = pair.run("report", "--from", str(last + 1), **settings)
    assert done.exit_code == EXIT_INCOMPLETE
    assert later in done.stdout
    assert "missing" in done.stdout


def test_the_audit_survives_a_kill_between_instances(pair: Pair, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    ids = {pair.send(compressed(seed)) for seed in range(30)}
    settings = {"AUDIT_PATH": str(audit)}
    running = pair.start("run", **settings)
    running.wait_logged("instance_delivered", 5)
    running.kill()
    assert pair.run("run", "--once", **settings).exit_code == EXIT_DONE
    lines = [json.loads(line) for line in audit.read_bytes().splitlines()]
    assert {line["instance"] for line in lines} == ids
    assert pair.held() == ids


def test_plan_counts_by_syntax_and_transfers_nothing(pair: Pair) -> None:
    for seed in range(4):
        pair.send(compressed(seed))
    pair.send(small_ct())
    pair.send(high_throughput())
    done = pair.run("plan", "--json")
    assert done.exit_code == EXIT_DONE, done.stderr
    rows = {(row["source_syntax"], row["does"]): row for row in done.json["plan"]}
    assert {key: row["instances"] for key, row in rows.items()} == {
        ("JPEG2000Lossless", "transcode"): 2,
        ("RLELossless", "transcode"): 2,
        ("ExplicitVRLittleEndian", "unchanged"): 1,
        ("HTJ2KLossless", "transcode"): 1,
    }
    assert {row["estimate"] for row in rows.values()} == {"assumed"}
    assert all(row["megabytes"] >= 0 and row["work_s"] > 0 for row in rows.values())
    assert done.json["summary"]["instances"] == 6
    assert pair.held() == set()
    assert not pair.state_path.exists()
    for start, planned in (("now", 0), ("snapshot", 6)):
        done = pair.run("plan", "--json", START=start)
        assert done.json["summary"]["instances"] == planned

    assert pair.run("run", "--once").exit_code == EXIT_DONE
    done = pair.run("plan", "--json")
    assert done.json["plan"] == []
    done = pair.run("plan", "--from", "1", "--json")
    assert done.json["summary"]["instances"] == 6


def test_a_syntax_that_orthanc_does_not_keep_is_read_from_the_file(pair: Pair) -> None:
    data = high_throughput()
    moved = pair.send(data)
    assert pair.run("run", "--once").exit_code == EXIT_DONE
    assert pair.run("check", "--deep").exit_code == EXIT_DONE
    pair.target.delete_instance(moved)
    pair.target.store(data, deadline_s=10)
    done = pair.run("check", "--json")
    assert by_state(done.json) == {moved: "syntax"}
    assert done.json["findings"][0]["target_syntax"] == str(HTJ2KLossless)


def _worked_s(pid: int) -> float:
    """Return the processor seconds of a process."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _wait_for_imports(check: BridgeProcess, seconds: float) -> None:
    """Wait until what workers are forked from has been importing for so long."""
    wait_until(lambda: any(_worked_s(pid) >= seconds for pid in check.templates()), "it imports")


def test_ctrl_c_while_workers_start_is_told_in_a_word(pair: Pair) -> None:
    """Workers that are still importing are ended with the rest, and print nothing.

    Fails when they get the signal themselves, each with a traceback. There is more to compare than
    a slow test can let pass before it sends the signal.
    """
    for data in small_series(90):
        pair.send(data)
    assert pair.run("run", "--once").exit_code == 0
    for seconds in (0.02, 0.06, 0.12):
        check = pair.start_new("check", "--deep", WORKERS="4")
        _wait_for_imports(check, seconds)
        check.send_to_group(signal.SIGINT)
        ended = check.finish()
        assert ended.exit_code == 130, ended.stderr
        assert "Traceback" not in ended.stderr
        said = [line for line in ended.stderr.splitlines() if "interrupted" in line]
        assert len(said) == 1, ended.stderr
        assert len(ended.stderr.splitlines()) <= 3, ended.stderr

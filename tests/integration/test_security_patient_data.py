"""No patient data leaves the DICOM files: not in logs, metrics, status, parked rows or messages.

Everything that the demo has, and files with striking values, whole and broken in many ways, go
through a real bridge at debug level. Then all that it said and wrote is searched.
"""

from __future__ import annotations

import io
import json
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from bridge.demo.instances import sample_set
from bridge.ledger.store import Ledger
from tests.bridge_process import wait_until
from tests.dicom_samples import file_bytes, orthanc_id, small_ct_dataset
from tests.event_receiver import EventReceiver
from tests.fake_orthanc import FakeOrthanc
from tests.fake_pair import FakePair
from tests.fake_store import BadFile, StoredInstance

NAME = "Zyxwvut^Quirin"
PATIENT_ID = "PID-Xq7-4711"
BIRTH_DATE = "19310517"
NAMES = {
    "ISO_IR 6": NAME,
    "ISO_IR 100": "Øksendål^Märtén",
    "ISO_IR 192": "Wąsowicz^Żółć=王^小東",
    "ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
}
PATHS = ("/health", "/metrics", "/api/status", "/api/studies", "/")
PERSONAL = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "PatientAddress",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "AccessionNumber",
)
COMMON_WORDS = {"anonymous", "anonymized", "unknown", "none", "test", "source", "target", "bridge"}


def striking(charset: str = "ISO_IR 6", *, number: int = 0) -> Dataset:
    """Build an instance whose values would be seen anywhere."""
    dataset = small_ct_dataset(patient_id=f"{PATIENT_ID}{number:02d}")
    dataset.SpecificCharacterSet = charset if "2022" not in charset else ["", charset]
    dataset.PatientName = NAMES[charset]
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.OtherPatientIDs = f"{PATIENT_ID}-OTHER"
    dataset.PatientComments = f"{NAME} born {BIRTH_DATE}"
    return dataset


def compressed(number: int, syntax: UID, frame: bytes) -> bytes:
    dataset = striking(number=number)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


def broken() -> Iterator[bytes]:
    """Yield files that break at different places, each place beside or inside the values."""
    rle = striking(number=50)
    rle.compress(RLELossless, generate_instance_uid=False)
    whole = file_bytes(rle)
    value = whole.index(NAME.encode())
    yield compressed(51, JPEG2000Lossless, b"\xff\x4f\xff\x51" + NAME.encode() * 9)
    yield compressed(52, JPEGLosslessSV1, f"{NAME}{PATIENT_ID}{BIRTH_DATE}".encode() * 5)
    yield compressed(53, RLELossless, NAME.encode() * 20)
    yield whole[: value + 5]
    yield whole[:-100]
    yield whole[: value - 8] + b"\xff\xff\xff\xff" + whole[value - 4 :]
    yield whole[: value - 4] + b"ZZ" + whole[value - 2 :]
    yield whole[: value - 2] + b"\xfe\xff" + whole[value:]
    yield NAME.encode() * 100
    yield b"\0" * 128 + b"DICM" + NAME.encode() * 100
    syntax = RLELossless.encode()
    yield whole.replace(syntax, NAME.encode()[: len(syntax)].ljust(len(syntax), b"X"))
    for attribute, text in {
        "PhotometricInterpretation": NAME.upper().replace("^", " ")[:16],
        "BitsAllocated": 7,
        "SamplesPerPixel": 3,
        "Rows": 0,
        "NumberOfFrames": "99",
    }.items():
        odd = striking(number=60)
        odd.compress(RLELossless, generate_instance_uid=False)
        setattr(odd, attribute, text)
        yield file_bytes(odd)
    chance = random.Random(4711)
    for _ in range(20):
        fuzzed = bytearray(whole)
        for _ in range(30):
            fuzzed[chance.randrange(132, len(fuzzed))] = chance.randrange(256)
        yield bytes(fuzzed)


def with_a_name_for_a_uid() -> bytes:
    dataset = striking(number=70)
    dataset.compress(RLELossless, generate_instance_uid=False)
    uid = str(dataset.SOPInstanceUID).encode()
    return file_bytes(dataset).replace(uid, (NAME.encode() * 9)[: len(uid)])


def force(fake: FakeOrthanc, data: bytes, number: int) -> None:
    """Put a file into a source as if it had been well when it came."""
    instance_id = orthanc_id("broken", str(number))
    stored = StoredInstance(data, (orthanc_id("s"), orthanc_id("t"), orthanc_id("p")), {})
    with fake.store.lock:
        fake.store.instances[instance_id] = stored
        fake.store.add_change("NewInstance", instance_id)


def personal_values(data: bytes) -> set[str]:
    """List the values of a file that nobody else is to see."""
    dataset = dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
    values: set[str] = set()
    for keyword in PERSONAL:
        text = str(dataset.get(keyword, "") or "")
        for part in {text, *text.replace("=", "^").split("^")}:
            if len(part.strip()) >= 5 and part.strip().lower() not in COMMON_WORDS:
                values.add(part.strip())
    return values


def leaks(seen: dict[str, str], values: set[str]) -> list[tuple[str, str]]:
    """List where values can be read, in whatever form; digits count as whole words only."""
    forms = {form for v in values for form in (v, json.dumps(v)[1:-1], repr(v.encode())[2:-1])}
    patterns = {
        form: re.compile(rf"(?<![\w.]){form}(?!\w)" if form.isdigit() else re.escape(form))
        for form in forms
    }
    return [
        (place, form)
        for place, text in seen.items()
        for form, pattern in patterns.items()
        if pattern.search(text)
    ]


def events(receiver: EventReceiver) -> str:
    """All that was told to a receiver, headers included."""
    return "\n".join(f"{post.path} {post.headers} {post.body.decode()}" for post in receiver.posts)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[FakeOrthanc, FakeOrthanc, FakePair]]:
    with FakeOrthanc(overwrite=True) as source, FakeOrthanc() as target:
        pair = FakePair(source.url, target.url, tmp_path / "home", ATTEMPTS="1")
        yield source, target, pair
        pair.close()


def settled(files: FakePair, source: FakeOrthanc) -> bool:
    if not files.state_path.exists():
        return False
    with Ledger(files.state_path, create=False) as ledger:
        return ledger.checkpoint() == source.store.rows[-1].seq


def written(files: FakePair) -> dict[str, str]:
    return {
        file.name: file.read_bytes().decode("utf-8", "replace")
        for file in files.home.rglob("*")
        if file.is_file()
    }


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_patient_data_is_told(
    pair: tuple[FakeOrthanc, FakeOrthanc, FakePair], log_format: str
) -> None:
    source, target, files = pair
    values = {NAME, *NAME.split("^"), PATIENT_ID, BIRTH_DATE}
    for name in NAMES.values():
        values |= {part for part in name.replace("=", "^").split("^") if len(part) > 1}
    if log_format == "json":
        for number, sample in enumerate(sample_set(), 1000):
            values |= personal_values(sample.data)
            try:
                source.put(sample.data)
            except BadFile:  # a few have cut or empty pixels
                force(source, sample.data, number)
    for number, charset in enumerate(NAMES):
        source.put(file_bytes(striking(charset, number=number)))
    for number, data in enumerate(broken()):
        force(source, data, number)
    audit = str(files.home / "audit.jsonl")
    with EventReceiver() as receiver, EventReceiver() as collector:
        bridge = files.start(
            "run",
            LOG_LEVEL="debug",
            LOG_FORMAT=log_format,
            AUDIT_PATH=audit,
            WEBHOOK_URL=receiver.url,
            WEBHOOK_SECRET="s" * 16,
            EVENTS_FOLD_S="0",
            TRACES_URL=collector.url,
        )
        wait_until(
            lambda: settled(files, source), "everything is delivered or parked", timeout_s=60
        )
        told = ['"study_complete"', '"parked"', '"health_changed"']
        # What is broken in "text" is of studies that this source does not know.
        told += ['"study_incomplete"'] if log_format == "json" else []
        wait_until(
            lambda: all(kind in events(receiver) for kind in told), "all events", timeout_s=60
        )
        posted = events(receiver)
        wait_until(lambda: "parked" in events(collector), "traces of what is parked")
        traces = events(collector)
    seen: dict[str, str] = {"events": posted, "traces": traces}
    if log_format == "json":
        seen |= {path: str(bridge.get(path)[1]) for path in PATHS}
        for arguments in (["parked", "list", "--json"], ["parked", "list"], ["status", "--json"]):
            done = files.run(*arguments)
            seen[" ".join(arguments)] = done.stdout + done.stderr
    bridge.send_to_group(signal.SIGTERM)
    finished = bridge.finish()
    seen |= {"stdout": finished.stdout, "stderr": finished.stderr} | written(files)
    assert finished.exit_code == 0
    assert len(files.parked()) >= 2, "several reasons"
    assert sum(files.parked().values()) >= 20
    assert len(target.store.instances) > 4
    assert {"bridge.sqlite3", "audit.jsonl"} <= seen.keys()
    assert "parked" in finished.stderr
    assert leaks(seen, values) == []


def test_what_stands_in_the_place_of_a_uid_is_not_kept(
    pair: tuple[FakeOrthanc, FakeOrthanc, FakePair],
) -> None:
    source, _, files = pair
    force(source, with_a_name_for_a_uid(), 1)
    done = files.run("run", "--once", LOG_LEVEL="debug")
    told = files.run("parked", "list", "--json").stdout
    assert done.exit_code == 3
    assert leaks(written(files) | {"stderr": done.stderr, "parked": told}, {NAME}) == []

"""The demo on real servers: every sample is accepted, and its verdicts follow the deliveries.

The bridge is replaced by a plain copier here: what is tested is the demo. The last test is the
command itself, with the real bridge.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bridge.credentials import Credentials
from bridge.demo.instances import sample_names, sample_set
from bridge.demo.orthanc_server import OrthancServer
from bridge.demo.run_demo import Transfer, run_demo
from bridge.dicom.syntaxes import EXPLICIT_LE
from bridge.errors import ConfigurationError
from bridge.model import (
    Action,
    Delivered,
    Endpoint,
    InstanceFailed,
    Move,
    Outcome,
    Reason,
    SideName,
    StageTimes,
)
from bridge.orthanc import OrthancClient

pytestmark = pytest.mark.orthanc

UNCHANGED = ("CT_small", "examples_palette", "reportsi")
COMPRESSED = "mr16s-j2k"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancClient]:
    with (
        OrthancServer("source", tmp_path_factory.mktemp("source")) as server,
        OrthancClient(Endpoint(SideName.SOURCE, server.url), Credentials()) as client,
    ):
        yield client


def test_a_real_orthanc_accepts_every_sample_as_an_instance_of_its_own(
    source: OrthancClient,
) -> None:
    answers = {s.name: source.store(s.data, deadline_s=30.0) for s in sample_set()}
    assert {name: a.status for name, a in answers.items() if a.status != "Success"} == {}
    assert len({answer.instance_id for answer in answers.values()}) == len(answers)
    for sample in sample_set():
        metadata = source.instance_metadata(answers[sample.name].instance_id)
        # Orthanc says nothing about syntaxes younger than itself.
        assert metadata.get("TransferSyntax", sample.syntax) == sample.syntax, sample.name
        assert int(source.attachment_size(answers[sample.name].instance_id)) == len(sample.data)


def copier(
    source_url: str, target_url: str, change: Callable[[bytes], bytes] = bytes
) -> list[tuple[Move, Outcome]]:
    """Bring everything over as it is, or changed, and claim to have delivered it."""
    outcomes: list[tuple[Move, Outcome]] = []
    with (
        OrthancClient(Endpoint(SideName.SOURCE, source_url), Credentials()) as source,
        OrthancClient(Endpoint(SideName.TARGET, target_url), Credentials()) as target,
    ):
        for instance_id in source.list_instances(0, 1000):
            data = bytearray()
            source.fetch_instance(instance_id, data.extend, deadline_s=30.0)
            sent = change(bytes(data))
            answer = target.store(sent, deadline_s=30.0)
            delivered = Delivered(
                status=answer.status,
                action=Action.UNCHANGED,
                source_syntax="",
                target_syntax=EXPLICIT_LE,
                sop_instance_uid="",
                source_bytes=len(data),
                target_bytes=len(sent),
                stages=StageTimes(0.001, 0.002, 0.003, 0.004),
            )
            outcomes.append((Move(instance_id), delivered))
    return outcomes


def copy(source_url: str, target_url: str, _state_path: Path) -> Sequence[tuple[Move, Outcome]]:
    return copier(source_url, target_url)


def flip_last_bit(source_url: str, target_url: str, _path: Path) -> list[tuple[Move, Outcome]]:
    return copier(source_url, target_url, lambda data: data[:-1] + bytes([data[-1] ^ 1]))


def park_all(source_url: str, _target_url: str, _path: Path) -> list[tuple[Move, Outcome]]:
    with OrthancClient(Endpoint(SideName.SOURCE, source_url), Credentials()) as source:
        failed = InstanceFailed(Reason.UNDECODABLE, "a message", final=True)
        return [(Move(i), failed) for i in source.list_instances(0, 1000)]


def move_nothing(_source: str, _target: str, _path: Path) -> list[tuple[Move, Outcome]]:
    return []


def announced(lines: list[str]) -> Callable[[str], None]:
    return lines.append


def test_everything_right_is_exit_0_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    code = run_demo(
        keep=False, json_output=False, directory=None, announce=announced(lines), transfer=copy,
        names=UNCHANGED,
    )  # fmt: skip
    out = capsys.readouterr().out.splitlines()
    assert code == 0
    assert out[0].startswith("instance")
    assert [line.split()[0] for line in out[1:4]] == list(UNCHANGED)
    assert out[-1].startswith("3 instances in 1 transfer syntaxes, 3 delivered, 2 with equal")
    assert any(line.startswith("Loaded 3 instances") for line in lines)


@pytest.mark.parametrize(
    ("transfer", "names", "state", "problem"),
    [
        (copy, [COMPRESSED], "delivered", "pixel data still encapsulated"),
        (flip_last_bit, ["CT_small"], "delivered", "its bytes changed"),
        (park_all, [COMPRESSED], "failed: undecodable", None),
        (move_nothing, [COMPRESSED], "never moved", None),
    ],
)
def test_anything_wrong_is_exit_3(
    transfer: Transfer,
    names: list[str],
    state: str,
    problem: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run_demo(
        keep=False, json_output=True, directory=None, announce=announced([]), transfer=transfer,
        names=names,
    )  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)
    assert code == 3
    assert (row["state"], row["right"]) == (state, False)
    assert bool(row["problems"]) is (problem is not None)
    assert problem is None or problem in " ".join(row["problems"])


def test_keep_serves_while_both_servers_run(tmp_path: Path) -> None:
    lines: list[str] = []
    seen = []

    def serve(
        source_url: str, target_url: str, state_path: Path, announce: Callable[[str], None]
    ) -> None:
        for side, url in ((SideName.SOURCE, source_url), (SideName.TARGET, target_url)):
            with OrthancClient(Endpoint(side, url), Credentials()) as client:
                seen.append(client.system().name)
        assert state_path.parent == tmp_path / "new"
        announce("Monitoring at an address.")

    code = run_demo(
        keep=True, json_output=False, directory=tmp_path / "new", announce=announced(lines),
        transfer=copy, serve=serve, names=["CT_small"],
    )  # fmt: skip
    assert code == 0
    assert seen == ["source", "target"]
    assert any(re.search(r"source +http://127\.0\.0\.1:\d+/app/explorer", line) for line in lines)
    assert lines[-2:] == [
        "Monitoring at an address.",
        "Stopped. The servers and all their files are gone.",
    ]
    assert (tmp_path / "new" / "source").is_dir()


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigurationError, match="is not empty"):
        run_demo(
            keep=False, json_output=False, directory=tmp_path, announce=announced([]),
            transfer=copy,
        )  # fmt: skip


def test_the_command_delivers_every_sample_right() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "demo", "--json"],
        capture_output=True,
        timeout=100,
        check=False,
    )
    stderr = done.stderr.decode()
    rows = json.loads(done.stdout)
    assert [row for row in rows if not row["right"]] == []
    assert done.returncode == 0, stderr
    assert [row["name"] for row in rows] == list(sample_names())
    assert {row["after"] for row in rows} == {EXPLICIT_LE}
    assert "Warning" not in stderr

"""Whatever is opened by name: somebody else may have put it there, in a shared directory."""

from __future__ import annotations

import ast
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import bridge
from bridge.checks.audit_reader import read_lines
from bridge.commands.transcode import _write
from bridge.config import load_settings
from bridge.credentials import credentials_of
from bridge.dicom.transcode import transcode
from bridge.errors import BridgeError, ConfigurationError, StateError
from bridge.ledger import copies
from bridge.ledger.copies import back_up, look_at, restore
from bridge.ledger.store import Ledger
from bridge.mirror.repair import is_repair_begun, prepared_path
from bridge.model import Endpoint, SideName, TranscodeOptions
from bridge.monitoring.own_tls import server_context
from bridge.orthanc.transport import tls_context
from bridge.own_files import NotOurs, make_new_file, open_named
from bridge.retention.held_deletion import _read
from tests.certificates import Authority
from tests.dicom_samples import small_ct
from tests.simulation.retention import md5
from tests.unit.mirror.conftest import Scene

OTHER_USER = 54_321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
PACKAGE = Path(bridge.__file__).parent

OPENS = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkstemp", "touch"}
KNOWN = {
    "own_files.py": "it is the place",
    "monitoring/page_files.py": "of the package",
    "ledger/store.py": "of the package",
    "commands/docs.py": "of the package",
    "worker/dask/build.py": "of the package",
    "retention/age_clock.py": "of the kernel",
    "checks/bugreport.py": "mkstemp",
    "commands/transcode.py": "IN, which a person names; mkstemp",
    "commands/rules.py": "a file that a person names",
    "commands/init.py": "made new, never through a link",
    "ledger/copies.py": "a file that make_new_file has just made; a directory",
    "worker/prepare.py": "a directory",
    "worker/processes.py": "of the kernel: /proc",
    "worker/template.py": "of the kernel: /dev/null and /proc",
    "standard_streams.py": "of the kernel: /dev/null",
    "demo/pydicom_wheel.py": "of a package",
    "demo/orthanc_server.py": "in a directory of its own; /proc",
    "demo/try_folder.py": "files that a person names",
}
"""Files of ours that open something else than by own_files.py, and why they may."""


def test_every_place_that_opens_a_file_is_known() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _opens(node.func):
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(KNOWN)


def _opens(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in OPENS
    if not isinstance(function, ast.Attribute) or function.attr not in OPENS:
        return False
    of = ast.unparse(function.value)
    # Gates, connections, gaps and changes are opened too.
    others = ("self", "self._servers", "self._open_changes", "opener", "Connection")
    return of not in others


@pytest.fixture
def place(tmp_path: Path) -> Path:
    home = tmp_path / "shared"
    home.mkdir()
    home.chmod(0o1777)
    return home


def put(path: Path, kind: str, data: bytes) -> None:
    """Another user has put something in the place of a file of ours."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        elsewhere = path.parent / "theirs"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    elif kind == "link to nothing":
        path.symlink_to(path.parent / "nothing")
    else:
        path.write_bytes(data)
        os.chown(path, OTHER_USER, OTHER_USER)


KINDS = ["pipe", "link", pytest.param("file", marks=as_root)]


@pytest.mark.parametrize("kind", [*KINDS, "link to nothing"])
def test_a_prepared_file_that_is_not_ours_is_not_sent(tmp_path: Path, kind: str) -> None:
    """It would have been uploaded to the target: an image that is not the source's."""
    tmp_path.chmod(0o1777)
    scene = Scene(tmp_path)
    world, instance_id = scene.world, scene.ids[0]
    world.target.remove(instance_id)
    before = dict(world.target.files)
    put(prepared_path(world.ledger), kind, f"{instance_id}:theirs:raw".encode())
    with pytest.raises(StateError, match="state file"):
        scene.repairer().resume(world.ledger, age=world.age)
    assert is_repair_begun(world.ledger)
    assert world.target.files == before
    world.ledger.close()


@pytest.mark.parametrize("kind", KINDS)
def test_held_bytes_that_are_not_ours_are_not_read(place: Path, kind: str) -> None:
    held, data = place / "held", b"an instance"
    put(held, kind, data)
    assert _read(held, md5(data)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_an_audit_file_that_is_not_ours_prove_nothing(place: Path, kind: str) -> None:
    path = place / "audit.jsonl"
    path.write_bytes(b'{"instance": "i", "outcome": "Success"}\n')
    put(place / "audit.jsonl.000003", kind, b'{"instance": "forged", "outcome": "Success"}\n')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_lines(path))


@as_root
def test_no_image_is_written_into_another_users_pipe(place: Path) -> None:
    out = place / "out.dcm"
    os.mkfifo(out)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    result = transcode(small_ct(), wanted_syntax="1.2.840.10008.1.2.1", options=TranscodeOptions())
    _write(result, out)  # it is our own
    assert os.read(reader, 1 << 20)
    os.chown(out, OTHER_USER, OTHER_USER)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        _write(result, out)
    os.set_blocking(reader, False)
    assert os.read(reader, 1 << 20) == b""
    os.close(reader)


def test_what_is_written_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    out = tmp_path / "out.dcm"
    umask = os.umask(0o027)
    try:
        _write(
            transcode(small_ct(), wanted_syntax="1.2.840.10008.1.2.1", options=TranscodeOptions()),
            out,
        )
    finally:
        os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


@as_root
@pytest.mark.parametrize("command", ["look at", "restore"])
def test_a_copy_of_the_state_that_another_user_has_put_there(place: Path, command: str) -> None:
    state, copy = place / "bridge.sqlite3", place / "copy.sqlite3"
    Ledger(state).close()
    back_up(state, copy)
    assert look_at(copy)
    os.chown(copy, OTHER_USER, OTHER_USER)
    commands: dict[str, Callable[[], object]] = {
        "look at": lambda: look_at(copy),
        "restore": lambda: restore(copy, state, adopt=lambda _before, _after: None),
    }
    with pytest.raises(StateError, match="belongs to another user"):
        commands[command]()


def test_a_link_that_comes_while_the_state_is_copied_is_not_followed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, out, theirs = place / "bridge.sqlite3", place / "copy", place / "theirs"
    theirs.write_bytes(b"theirs")
    Ledger(state).close()
    removed = copies._remove

    def then_linked(part: Path) -> None:
        removed(part)
        monkeypatch.setattr(copies, "_remove", removed)
        part.symlink_to(theirs)

    monkeypatch.setattr(copies, "_remove", then_linked)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        back_up(state, out)
    assert theirs.read_bytes() == b"theirs"
    assert not out.exists()


def test_what_is_made_new_is_never_one_that_is_there(place: Path) -> None:
    made = place / "made"
    make_new_file(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_new_file(made)


# Files that settings name


def read_rules(path: Path) -> object:
    settings = load_settings(source_url="http://a", target_url="http://b", rules_file=str(path))
    return settings.rules()


def read_secret(path: Path) -> object:
    os.environ["BRIDGE_SOURCE_USERNAME"] = "user"
    os.environ["BRIDGE_SOURCE_PASSWORD_FILE"] = str(path)
    return credentials_of(SideName.SOURCE)


def read_authority(path: Path) -> object:
    return tls_context(Endpoint(SideName.SOURCE, "https://a", ca_file=str(path)))


NAMED = [read_rules, read_secret, read_authority]


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRIDGE_SOURCE_USERNAME", "BRIDGE_SOURCE_PASSWORD_FILE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("BRIDGE_SHARED_DIRECTORY", raising=False)


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("read", NAMED)
@pytest.mark.parametrize("why", ["directory", "mode", pytest.param("owner", marks=as_root)])
def test_a_named_file_that_anybody_may_have_put_there(
    tmp_path: Path, read: Callable[[Path], object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "named"
    path.write_text('[[rule]]\nmodality = "OT"\naction = "skip"\n', "ascii")
    if read is read_secret:
        path.write_text("secret", "ascii")
    elif read is read_authority:
        authority = Authority(tmp_path)
        authority.create()
        path.write_text(Path(authority.certificate).read_text("ascii"), "ascii")
    assert read(path)
    if why == "directory":
        tmp_path.chmod(0o777)
    elif why == "mode":
        path.chmod(0o666)
    else:
        tmp_path.chmod(0o1777)
        os.chown(path, OTHER_USER, OTHER_USER)
    with pytest.raises(ConfigurationError, match=r"names (is in|is a file|belongs)") as caught:
        read(path)
    assert "BRIDGE_SHARED_DIRECTORY=accept" in caught.value.advice
    monkeypatch.setenv("BRIDGE_SHARED_DIRECTORY", "accept")
    if why == "owner":
        with pytest.raises(BridgeError):
            read(path)
    else:
        assert read(path)


def read_settings(path: Path) -> object:
    os.environ["BRIDGE_ENV_FILE"] = str(path)
    return load_settings(source_url="http://a", target_url="http://b")


def read_default_settings(path: Path) -> object:
    os.chdir(path.parent)
    path.rename(path.parent / ".env")
    return load_settings(source_url="http://a", target_url="http://b")


def read_client_certificate(path: Path) -> object:
    return tls_context(
        Endpoint(
            SideName.SOURCE, "https://a", client_cert_file=str(path), client_key_file=str(path)
        )
    )


def read_own_certificate(path: Path) -> object:
    return server_context(str(path), None)


ALL_NAMED = [
    *NAMED,
    read_settings,
    read_default_settings,
    read_client_certificate,
    read_own_certificate,
]


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize("read", ALL_NAMED)
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "socket", "device"])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_in_words_and_holds_nobody(
    tmp_path: Path, read: Callable[[Path], object], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a pipe waits until somebody writes: the start hung, without a word."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIDGE_ENV_FILE", "")
    path, other = tmp_path / "named", tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "link to a pipe":
            os.mkfifo(other)
            path.symlink_to(other)
        elif kind == "socket":
            listening.bind("named")
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(ConfigurationError) as caught:
            read(path)
    assert caught.value.exit_code == 2
    assert "not a regular file" in caught.value.message or "is not a file" in caught.value.message
    assert "pipe" in caught.value.message + caught.value.advice.lower()


@pytest.mark.usefixtures("_environment")
@pytest.mark.timeout(20)
def test_the_pipe_of_a_shell_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """``<(...)``: the link /dev/fd/N leads to no name."""
    monkeypatch.setenv("BRIDGE_SOURCE_PASSWORD_FILE", "")
    monkeypatch.setenv("BRIDGE_SOURCE_USERNAME", "")
    reader, writer = os.pipe()
    try:
        for read in NAMED:
            with pytest.raises(ConfigurationError, match="not a regular file"):
                read(Path(f"/dev/fd/{reader}"))
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.usefixtures("_environment")
def test_secrets_as_orchestrators_mount_them_are_read(tmp_path: Path) -> None:
    """Kubernetes: a link to a link to a directory; Docker: a file; systemd: a file, mode 0400."""
    (tmp_path / "..2026_12").mkdir()
    (tmp_path / "..2026_12" / "password").write_text("secret", "ascii")
    (tmp_path / "..2026_12" / "password").chmod(0o400)
    (tmp_path / "..data").symlink_to("..2026_12")
    (tmp_path / "password").symlink_to("..data/password")
    assert read_secret(tmp_path / "password")


def test_a_file_that_becomes_a_pipe_before_it_is_opened_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotOurs, match="not a regular file"):
        open_named(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        open_named(tmp_path)
    open_fds = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(NotOurs):
        open_named(tmp_path / "pipe")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_fds

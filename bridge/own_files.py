"""Files that only this user may have made: state, lock, audit file, `.env`.

Whoever may write to the directory of such a file can put a link, another file or a file that is
read as settings in its place, and a bridge that runs as root would write where it leads. So

- a directory that any user may write to is refused, unless it is sticky (as /tmp is) and belongs
  to root or to this user, and the file in it is this user's own, a file, and under no other name;
- elsewhere a link must belong to root, to this user or to whoever owns the directory;
- what is opened is never a link, and what is made is made new (O_EXCL) with mode 0600, whatever
  the umask.

A group that may write to a directory is trusted: who owns the directory has chosen it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

PRIVATE_MODE = 0o600
DIRECTORY_MODE = 0o700
_OTHERS_WRITE = stat.S_IWOTH
_NOT_PRIVATE = stat.S_IRWXG | stat.S_IRWXO


class NotOurs(OSError):
    """A file that somebody else may have put there. ``strerror`` says why it is refused."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EPERM, reason)


def is_shared(directory: Path) -> bool:
    """Whether any user may put files into a directory (the nearest one that exists)."""
    return bool(_existing(directory).st_mode & _OTHERS_WRITE)


def why_not_trusted(directory: Path) -> str:
    """Say why files of ours cannot be in a directory, or in the nearest that exists; "" if so."""
    found = _existing(directory)
    # The nearest one that exists: those below it will be ours, but could be exchanged.
    if not stat.S_ISDIR(found.st_mode) or not found.st_mode & _OTHERS_WRITE:
        return ""
    if not found.st_mode & stat.S_ISVTX:
        return "is in a directory that every user may write to"
    if found.st_uid not in (0, os.geteuid()):
        return "is in a directory of another user that every user may write to"
    return ""


def check_settings_file(path: Path, *, shared: bool = False) -> None:
    """Make sure that nobody else has written a file of settings, if it is there. Raises NotOurs.

    ``shared``: its directory may be one that every user may write to.
    """
    _check_kind(path)
    reason = "" if shared else why_not_trusted(path.parent)
    real = real_path(path)
    try:
        found = real.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if reason:
        raise NotOurs(reason)
    if found.st_uid not in _owners(real.parent):
        raise NotOurs("belongs to another user")
    if found.st_mode & _OTHERS_WRITE and not shared:
        raise NotOurs("is a file that every user may write to")


def check_named_file(path: Path, *, shared: bool = False) -> None:
    """Make sure that a file that a setting names is the one that was meant, if it is there.

    Raises NotOurs where any user may put another one in its place. ``shared``: its directory may be
    one that every user may write to. Who owns it is not asked elsewhere: an administrator may.
    """
    _check_kind(path)
    real = real_path(path)
    try:
        found = real.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not shared:
        for directory in (path.parent, real.parent):
            if reason := why_not_trusted(directory):
                raise NotOurs(reason)
        if stat.S_ISREG(found.st_mode) and found.st_mode & _OTHERS_WRITE:
            raise NotOurs("is a file that every user may write to")
    _check_owner(found, real)


def open_named(path: Path) -> int:
    """Open a file that a setting names, to read it; returns the descriptor. Links are followed.

    Raises NotOurs for a pipe, a device or a socket, and does not wait for its other end. Raises
    other OSErrors.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise NotOurs(NOT_REGULAR)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_kind(path: Path) -> None:
    """Refuse what is there, where a link leads too, and is neither a file nor a directory.

    A pipe would hold whoever opens it until somebody writes, and it is read once: by one process.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotOurs(NOT_REGULAR)


NOT_REGULAR = "is a pipe, a device or a socket, not a regular file"


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, for this user alone where they are not there yet."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    try:
        directory.mkdir(DIRECTORY_MODE)
    except FileExistsError:
        return
    directory.chmod(DIRECTORY_MODE)  # a umask may have taken more away


def real_path(path: Path) -> Path:
    """Return the file that a path leads to. Raises NotOurs for a link that another user has set."""
    link = path
    for _ in range(LINKS_MAX):
        try:
            found = link.lstat()
        except FileNotFoundError:
            break
        if not stat.S_ISLNK(found.st_mode):
            break
        if found.st_uid not in _owners(link.parent):
            raise NotOurs("is a link that another user has put there")
        link = link.parent / link.readlink()
    return Path(os.path.realpath(path))


LINKS_MAX = 40
"""As many as the kernel follows."""


def check_file(path: Path) -> None:
    """Make sure of a file that others open by its name (SQLite), if it is there. Raises NotOurs.

    Its mode becomes 0600 if it is ours. It is not opened: to close it again would take from this
    process the locks that it has on it.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise NotOurs("is a link")
    _check(found, path)
    if _is_ours_and_not_private(found):
        path.chmod(PRIVATE_MODE)


def make_file(path: Path) -> None:
    """Make an empty file of ours with mode 0600 unless there is one."""
    try:
        made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, PRIVATE_MODE)
    except FileExistsError:
        return
    os.fchmod(made, PRIVATE_MODE)
    os.close(made)


def make_new_file(path: Path) -> None:
    """Make an empty file of ours with mode 0600. Raises FileExistsError where there is one."""
    made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, PRIVATE_MODE)
    os.fchmod(made, PRIVATE_MODE)
    os.close(made)


def open_to_read(path: Path) -> int:
    """Open a file of ours that is there; returns the descriptor. Raises NotOurs, other OSErrors."""
    return _open_there(path, os.O_RDONLY, tighten=False)


def open_device(path: Path) -> int:
    """Open a device or a pipe to write into it; returns the descriptor.

    Raises NotOurs for one of another user in a shared directory: that user would read what is
    written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check_owner(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_own(path: Path, flags: int, *, tighten: bool = True) -> int:
    """Open a file of ours, made with mode 0600 if it is not there; returns the descriptor.

    ``flags``: O_RDWR and the like. ``tighten``: one that is ours and that others may read or
    write becomes 0600. Raises NotOurs and other OSErrors.
    """
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL | _FLAGS, PRIVATE_MODE)
    except FileExistsError:
        return _open_there(path, flags, tighten=tighten)
    os.fchmod(made, PRIVATE_MODE)  # a umask may have taken more away
    return made


def write_private(path: Path, data: bytes) -> None:
    """Write a new file with mode 0600; it survives a power cut from now on. Raises OSError.

    When it cannot be written, there is none.
    """
    made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, PRIVATE_MODE)
    try:
        with os.fdopen(made, "wb") as file:
            os.fchmod(made, PRIVATE_MODE)  # a umask may have taken more away
            file.write(data)
            file.flush()
            os.fsync(made)
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError:
        path.unlink()
        raise


_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""No link; not for a child; never waiting for the other end of a pipe."""


def _open_there(path: Path, flags: int, *, tighten: bool) -> int:
    try:
        descriptor = os.open(path, flags | _FLAGS)
    except OSError as exc:
        raise _refused(exc) from exc
    try:
        found = os.fstat(descriptor)
        _check(found, path)
        if tighten and _is_ours_and_not_private(found):
            os.fchmod(descriptor, PRIVATE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotOurs("is not a file")
    _check_owner(found, path)
    if is_shared(path.parent) and found.st_nlink > 1:
        raise NotOurs("has a second name (hard link), in a directory that every user may write to")


def _check_owner(found: os.stat_result, path: Path) -> None:
    if is_shared(path.parent) and found.st_uid not in (0, os.geteuid()):
        raise NotOurs("belongs to another user, in a directory that every user may write to")


def _is_ours_and_not_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and bool(stat.S_IMODE(found.st_mode) & _NOT_PRIVATE)


def _refused(exc: OSError) -> OSError:
    return NotOurs("is a link") if exc.errno == errno.ELOOP else exc


def _owners(directory: Path) -> set[int]:
    trusted = {0, os.geteuid()}
    return trusted if is_shared(directory) else trusted | {_existing(directory).st_uid}


def _existing(directory: Path) -> os.stat_result:
    for place in (directory, *directory.absolute().parents):
        try:
            return place.stat()
        except FileNotFoundError:
            continue
    return Path("/").stat()

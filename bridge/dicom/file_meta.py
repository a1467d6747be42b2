"""File meta information: find the transfer syntax, write a correct header of our own.

This file must not know: sockets, files, clocks, logging, settings.
PS3.10 section 7.1: preamble, "DICM", group 0002 in explicit VR little endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack_from

from bridge import __version__
from bridge.dicom.elements import KNOWN_VRS, LONG_VRS
from bridge.dicom.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from bridge.errors import InstanceError
from bridge.model import Reason

IMPLEMENTATION_CLASS_UID = "2.25.287140846283150184713907360517361846291"
IMPLEMENTATION_VERSION = f"ORTHANCBRIDGE{__version__}"[:16]

PREAMBLE_BYTES = 128
ARCHIVES = (
    b"PK",  # ZIP: Orthanc unpacks such a body, whatever follows
    b"\x1f\x8b",  # gzip
    b"\x1f\x9d",  # compress
    b"\x1f\xa0",
    b"BZh",  # bzip2
    b"\xfd7zXZ\0",  # xz
    b"\x28\xb5\x2f\xfd",  # Zstandard
    b"\x04\x22\x4d\x18",  # LZ4
    b"LZIP",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"MSCF",  # cabinet
    b"!<arch>",
)
"""What a preamble may begin with so that a server, or a filter before it, unpacks the file.

A TIFF header is not among them: PS3.10 7.1 names it, and whole slide images have one on purpose.
"""
_META_ELEMENTS_MAX = 100
_UID_CHARACTERS_MAX = 64
_SYNTAX = 0x0010
_REWRITTEN = frozenset([0x0000, 0x0001, 0x0002, 0x0003, 0x0010, 0x0012, 0x0013])


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What group 0002 said. ``values`` maps element numbers to (VR, raw value).

    ``syntaxes``: the transfer syntax UIDs of a group that names several; the last is ``syntax``.
    """

    syntax: str
    dataset_offset: int
    values: dict[int, tuple[bytes, bytes]]
    syntaxes: tuple[str, ...] = ()

    def text(self, number: int) -> str:
        """Return the UID or text of element (0002,number) without its padding, or ""."""
        raw = self.values.get(number, (b"", b""))[1]
        return raw.rstrip(b"\0 ").decode("ascii", "replace")

    def uid(self, number: int) -> str:
        """Return the UID of element (0002,number), or "" where it is none (PS3.5 section 9.1)."""
        return uid_or_empty(self.text(number))


def uid_or_empty(text: str) -> str:
    """Return a text that has the form of a UID (PS3.5 section 9.1), or "": it may be a name."""
    return text if len(text) <= 64 and set(text) <= set("0123456789.") else ""


def looks_packed(data: memoryview) -> bool:
    """True if the preamble of a DICOM file begins like an archive.

    A server that looks at the first bytes refuses such a file, or imports what is hidden behind
    its data set. PS3.10 7.1 gives the preamble no meaning for DICOM: it may be cleared.
    """
    return bytes(data[:8]).startswith(ARCHIVES) and bytes(data[128:132]) == b"DICM"


def _not_dicom(what: str) -> InstanceError:
    return InstanceError(Reason.NOT_DICOM, f"Not a DICOM file: {what}.")


def read_file_meta(data: memoryview) -> FileMeta:
    """Parse preamble and group 0002 of ``data`` (the whole file, or its first 64 KiB).

    Group 0002 is walked element by element: its group length is not trusted. Where the
    transfer syntax is missing it is taken from the shape of the first data set element.
    Raises InstanceError(NOT_DICOM).
    """
    if len(data) >= PREAMBLE_BYTES + 4 and bytes(data[128:132]) == b"DICM":
        pos = PREAMBLE_BYTES + 4
    elif bytes(data[:4]) == b"DICM":
        pos = 4
    else:
        pos = 0  # no preamble: files older than PS3.10, or written without it
    values: dict[int, tuple[bytes, bytes]] = {}
    syntaxes: list[str] = []
    while len(data) - pos >= 8 and unpack_from("<H", data, pos)[0] == 2:
        number, vr, value, length = _meta_header(data, pos)
        if value + length > len(data):
            raise _not_dicom("its file meta information is cut off")
        values[number] = (vr, bytes(data[value : value + length]))
        pos = value + length
        if number == _SYNTAX:
            named = values[number][1].rstrip(b"\0 ").decode("ascii", "replace")
            syntaxes += [named] if named not in syntaxes else []
        if len(values) > _META_ELEMENTS_MAX:
            raise _not_dicom("its file meta information does not end")
    meta = FileMeta("", pos, values)
    syntax = meta.text(_SYNTAX) or sniff_dataset(data[pos : pos + 16])
    if not syntax or not all(c.isdigit() or c == "." for c in syntax):
        raise _not_dicom("neither a transfer syntax nor a data set that shows its encoding")
    # No UID is longer (PS3.5 section 9.1); what is would fill logs and the ledger.
    syntax, syntaxes = syntax[:_UID_CHARACTERS_MAX], [s[:_UID_CHARACTERS_MAX] for s in syntaxes]
    return FileMeta(syntax, pos, values, tuple(syntaxes) if len(syntaxes) > 1 else ())


def _meta_header(data: memoryview, pos: int) -> tuple[int, bytes, int, int]:
    _, number, vr, short = unpack_from("<HH2sH", data, pos)
    if vr in LONG_VRS:
        if len(data) - pos < 12:
            raise _not_dicom("its file meta information is cut off")
        return number, vr, pos + 12, unpack_from("<I", data, pos + 8)[0]
    if vr in KNOWN_VRS:
        return number, vr, pos + 8, short
    return number, b"UN", pos + 8, unpack_from("<I", data, pos + 4)[0]


def sniff_dataset(head: memoryview) -> str:
    """Return the native syntax that the first data set element is encoded in, or "".

    Deliberately narrow: the first element must be of group 0004, 0008, 0010 or 0028, as in
    every composite object.
    """
    if len(head) < 8:
        return ""
    explicit = bytes(head[4:6]) in KNOWN_VRS
    little, number = unpack_from("<HH", head, 0)
    big = unpack_from(">H", head, 0)[0]
    if little in (0x0004, 0x0008, 0x0010, 0x0028):
        if explicit:
            return EXPLICIT_LE
        return IMPLICIT_LE if number < 0x4000 and unpack_from("<I", head, 4)[0] < 1 << 16 else ""
    if big in (0x0004, 0x0008, 0x0010, 0x0028) and explicit:
        return EXPLICIT_BE
    return ""


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) & 1:
        value += b"\0" if vr in (b"UI", b"OB", b"UN") else b" "
    if vr in LONG_VRS:
        return pack("<HH2sHI", 2, number, vr, 0, len(value)) + value
    return pack("<HH2sH", 2, number, vr, len(value)) + value


def write_file_meta(
    source: FileMeta, *, syntax: str, sop_class_uid: str, sop_instance_uid: str
) -> bytes:
    """Return preamble, "DICM" and group 0002 for a data set in ``syntax``.

    The UIDs are the data set's; where it has none, those of the source's header are kept
    (a DICOMDIR), if any. AE titles and private information of the source's header are kept too.
    The preamble is zero: what another format had put there no longer fits the file.
    """
    fixed = {
        0x0001: (b"OB", b"\0\1"),
        0x0002: (b"UI", (sop_class_uid or source.text(0x0002)).encode()),
        0x0003: (b"UI", (sop_instance_uid or source.text(0x0003)).encode()),
        0x0010: (b"UI", syntax.encode()),
        0x0012: (b"UI", IMPLEMENTATION_CLASS_UID.encode()),
        0x0013: (b"SH", IMPLEMENTATION_VERSION.encode()),
    }
    kept = {n: v for n, v in source.values.items() if n not in _REWRITTEN}
    written = {n: v for n, v in {**kept, **fixed}.items() if v[1] or n not in (2, 3)}
    body = b"".join(_element(n, *value) for n, value in sorted(written.items()))
    return bytes(PREAMBLE_BYTES) + b"DICM" + _element(0, b"UL", pack("<I", len(body))) + body

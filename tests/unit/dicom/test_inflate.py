"""The deflated data set: sizes around each buffer, and the bound to the byte. zlib makes them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from bridge.dicom import inflate
from bridge.dicom.inflate import MemoryRoom, inflated_dataset, inflated_head
from bridge.errors import InstanceError
from bridge.model import Reason

INPUT, OUTPUT = inflate._INPUT_BYTES, inflate._OUTPUT_BYTES


def deflated(plain: bytes) -> bytes:
    return zlib.compress(plain, 6, wbits=-zlib.MAX_WBITS)


def noise(count: int) -> bytes:
    """As large when it is deflated."""
    return np.random.default_rng(5).integers(0, 256, count, "u1").tobytes()


def test_the_bound() -> None:
    assert inflate.INFLATED_BYTES_MAX == 1 << 30


@pytest.mark.parametrize("count", [0, 1, INPUT - 200, INPUT, INPUT + 1, 3 * INPUT + 5])
def test_packed_data_of_several_buffers(count: int) -> None:
    plain = noise(count)
    assert inflated_dataset(memoryview(deflated(plain))) == plain


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("surplus", [-1, 0, 1, 2, 100, 257, 258, 259, 5000])
def test_plain_data_of_several_buffers(blocks: int, surplus: int) -> None:
    """What is left when the last packed byte was read comes out as well."""
    plain = b"ab" * (OUTPUT * blocks // 2) + bytes(surplus) if surplus >= 0 else b""
    assert inflated_dataset(memoryview(deflated(plain))) == plain


def test_what_follows_the_stream_is_not_read() -> None:
    plain = noise(2 * INPUT)
    assert inflated_dataset(memoryview(deflated(plain) + b"\0" + noise(100))) == plain


class Room:
    """A room of the caller's."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def append(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def view(self) -> memoryview:
        return memoryview(b"".join(self.pieces))


def test_the_room_that_is_given_is_used() -> None:
    plain = noise(3 * INPUT)
    for packed in (deflated(plain), deflated(plain) + b"\0"):
        room = Room()
        assert inflated_dataset(memoryview(packed), room) == plain
        assert b"".join(room.pieces) == plain
        assert len(room.pieces) >= 3
    kept = MemoryRoom()
    for piece in (b"ab", b"", b"c"):
        kept.append(piece)
    assert bytes(kept.view()) == b"abc"


@pytest.mark.parametrize("made", [noise, bytes], ids=["in many pieces", "in few"])
@pytest.mark.parametrize("count", [OUTPUT, OUTPUT + 1, 3 * INPUT + 5])
def test_the_size_is_bounded_to_the_byte(
    monkeypatch: pytest.MonkeyPatch, made: type[bytes], count: int
) -> None:
    packed = memoryview(deflated(made(count)))
    monkeypatch.setattr(inflate, "INFLATED_BYTES_MAX", count)
    assert len(inflated_dataset(packed)) == count
    monkeypatch.setattr(inflate, "INFLATED_BYTES_MAX", count - 1)
    with pytest.raises(InstanceError, match=f"over {count - 1} bytes") as caught:
        inflated_dataset(packed)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("made", [noise, bytes])
def test_no_more_is_kept_than_the_bound_and_a_piece(
    monkeypatch: pytest.MonkeyPatch, made: type[bytes]
) -> None:
    room = Room()
    monkeypatch.setattr(inflate, "INFLATED_BYTES_MAX", 10)
    with pytest.raises(InstanceError):
        inflated_dataset(memoryview(deflated(made(4 * OUTPUT))), room)
    assert sum(map(len, room.pieces)) <= OUTPUT


@pytest.mark.parametrize("cut", [1, 2, 100, INPUT, INPUT + 1])
def test_a_stream_that_is_cut_short(cut: int) -> None:
    with pytest.raises(InstanceError, match="cut short") as caught:
        inflated_dataset(memoryview(deflated(noise(3 * INPUT))[:-cut]))
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("at", [0, INPUT, 2 * INPUT])
def test_a_stream_that_is_damaged(at: int) -> None:
    """A block of type 3 does not exist."""
    packed = deflated(noise(at)) if at else b""
    head = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    if at:
        packed = head.compress(noise(at)) + head.flush(zlib.Z_FULL_FLUSH)
    with pytest.raises(InstanceError, match="damaged") as caught:
        inflated_dataset(memoryview(packed + b"\x07" + bytes(100)))
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize("made", [noise, bytes])
def test_the_head(made: type[bytes]) -> None:
    plain = made(100_000)
    packed = memoryview(deflated(plain))
    for bytes_max in (10, 1000, 50_000):
        head, whole = inflated_head(packed, bytes_max)
        assert not whole
        assert len(head) <= bytes_max
        assert plain.startswith(bytes(head))
    head, whole = inflated_head(packed, 200_000)
    assert whole
    assert head == plain
    with pytest.raises(zlib.error):
        inflated_head(memoryview(b"\x07" + bytes(10)), 100)

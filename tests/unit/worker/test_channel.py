"""A channel carries whole messages only, whatever the pieces; what is not of our making ends it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from bridge.worker.channel import MESSAGE_BYTES_MAX, Channel, read_message, write_message


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with theirs:
        theirs.settimeout(10.0)
        yield channel, theirs
    channel.close()


def test_messages_come_whole_whatever_the_pieces(ends: tuple[Channel, socket.socket]) -> None:
    channel, worker = ends
    sent = b"".join(struct.pack("!I", len(text)) + text for text in (b"first", b"", b"last"))
    found = []
    for place in range(len(sent)):
        worker.sendall(sent[place : place + 1])
        found += channel.receive()
    assert found == [b"first", b"", b"last"]
    assert not channel.ended


def test_several_messages_may_come_at_once_and_cut_anywhere(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, worker = ends
    sent = b"".join(struct.pack("!I", len(text)) + text for text in (b"first", b"", b"last"))
    for place in range(len(sent) + 1):
        worker.sendall(sent[:place])
        found = channel.receive()
        worker.sendall(sent[place:])
        assert found + channel.receive() == [b"first", b"", b"last"]


def test_what_a_worker_does_not_read_blocks_nobody(ends: tuple[Channel, socket.socket]) -> None:
    """A worker that is stopped reads nothing; a job with long rules is larger than its socket."""
    channel, worker = ends
    large = bytes(8 * 1024 * 1024)
    channel.send(large)
    channel.send(b"next")
    stuck = channel.unsent
    assert stuck
    worker.setblocking(False)
    read = bytearray()
    while channel.unsent or len(read) < len(large) + 12:
        channel.flush()
        try:
            read += worker.recv(1 << 20)
        except BlockingIOError:
            continue
    assert bytes(read[4 : 4 + len(large)]) == large
    assert read[-4:] == b"next"


def test_the_end_of_a_worker_comes_after_what_it_said(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, worker = ends
    write_message(worker, b"done")
    worker.sendall(struct.pack("!I", 100) + b"half of")
    worker.close()
    assert channel.receive() == [b"done"]
    channel.receive()
    assert channel.ended
    channel.send(b"to nobody")
    assert not channel.unsent


def test_a_length_that_is_not_of_our_making_ends_it(ends: tuple[Channel, socket.socket]) -> None:
    channel, worker = ends
    worker.sendall(struct.pack("!I", MESSAGE_BYTES_MAX + 1) + b"x" * 100)
    assert channel.receive() == []
    assert channel.ended


def test_a_worker_reads_what_was_sent_and_then_the_end(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, worker = ends
    channel.send(b"a task")
    channel.send(b"")
    channel.close()
    assert [read_message(worker) for _ in range(3)] == [b"a task", b"", None]

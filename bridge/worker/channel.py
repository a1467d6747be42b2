"""Messages between the bridge and one worker process, over a stream socket of their own.

A channel of each worker: who dies with a message half written takes nobody else's along, and no
lock is shared with anybody. The bridge's end never blocks: a worker may be stopped at any moment.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

_LENGTH = struct.Struct("!I")
_PIECE_BYTES = 256 * 1024
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A longer one is not of our making: a worker that a codec has damaged may write anything."""


class Channel:
    """The bridge's end. ``ended``: the worker's end is closed, or what came is not of our making.

    For one thread. What could not be written at once is ``unsent``: call ``flush`` when there is
    room.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unsent = bytearray()
        self._received = bytearray()
        self.ended = False

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._end.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._unsent)

    def send(self, message: bytes) -> None:
        """Write a message, or as much of it as there is room for. Never raises OSError."""
        self._unsent += _LENGTH.pack(len(message))
        self._unsent += message
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        try:
            while self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:  # it has ended: whoever waits for its end hears of that
            self._unsent.clear()

    def receive(self) -> list[bytes]:
        """Return the messages that are complete by now. Never raises OSError."""
        try:
            while not self.ended:
                piece = self._end.recv(_PIECE_BYTES)
                self._received += piece
                self.ended = not piece
                if len(piece) < _PIECE_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        return self._whole()

    def _whole(self) -> list[bytes]:
        messages = []
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            if length > MESSAGE_BYTES_MAX:
                self.ended = True
                self._received.clear()
                break
            end = _LENGTH.size + length
            if len(self._received) < end:
                break
            messages.append(bytes(self._received[_LENGTH.size : end]))
            del self._received[:end]
        return messages

    def close(self) -> None:
        """Close this end: an idle worker ends by that."""
        with suppress(OSError):
            self._end.close()


def read_message(end: socket.socket) -> bytes | None:
    """Wait for a message, in a worker; None when the bridge has closed its end."""
    head = _read(end, _LENGTH.size)
    return None if head is None else _read(end, *_LENGTH.unpack(head))


def write_message(end: socket.socket, message: bytes) -> None:
    """Write a message, in a worker. Raises OSError when the bridge is gone."""
    end.sendall(_LENGTH.pack(len(message)) + message)


def _read(end: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = end.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)

"""The data set of a deflated file, bounded in size and held once.

This file must not know: sockets, files, clocks, logging, settings.
PS3.5 section A.5: one raw deflate stream after the file meta information.
"""

from __future__ import annotations

import zlib

from bridge.core.errors import InstanceError
from bridge.core.model import Reason

INFLATED_BYTES_MAX = 1 << 30
_INPUT_BYTES = 1 << 16
_OUTPUT_BYTES = 1 << 20


def inflated_dataset(packed: memoryview) -> memoryview:
    """Return the data set in ``packed``. Raises InstanceError (damaged, cut short, too large).

    Grown in place: zlib's own buffer would be held twice when it is joined.
    """
    engine = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    inflated = bytearray()
    try:
        for start in range(0, len(packed), _INPUT_BYTES):
            rest: bytes | memoryview = packed[start : start + _INPUT_BYTES]
            while rest and not engine.eof:
                inflated += engine.decompress(rest, _OUTPUT_BYTES)
                rest = engine.unconsumed_tail
                _check_size(len(inflated))
            if engine.eof:
                return memoryview(inflated)
        inflated += engine.flush()
    except zlib.error as exc:
        raise InstanceError(Reason.UNDECODABLE, "The deflated data set is damaged.") from exc
    _check_size(len(inflated))
    if not engine.eof:
        raise InstanceError(Reason.UNDECODABLE, "The deflated data set is cut short.")
    return memoryview(inflated)


def _check_size(inflated_bytes: int) -> None:
    if inflated_bytes > INFLATED_BYTES_MAX:
        raise InstanceError(
            Reason.TOO_LARGE, f"The data set inflates to over {INFLATED_BYTES_MAX} bytes."
        )

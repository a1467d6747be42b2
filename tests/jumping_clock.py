"""``python -m tests.jumping_clock``: ``orthanc-bridge`` on a machine whose clock somebody sets.

The file ``clock-ahead`` in the working directory says by how many seconds the clock on the wall is
ahead, from now on. Nothing else is changed: the machine's counter since its start goes on as it is.
Workers import this module again: it must stay light.
"""

from __future__ import annotations

import time
from pathlib import Path

AHEAD = Path("clock-ahead")
_REAL = time.time


def _now_s() -> float:
    try:
        return _REAL() + float(AHEAD.read_text("ascii"))
    except (OSError, ValueError):
        return _REAL()


def main() -> None:
    """Set the clock, then do as the console script does."""
    time.time = _now_s  # before anything of ours is read: some keep the function itself
    from bridge.__main__ import main as bridge_main

    bridge_main()


if __name__ == "__main__":
    main()

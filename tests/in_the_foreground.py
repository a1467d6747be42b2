"""``python -m tests.in_the_foreground ...``: the bridge as a shell starts it, Ctrl-C not ignored.

A pytest in the background has SIGINT ignored, and what it starts inherits that.
"""

from __future__ import annotations

import signal

from bridge.__main__ import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()

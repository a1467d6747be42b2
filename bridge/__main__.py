"""``python -m bridge`` and the console script ``orthanc-bridge``.

Worker processes import the main module of their parent: it must stay light.
"""

import os
import signal
import sys

EXIT_INTERRUPTED = 130
"""As in errors.py, which is not imported yet when this is needed."""


def main() -> None:
    """Run the command line."""
    if os.getpid() == 1:
        # The kernel drops a SIGTERM to process 1 that has no handler for it: without this one a
        # container would not stop while it starts, and commands other than run not at all.
        signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    try:
        from bridge.cli import run_command_line

        run_command_line()
    except KeyboardInterrupt:
        # While it starts: reading the code takes a second or more on a busy machine.
        sys.stderr.write("orthanc-bridge: interrupted\n")
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

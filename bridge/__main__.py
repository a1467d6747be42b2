"""``python -m bridge`` and the console script ``orthanc-bridge``.

Worker processes import the main module of their parent: it must stay light.
"""

import os
import signal


def main() -> None:
    """Run the command line."""
    if os.getpid() == 1:
        # The kernel drops a SIGTERM to process 1 that has no handler for it: without this one a
        # container would not stop while it starts, and commands other than run not at all.
        signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    from bridge.cli import run_command_line

    run_command_line()


if __name__ == "__main__":
    main()

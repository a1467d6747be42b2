"""``python -m bridge`` and the console script ``orthanc-bridge``.

Worker processes import the main module of their parent: it must stay light.
"""

import os
import signal
import sys
from types import FrameType

EXIT_INTERRUPTED = 130
"""As in errors.py, which is not imported yet when this is needed."""

END_WITHIN_S = 20
"""After Ctrl-C a command has so long to clean up, then it is ended."""


class _Interrupt:
    """Ctrl-C in a command that does not drain: KeyboardInterrupt, and an end that surely comes.

    Python may raise KeyboardInterrupt between a lock's acquisition and the block that releases it,
    in the standard library too (a thread that starts then waits for ever, and the end of the
    process waits for that thread). So the process does not wait for its threads afterwards, and
    an alarm ends it where the cleaning itself waits.
    """

    def __init__(self) -> None:
        self.came = False

    def install(self) -> None:
        """Handle SIGINT, unless whoever started this process has it ignored."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            signal.signal(signal.SIGALRM, lambda *_: os._exit(EXIT_INTERRUPTED))
            signal.alarm(END_WITHIN_S)
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    if os.getpid() == 1:
        # The kernel drops a SIGTERM to process 1 that has no handler for it: without this one a
        # container would not stop while it starts, and commands other than run not at all.
        signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    interrupt, code = _Interrupt(), 0
    try:
        interrupt.install()
        from bridge.standard_streams import take_stderr_over

        take_stderr_over()
        from bridge.cli import run_command_line

        run_command_line()
    except KeyboardInterrupt:
        # While it starts: reading the code takes a second or more on a busy machine.
        sys.stderr.write("orthanc-bridge: interrupted\n")
        code = EXIT_INTERRUPTED
    except SystemExit as exc:
        if not isinstance(exc.code, int):
            raise
        code = exc.code
    from bridge.standard_streams import end_streams

    code = end_streams(code)
    if interrupt.came:
        os._exit(code)  # without waiting for its threads
    sys.exit(code)


if __name__ == "__main__":
    main()

"""``python -m tests.process_probe``: tells what a process finds at its start, and ends with 7."""

from __future__ import annotations

import json
import os
import signal
import sys

if __name__ == "__main__":
    found = {
        "arguments": sys.argv[1:],
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "cwd": str(os.getcwd()),  # noqa: PTH109 (as the process has it)
        "encodings": [sys.stdout.encoding, sys.stderr.errors],
        "environment": dict(os.environ),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "leads_a_session": os.getsid(0) == os.getpid(),
        "lines_at_once": [sys.stdout.line_buffering, sys.stderr.line_buffering],
        "module": __spec__.name if __spec__ else "",
        "parent": os.getppid(),
    }
    sys.stdout.write(json.dumps(found, sort_keys=True) + "\n")
    sys.stderr.write("beside\n")
    sys.exit(7)

"""Exceptions, by whose fault they are.

    BridgeError                     has a message, an advice and an exit code
    ├── ConfigurationError     2    a setting or an argument
    ├── SideError                   a server: carries side, problem, specific
    │   ├── SourceError       10
    │   └── TargetError       11
    ├── InstancesRefused       3    a server serves others and not these; nothing is parked
    ├── StateError            12    the ledger: unusable, or held by another bridge
    ├── FeedWentBackwards     13    the source's feed is not the one that was followed
    └── InstanceError               one instance: carries a Reason, never ends the process
        └── InstanceGone            deleted at the source before we could read it

This file must not know: sockets, files, clocks, logging, settings.
A message never contains patient data or a secret: identifiers, UIDs, codes and sizes only.
"""

from __future__ import annotations

from bridge.model import Reason, SideFailed, SideName, SideProblem

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_CONFIGURATION = 2
EXIT_INCOMPLETE = 3
EXIT_SOURCE = 10
EXIT_TARGET = 11
EXIT_STATE = 12
EXIT_FEED = 13
EXIT_INTERRUPTED = 130

OUT_OF_MEMORY = "It needs more memory than BRIDGE_WORKER_MEMORY_MB allows one worker."
"""Said by the worker when it notices, by the executor when it does not."""


class BridgeError(Exception):
    """What happened, what to do next, and the process exit code that says so to scripts."""

    exit_code = EXIT_BUG

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()


class ConfigurationError(BridgeError):
    """A setting or an argument is missing, malformed or contradicts another."""

    exit_code = EXIT_CONFIGURATION


class SideError(BridgeError):
    """A server cannot be used now. Waiting and trying again is the right answer (G4).

    ``specific``, ``begun`` and ``gone`` as in SideFailed.
    """

    side: SideName

    def __init__(
        self,
        problem: SideProblem,
        message: str,
        *,
        advice: str = "",
        specific: bool = False,
        begun: bool = False,
    ) -> None:
        super().__init__(message, advice=advice)
        self.problem = problem
        self.specific = specific
        self.begun = begun
        self.gone = False


class SourceError(SideError):
    """The source cannot be used now."""

    exit_code = EXIT_SOURCE
    side = SideName.SOURCE


class TargetError(SideError):
    """The target cannot be used now."""

    exit_code = EXIT_TARGET
    side = SideName.TARGET


class StateError(BridgeError):
    """The state file cannot be used: not writable, damaged, newer, or held by another bridge."""

    exit_code = EXIT_STATE


class InstancesRefused(BridgeError):
    """A server served others, and answered the last ones with errors for the whole patience."""

    exit_code = EXIT_INCOMPLETE


class FeedWentBackwards(BridgeError):
    """The source's feed is not the one that the checkpoint was taken from (G6)."""

    exit_code = EXIT_FEED


class InstanceError(BridgeError):
    """This instance cannot be delivered as asked.

    ``final``: another attempt would end in the same way.
    """

    def __init__(
        self, reason: Reason, message: str, *, final: bool = True, source_syntax: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final
        self.source_syntax = source_syntax


class InstanceGone(InstanceError):
    """404 for the instance's own URL: it was deleted, if the source is otherwise well."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.GONE, message)


def side_error(
    side: SideName,
    problem: SideProblem,
    message: str,
    *,
    advice: str = "",
    specific: bool = False,
    begun: bool = False,
) -> SideError:
    """Build the SideError subclass of that side."""
    kind = SourceError if side is SideName.SOURCE else TargetError
    return kind(
        problem,
        message,
        advice=advice,
        specific=specific,
        begun=begun,
    )


def failure_of(error: SideError) -> SideFailed:
    """Turn a server's error into a value."""
    return SideFailed(
        error.side,
        error.problem,
        error.message,
        error.advice,
        error.specific,
        error.begun,
        error.gone,
    )

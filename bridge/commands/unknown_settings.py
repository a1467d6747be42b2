"""What every command says of a variable that looks like a setting and is none."""

from __future__ import annotations

import logging
import os

from bridge.credentials import DOTENV_PATH, read_dotenv
from bridge.errors import ConfigurationError


def warn_of_unknown_settings() -> None:
    """Warn on stderr of settings that mean nothing, once, whatever the command.

    As a line of the log, in the form that the log has.
    """
    if not (any(name.startswith("BRIDGE_") for name in os.environ) or DOTENV_PATH.exists()):
        return  # nothing is set: settings need not be imported
    from bridge.config import unknown_variables, variable_of
    from bridge.log import log, set_up_logging

    try:
        unknown = unknown_variables()
        given = {**read_dotenv(), **os.environ}
    except ConfigurationError:
        return  # told by whatever needs settings
    if not unknown:
        return
    log_format = (given.get(variable_of("log_format")) or "").lower()
    set_up_logging(log_format=log_format, level="warning")
    for name, meant in unknown:
        hint = f"; did you mean {meant}?" if meant else ""
        text = f"{name} is not a setting and has no effect{hint}"
        log(logging.WARNING, "unknown_setting", text, setting=name)

"""Who can reach an address.

This file must not know: sockets, files, clocks, logging, settings.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether an IP address, with or without brackets, is a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

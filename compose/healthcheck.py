"""Health check of the container: exit code 0 when /readyz answers 200, else 1 and the answer."""

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4.0


def main() -> int:
    """Ask the bridge in this container, without the proxies that the environment may name."""
    port = int(os.environ.get("BRIDGE_HEALTH_PORT", "8080"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    if os.environ.get("BRIDGE_HEALTH_CERT_FILE"):
        # It asks itself: its own certificate is for the name by which others ask.
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=tls)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.status} {answer.read(2000).decode('utf-8', 'replace')}\n")
    except (OSError, http.client.HTTPException) as exc:
        sys.stdout.write(f"{type(exc).__name__}\n")
        return 1
    else:
        return 0 if answer.status == http.client.OK else 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())

"""Ask the gateway in this container whether it lives; exit with 0 or 1. For HEALTHCHECK, with nothing installed for it.

The port is that of ``TIERGATE_HTTP_PORT``, as the gateway's own; where another way sets it, give it as an argument.
"""

import http.client
import os
import sys

TIMEOUT_S = 4


def is_live(port: int) -> bool:
    """Return whether the gateway says that it is live."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TIERGATE_HTTP_PORT") or "8000"
    sys.exit(0 if is_live(int(given)) else 1)

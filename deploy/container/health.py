"""Ask the gateway in this container whether it lives, or is ready; exit with 0 or 1. Needs nothing but Python.

The admin listener is asked: it is always there, on the loopback address at least, and no caller needs a certificate
there. Its port, its token's file and whether it speaks TLS are taken from the gateway's own variables; where it
is told in another way, they are flags.
"""  # noqa: INP001 - a script

import argparse
import http.client
import os
import ssl
import sys
from pathlib import Path

TIMEOUT_S = 4


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description="Tell whether the gateway in this container lives.")
    parser.add_argument("--port", type=int, default=os.environ.get("TIERGATE_ADMIN_PORT") or 8002)
    parser.add_argument("--ready", action="store_true", help="ask whether it is ready, not only alive")
    parser.add_argument("--token-file", type=Path, default=os.environ.get("TIERGATE_ADMIN_TOKEN_FILE") or None)
    has_tls = (os.environ.get("TIERGATE_ADMIN_TLS") or "").lower() in ("1", "true", "yes", "on")
    parser.add_argument("--tls", action="store_true", default=has_tls)
    asked = parser.parse_args()
    try:
        headers = {"Authorization": f"Bearer {asked.token_file.read_text().strip()}"} if asked.token_file else {}
        return int(not says_yes(_connection(asked.port, has_tls=asked.tls), asked.ready, headers))
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def says_yes(connection: http.client.HTTPConnection, is_ready_asked: bool, headers: dict[str, str]) -> bool:
    """Return whether the gateway says that it is alive, or ready."""
    try:
        connection.request("GET", f"/v2/health/{'ready' if is_ready_asked else 'live'}", headers=headers)
        return connection.getresponse().status == http.client.OK
    finally:
        connection.close()


def _connection(port: int, *, has_tls: bool) -> http.client.HTTPConnection:
    if not has_tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    # Who answers on this container's own loopback address is not in doubt; the certificate is for another name.
    context = ssl._create_unverified_context()  # noqa: S323, SLF001
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)


if __name__ == "__main__":
    sys.exit(main())

"""What there is to know of the certificate in force."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from service.telemetry.logs import log_event

if TYPE_CHECKING:
    from pathlib import Path

    from service.telemetry.families import Families

_EXPIRES_SOON_S: Final = 14 * 24 * 3600.0


class TlsMetrics:
    """Counts and logs certificates that come into force, or were to; make it where there is TLS."""

    def __init__(self, families: Families) -> None:
        """Define the families."""
        self._expiry = families.gauge(
            "tls_certificate_expiry_timestamp_seconds", "When the certificate in force expires, in Unix time", ()
        )
        self._handshakes = families.counter(
            "tls_handshakes_refused", "Connections closed because too many were shaking hands", ()
        )
        self._reloads = families.counter("tls_reloads", "Certificates that were to come into force", ("outcome",))
        for outcome in ("applied", "refused"):
            self._reloads.labels(outcome)

    def tls_loaded(self, certificate: Path, expires_at: float) -> None:
        """Note a certificate that came into force, and warn of one that expires soon."""
        self._expiry.set(expires_at)
        self._reloads.labels("applied").inc()
        left_s = expires_at - time.time()
        level = logging.WARNING if left_s < _EXPIRES_SOON_S else logging.INFO
        log_event(level, "certificate in force", file=str(certificate), expires_in_days=round(left_s / 86400, 1))

    def handshake_refused(self) -> None:
        """Count a connection that was one too many."""
        self._handshakes.inc()

    def tls_refused(self, why: str) -> None:
        """Note files that cannot be used."""
        self._reloads.labels("refused").inc()
        log_event(logging.ERROR, "certificate refused: the one in force stays", why=why)

"""TLS towards other servers: whom to believe, and what to show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.domain.remotes_file import TlsFiles


@dataclass(frozen=True, slots=True)
class Trust:
    """What ``TlsFiles`` named, read: PEM, ``None`` for what was not named; and the same as a context for HTTP."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None
    context: ssl.SSLContext = field(compare=False)


def read_trust(files: TlsFiles) -> Trust:
    """Read the files.

    Raises:
        OSError, ssl.SSLError: One cannot be read, is not PEM, or the key is not the certificate's.
    """
    context = ssl.create_default_context(cafile=files.ca_file or None)
    if files.client_cert_file:
        context.load_cert_chain(files.client_cert_file, files.client_key_file or None, password="")  # never asks
    return Trust(_read(files.ca_file), _read(files.client_cert_file), _read(files.client_key_file), context)


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None

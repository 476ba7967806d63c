"""TLS for the listeners, with certificates that are read again when their files change.

Every new handshake takes the context that is in force then; connections that are open go on with theirs. Files that
cannot be used leave the context in force, and are looked at again when they change. What the files are is told by
their bytes: a mounted secret changes by a link, and a copied one may keep its time.
"""

from __future__ import annotations

import _ssl
import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast
from weakref import WeakSet

if TYPE_CHECKING:
    from pathlib import Path

Alpn = Literal["http/1.1", "h2"]
LOOK_EVERY_S: Final = 5.0
MOST_HANDSHAKES: Final = 4096


class TlsError(ValueError):
    """The certificate, its key or the clients' authorities cannot be used."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: a certificate with its chain, its key, and who may have signed clients' certificates (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> tuple[bytes, ...]:
        """Return what the files hold.

        Raises:
            TlsError: One of them cannot be read.
        """
        return tuple(_read(path) for path in (self.certificate, self.key, self.client_ca) if path is not None)


class OnTls(Protocol):
    """Who hears of certificates."""

    def tls_loaded(self, certificate: Path, expires_at: float) -> None:
        """A certificate came into force; it expires at that Unix time."""

    def tls_refused(self, why: str) -> None:
        """Changed files cannot be used; what was in force stays."""

    def handshake_refused(self) -> None:
        """A connection was closed, because too many were shaking hands."""


class _Connection(ssl.SSLObject):
    """Knows when its handshake is over."""

    others: WeakSet[_Connection]
    is_too_many = False

    def do_handshake(self) -> None:
        is_over = True
        try:
            if self.is_too_many:
                raise ssl.SSLError("too many connections shake hands")
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            is_over = False
            raise
        finally:
            if is_over:
                self.others.discard(self)


class _Current(ssl.SSLContext):
    """Hands every new connection the context that is in force; the event loops ask ``wrap_bio`` for it."""

    tls: Tls
    alpn: Alpn

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401 - as the class above has them
        made = cast("_Connection", self.tls.in_force(self.alpn).wrap_bio(*arguments, **options))
        self.tls.note_handshake(made)
        return made


class Tls:
    """The certificate in force, for listeners on one event loop."""

    def __init__(self, files: TlsFiles, on_tls: OnTls, most_handshakes: int = MOST_HANDSHAKES) -> None:
        """Read the files; no more connections than ``most_handshakes`` may shake hands at a time.

        Raises:
            TlsError: They cannot be used.
        """
        self._most_handshakes = most_handshakes
        self.handshakes: WeakSet[_Connection] = WeakSet()  # a connection that is lost on the way is just forgotten
        self._files = files
        self._on_tls = on_tls
        self._seen = files.read()
        self._contexts = _make(files)
        self._say()

    def context(self, alpn: Alpn) -> ssl.SSLContext:
        """Return what a listener of one protocol goes by, now and after every reload."""
        context = _Current(ssl.PROTOCOL_TLS_SERVER)
        context.tls, context.alpn = self, alpn
        return context

    def in_force(self, alpn: Alpn) -> ssl.SSLContext:
        """Return the context for a handshake that starts now."""
        return self._contexts[alpn]

    def note_handshake(self, connection: _Connection) -> None:
        """Count a connection that is about to shake hands; one too many will fail to: listeners count those that did.

        What a handshake holds is as much as an open connection does, and costs a client nothing.
        """
        connection.others = self.handshakes
        connection.is_too_many = len(self.handshakes) >= self._most_handshakes
        if connection.is_too_many:
            self._on_tls.handshake_refused()
        else:
            self.handshakes.add(connection)

    def look(self) -> None:
        """Read the files again if they changed; what cannot be used is told once."""
        found: tuple[bytes, ...] = ()
        try:
            found = self._files.read()
            if found == self._seen:
                return
            self._contexts = _make(self._files)
            self._say()
        except TlsError as error:
            if found != self._seen:
                self._on_tls.tls_refused(str(error))
        self._seen = found

    async def watch(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def _say(self) -> None:
        self._on_tls.tls_loaded(self._files.certificate, _expires_at(self._files.certificate))


def usable_until(files: TlsFiles) -> float:
    """Return the Unix time after which files that a listener could go by now are not valid any more.

    Raises:
        TlsError: They cannot be used.
    """
    files.read()
    _make(files)
    return _expires_at(files.certificate)


def _expires_at(certificate: Path) -> float:
    """Return the Unix time after which the first certificate of a PEM file is not valid any more."""
    # Python offers no other way to read a certificate that is not a peer's without a further library.
    try:
        decoded = _ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined] # noqa: SLF001
    except OSError as error:  # it was replaced since it was loaded; what OpenSSL cannot read is one too
        raise TlsError(f"TLS file {certificate} cannot be read: {error.strerror or error}") from None
    return float(ssl.cert_time_to_seconds(decoded["notAfter"]))


def _make(files: TlsFiles) -> dict[Alpn, ssl.SSLContext]:
    protocols: tuple[Alpn, ...] = ("http/1.1", "h2")
    return {alpn: _context(files, alpn) for alpn in protocols}


def _context(files: TlsFiles, alpn: Alpn) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _Connection
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([alpn])
    try:
        # A key that needs a password would have it asked for on the terminal; it gets none.
        context.load_cert_chain(files.certificate, files.key, password=str)
    except ssl.SSLError as error:
        raise TlsError(_pair_problem(files, error)) from None
    except OSError as error:  # it went after it was read: whoever replaces it is not done
        raise TlsError(f"a TLS file cannot be read: {error.strerror or error}") from None
    if _expires_at(files.certificate) <= time.time():
        raise TlsError(f"the certificate in tls_cert_file {files.certificate} has expired; give one that is valid")
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except OSError:  # what OpenSSL cannot read is one too
            message = f"tls_client_ca_file {files.client_ca} holds no PEM certificate"
            raise TlsError(message) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _pair_problem(files: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"the key in tls_key_file {files.key} is not that of the certificate in tls_cert_file {files.certificate}"
        )
    return (
        f"tls_cert_file {files.certificate} and tls_key_file {files.key} must hold a PEM certificate and its key, "
        f"without a password: {error.reason or error}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"TLS file {path} cannot be read: {error.strerror or error}") from None

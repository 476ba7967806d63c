"""TLS of the listeners over real sockets: what is refused at the start, and certificates that change while we serve."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import trustme

from service.frontends.grpc import CallLimits, GrpcServer
from service.frontends.http import ConnectionLimits, HttpServer
from service.frontends.sockets import bind, port_of
from service.frontends.tls import Tls, TlsError, TlsFiles
from tests.service.frontends.test_grpc import Echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.api.asgi import Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
NOW = dt.datetime.now(dt.UTC)


@dataclass
class Heard:
    """What was told of certificates."""

    loaded: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def tls_loaded(self, certificate: Path, expires_at: float) -> None:
        assert certificate.name == "cert.pem"
        self.loaded.append(expires_at)

    def tls_refused(self, why: str) -> None:
        self.refused.append(why)

    def handshake_refused(self) -> None:
        self.refused.append("handshake")


@dataclass
class Folder:
    """PEM files of an authority, and a client's trust in it."""

    path: Path
    authority: trustme.CA = field(default_factory=trustme.CA)
    heard: Heard = field(default_factory=Heard)

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.path / "cert.pem", self.path / "key.pem")

    def issue(self, not_after: dt.datetime | None = None) -> None:
        """Write a new certificate and its key."""
        made = self.authority.issue_cert("localhost", not_after=not_after)
        made.private_key_pem.write_to_path(str(self.files.key))
        made.cert_chain_pems[0].write_to_path(str(self.files.certificate))

    def client(self, alpn: str = "http/1.1") -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols([alpn])
        return context


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path)
    found.issue()
    return found


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@dataclass
class Served:
    """An HTTP server that speaks TLS."""

    tls: Tls
    port: int

    @contextlib.asynccontextmanager
    async def connected(
        self, client: ssl.SSLContext
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=client, server_hostname="localhost")
        try:
            yield reader, writer
        finally:
            writer.close()

    async def serial(self, client: ssl.SSLContext) -> object:
        """Return the serial number of the certificate that a new connection gets."""
        async with self.connected(client) as (_, writer):
            return serial_of(writer)


@pytest.fixture
async def served(folder: Folder) -> AsyncIterator[Served]:
    tls = Tls(folder.files, folder.heard)
    server = HttpServer(app, ConnectionLimits(10, 60.0), tls=tls.context("http/1.1"))
    with bind("127.0.0.1", 0, "http_port") as listener:
        await server.start(listener)
        yield Served(tls, port_of(listener))
        await server.close()


def serial_of(writer: asyncio.StreamWriter) -> object:
    return writer.get_extra_info("peercert")["serialNumber"]


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(5)


@dataclass(frozen=True)
class Replaced(TlsFiles):
    """Files of which the certificate goes after it was read, once ``goes`` is set: somebody is writing it anew."""

    goes: threading.Event = field(default_factory=threading.Event)

    def read(self) -> tuple[bytes, ...]:
        found = super().read()
        if self.goes.is_set():
            self.certificate.unlink(missing_ok=True)
        return found


def test_files_that_go_while_they_are_loaded_are_refused_and_looked_at_again(folder: Folder) -> None:
    files = Replaced(folder.files.certificate, folder.files.key)
    tls = Tls(files, folder.heard)
    before = tls.in_force("h2")
    folder.issue()
    files.goes.set()
    tls.look()
    assert len(folder.heard.refused) == 1
    assert tls.in_force("h2") is before
    files.goes.clear()
    folder.issue()
    tls.look()
    assert tls.in_force("h2") is not before


async def test_http_is_answered_over_tls(served: Served, folder: Folder) -> None:
    async with served.connected(folder.client()) as (reader, writer):
        assert await ask(reader, writer) == b"https"
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_plain_http_gets_no_answer_from_a_tls_listener(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(GET)
    with contextlib.suppress(ConnectionResetError):
        assert b"200" not in await reader.read()
    writer.close()


async def test_older_tls_than_1_2_is_refused(served: Served, folder: Folder) -> None:
    client = folder.client()
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await served.serial(client)


async def test_new_connections_get_the_new_certificate_and_open_ones_go_on(served: Served, folder: Folder) -> None:
    client = folder.client()
    async with served.connected(client) as (reader, writer):
        before = serial_of(writer)
        folder.issue()
        served.tls.look()
        served.tls.look()  # nothing new
        assert await served.serial(client) != before
        assert await ask(reader, writer) == b"https"
    assert (len(folder.heard.loaded), folder.heard.refused) == (2, [])


async def test_files_that_cannot_be_used_keep_the_certificate_in_force(served: Served, folder: Folder) -> None:
    client = folder.client()
    before = await served.serial(client)
    other = folder.authority.issue_cert("localhost")
    other.private_key_pem.write_to_path(str(folder.files.key))
    served.tls.look()
    folder.files.key.unlink()
    served.tls.look()
    served.tls.look()
    assert await served.serial(client) == before
    mismatch, *absent = folder.heard.refused
    assert "is not that of the certificate" in mismatch
    assert len(absent) == 1
    assert "cannot be read" in absent[0]
    folder.issue()
    served.tls.look()
    assert await served.serial(client) != before


async def test_client_without_a_certificate_is_refused_where_one_is_asked_for(folder: Folder) -> None:
    authority = folder.path / "clients.pem"
    folder.authority.cert_pem.write_to_path(str(authority))
    files = TlsFiles(folder.files.certificate, folder.files.key, authority)
    server = HttpServer(app, ConnectionLimits(10, 60.0), tls=Tls(files, folder.heard).context("http/1.1"))
    stranger = trustme.CA()
    with bind("127.0.0.1", 0, "http_port") as listener:
        await server.start(listener)
        served = Served(Tls(files, folder.heard), port_of(listener))
        for issuer in (None, stranger, folder.authority):
            client = folder.client()
            if issuer is not None:
                issuer.issue_cert("client@localhost").configure_cert(client)
            if issuer is folder.authority:
                async with served.connected(client) as streams:
                    assert await ask(*streams) == b"https"
                continue
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                async with served.connected(client) as streams:
                    await ask(*streams)  # with TLS 1.3 the refusal comes after the handshake
        await server.close()


async def test_connections_that_do_not_finish_their_handshake_are_bounded(folder: Folder) -> None:
    tls = Tls(folder.files, folder.heard, 2)
    server = HttpServer(app, ConnectionLimits(10, 60.0), tls=tls.context("http/1.1"))
    with bind("127.0.0.1", 0, "http_port") as listener:
        await server.start(listener)
        served = Served(tls, port_of(listener))
        silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        while len(tls.handshakes) < 2:  # noqa: ASYNC110 - the loop itself takes the connections
            await asyncio.sleep(0)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served.serial(folder.client())
        assert folder.heard.refused == ["handshake"]
        for _, writer in silent:
            writer.close()
        while tls.handshakes:  # a lost one is forgotten, by the collector at the latest
            await asyncio.sleep(0)
            gc.collect()
        for _ in range(3):  # who has shaken hands does not count
            async with served.connected(folder.client()) as (reader, writer):
                assert await ask(reader, writer) == b"https"
                assert not tls.handshakes
        await server.close()


async def test_grpc_listener_offers_http2_and_speaks_it(folder: Folder) -> None:
    server = GrpcServer(Echo(), CallLimits(10, 10, 60.0))
    with bind("127.0.0.1", 0, "grpc_port") as listener:
        await server.start(listener, Tls(folder.files, folder.heard).context("h2"))
        address = port_of(listener)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", address, ssl=folder.client("h2"), server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        assert (await reader.readexactly(9))[3] == 4  # SETTINGS
        writer.close()
        await server.close(1.0)


def test_expired_certificate_is_refused_at_the_start(folder: Folder) -> None:
    folder.issue(not_after=NOW - dt.timedelta(days=1))
    with pytest.raises(TlsError, match=r"cert\.pem has expired"):
        Tls(folder.files, folder.heard)


def test_expiry_of_the_certificate_is_told(folder: Folder) -> None:
    folder.issue(not_after=NOW + dt.timedelta(days=3))
    Tls(folder.files, folder.heard)
    assert folder.heard.loaded == [pytest.approx((NOW + dt.timedelta(days=3)).timestamp(), abs=2)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cert.pem", None, r"cert\.pem cannot be read: No such file"),
        ("key.pem", None, r"key\.pem cannot be read: No such file"),
        ("cert.pem", b"nonsense", "must hold a PEM certificate and its key"),
        ("key.pem", b"nonsense", "must hold a PEM certificate and its key"),
        ("ca.pem", b"nonsense", r"ca\.pem holds no PEM certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named(folder: Folder, name: str, content: bytes | None, said: str) -> None:
    authority = folder.path / "ca.pem"
    folder.authority.cert_pem.write_to_path(str(authority))
    if content is None:
        (folder.path / name).unlink()
    else:
        (folder.path / name).write_bytes(content)
    with pytest.raises(TlsError, match=said):
        Tls(TlsFiles(folder.files.certificate, folder.files.key, authority), folder.heard)


def test_key_of_another_certificate_is_refused(folder: Folder) -> None:
    folder.authority.issue_cert("localhost").private_key_pem.write_to_path(str(folder.files.key))
    with pytest.raises(TlsError, match="is not that of the certificate"):
        Tls(folder.files, folder.heard)

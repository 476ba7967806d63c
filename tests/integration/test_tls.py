"""TLS of a whole gateway: real clients of both protocols, clients' certificates, and a certificate that changes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import trustme
from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.utils import InferenceServerException

from tests.builders import ModelPlan, write_model
from tests.integration.gateway_process import rewrite, running_gateway, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_process import GatewayProcess

ONES = np.ones((1, 4), dtype=np.float32)


@dataclass
class Secured:
    """A gateway that asks for clients' certificates, and the files of both sides."""

    gateway: GatewayProcess
    authority: trustme.CA
    folder: Path

    def issue(self, name: str) -> None:
        issue(self.authority, self.folder, name)

    def context(self, name: str = "client") -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if name:
            context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def host(self, address: str) -> str:
        """Return an address by the name that the certificate has."""
        return address.replace("127.0.0.1", "localhost")

    def serial(self) -> object:
        """Return the serial number of the certificate that a new connection gets."""
        host, _, port = self.gateway.http.rpartition(":")
        plain = socket.create_connection((host, int(port)), timeout=300)
        with self.context().wrap_socket(plain, server_hostname="localhost") as connection:
            found: Any = connection.getpeercert()
            return found["serialNumber"]


def issue(authority: trustme.CA, folder: Path, name: str) -> None:
    """Write NAME.pem and NAME.key; a gateway that looks between the two finds that they do not fit, and looks again."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    rewrite(folder / f"{name}.key", made.private_key_pem.bytes().decode())
    rewrite(folder / f"{name}.pem", made.cert_chain_pems[0].bytes().decode())


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Serve with mTLS."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    write_model(folder / "repository", ModelPlan())
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name in ("server", "client"):
        issue(authority, folder, name)
    files = {"cert": "server.pem", "key": "server.key", "client-ca": "ca.pem"}
    flags = [part for name, file in files.items() for part in (f"--tls-{name}-file", str(folder / file))]
    with running_gateway(folder / "repository", *flags) as gateway:
        yield Secured(gateway, authority, folder)


def http_client(secured: Secured, name: str) -> triton_http.InferenceServerClient:
    return triton_http.InferenceServerClient(
        secured.host(secured.gateway.http), ssl=True, ssl_context_factory=lambda: secured.context(name)
    )


def grpc_client(secured: Secured, name: str) -> triton_grpc.InferenceServerClient:
    pair = {}
    if name:
        pair = {
            "private_key": str(secured.folder / f"{name}.key"),
            "certificate_chain": str(secured.folder / f"{name}.pem"),
        }
    authority = str(secured.folder / "ca.pem")
    return triton_grpc.InferenceServerClient(
        secured.host(secured.gateway.grpc), ssl=True, root_certificates=authority, **pair
    )


def infer(client: Any, module: Any) -> float:  # noqa: ANN401 - tritonclient's, which have no types
    tensor = module.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(ONES)
    return float(client.infer("sums", [tensor]).as_numpy("y").sum())


def test_tritonclient_is_answered_over_tls_by_both_protocols(secured: Secured) -> None:
    with http_client(secured, "client") as client:
        assert infer(client, triton_http) == 4.0
    with grpc_client(secured, "client") as client:
        assert infer(client, triton_grpc) == 4.0


def test_client_without_a_certificate_is_refused_by_both_protocols(secured: Secured) -> None:
    with http_client(secured, "") as client, pytest.raises((OSError, HTTPConnectionClosed)):
        infer(client, triton_http)
    with grpc_client(secured, "") as client, pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=10)


def test_admin_listener_stays_plain_unless_asked(secured: Secured) -> None:
    assert secured.gateway.call("GET", "/v2/health/ready", where=secured.gateway.admin)[0] == 200


def test_new_certificate_comes_into_force_while_old_connections_go_on(secured: Secured) -> None:
    with http_client(secured, "client") as client:
        before = secured.serial()
        assert infer(client, triton_http) == 4.0
        secured.issue("server")
        # The gateway looks at the files every few seconds.
        until(lambda: infer(client, triton_http) == 4.0 and secured.serial() != before)
        assert infer(client, triton_http) == 4.0
    reloads = 'tiergate_tls_reloads_total{outcome="applied"}'
    assert secured.gateway.metric(reloads, where=secured.gateway.admin) == 2

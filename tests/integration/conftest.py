"""One gateway for each frontend, shared by the tests that leave it as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.gateway_process import running_gateway, write_sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.gateway_process import GatewayProcess


@pytest.fixture(scope="session", params=["python", "pyvoy"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Serve the model ``sums`` by each frontend in turn."""
    if request.param == "pyvoy":
        pytest.importorskip("pyvoy", reason="the optional frontend pyvoy is not installed")
    root = tmp_path_factory.mktemp(request.param) / "repository"
    write_sums(root)
    with running_gateway(root, "--frontend", request.param, "--read-timeout-s", "2") as running:
        yield running

"""What the tests of deployment share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deploy.chart import CASES, Helm, Release, missing_tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(scope="session")
def helm() -> Iterator[Helm]:
    """Helm; tests that need it are skipped where it is not installed."""
    if why := missing_tools():
        pytest.skip(why)
    running = Helm()
    yield running
    running.close()


@pytest.fixture(scope="session")
def releases(helm: Helm) -> Mapping[str, Release]:
    """Every committed case, rendered by Helm for the newest Kubernetes."""
    return {case: helm.render(case) for case in CASES}

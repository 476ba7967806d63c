"""The order of a drain, in a whole gateway without listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.app import Gateway
from service.domain.errors import Draining, ModelNotFound
from service.settings import Settings
from tests.builders import make_request

if TYPE_CHECKING:
    from pathlib import Path


async def test_clients_are_told_to_go_before_anything_is_refused(tmp_path: Path) -> None:
    gateway = Gateway(Settings(repository=tmp_path))
    request, was_told = make_request(model="absent"), []

    def leave() -> None:
        with pytest.raises(ModelNotFound):  # not yet refused for the drain
            gateway.plane.infer(request).send(None)
        was_told.append(not gateway.plane.is_ready())

    await gateway.drain(leave)
    assert was_told == [True]
    with pytest.raises(Draining):
        await gateway.plane.infer(request)

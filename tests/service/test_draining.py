"""The order of a drain, in a whole gateway without listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.app import Gateway
from service.domain.errors import Draining, ModelNotFound
from service.settings import Settings
from tests.builders import make_request
from tests.service.frontends.test_door import LateClock

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


async def test_late_loop_of_a_server_that_leaves_tells_nobody_to_come_again(tmp_path: Path) -> None:
    gateway = Gateway(Settings(repository=tmp_path))
    gateway.door.clock = LateClock()

    def is_turned_away() -> bool:
        gateway.door.read()
        return gateway.door.turns_away("http", b"absent", {b"x-latency-budget-ms": b"1"})

    before: list[bool] = []
    await gateway.drain(lambda: before.append(is_turned_away()))
    assert before == [True]
    assert not is_turned_away()

"""A repository of which one variant is on another server: loading, loading again, and what is held here."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from service.domain.errors import ModelNotReady
from service.domain.policy_file import PolicyFile
from service.domain.remotes_file import RemotesFile
from service.engine.backends.backend import Call
from service.engine.backends.trust import Trust
from service.engine.dispatcher import Dispatcher
from service.engine.holding import Holding
from service.engine.lanes import Lanes
from service.engine.registry import Registry
from service.engine.remote_variant import RemoteVariant
from service.engine.remotes import Remotes
from service.engine.repository import Repository
from tests.builders import write_repository
from tests.service.engine.conftest import Events
from tests.service.engine.test_remote_endpoints import Summing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("patient_probes")

WAIT_S = 60.0


class Site:
    """A registry over a repository, its remote variants, and the server that has them."""

    def __init__(self, root: Path, port: int, budget_bytes: int | None, *variants: str) -> None:
        self.events = Events()
        self.port = port
        self.dispatcher = Dispatcher(1, self.events, time.perf_counter)
        spec = {"endpoints": [f"grpc://127.0.0.1:{port}"], "version": "7"}
        file = RemotesFile.model_validate({"remotes": {"sums": dict.fromkeys(variants, spec)}})
        self.remotes = Remotes(file, self.dispatcher.calls, self.events)
        holding = Holding(self.events, budget_bytes, parking=self.dispatcher.parking)
        self.registry = Registry(Repository(root), PolicyFile(), self.events, 60.0, holding, self.remotes)
        self.remotes.start(self.registry.all)

    def ready(self) -> set[str]:
        return set(self.registry.get("sums").ready(time.perf_counter()))


@asynccontextmanager
async def serving(
    root: Path, *variants: str, budget_bytes: int | None = None, datatype: str = "FP32"
) -> AsyncIterator[Site]:
    server, servicer = grpc.aio.server(), Summing()
    servicer.datatype = datatype
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    site = Site(write_repository(root), port, budget_bytes, *variants)
    try:
        yield site
    finally:
        await asyncio.to_thread(site.remotes.close)
        await server.stop(None)


async def load(site: Site) -> None:
    await asyncio.wait_for(asyncio.to_thread(site.registry.load_all), WAIT_S)


async def test_a_variant_elsewhere_is_ready_and_its_file_is_not_read(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        (tmp_path / "sums" / "1" / "full.onnx").unlink()
        await load(site)
        model = site.registry.get("sums")
        assert site.ready() == {"full", "quantized", "distilled"}
        assert set(model.backends) == {"quantized", "distilled"}
        assert site.dispatcher.desk.pools[model.standing.pools["full"]].usable == 4


async def test_a_model_loaded_again_keeps_its_servers_and_what_was_learnt_of_them(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        await load(site)
        before = site.registry.get("sums")
        await load(site)
        after = site.registry.get("sums")
        assert after is not before
        assert after.remote["full"] is before.remote["full"]
        assert "full" in site.ready()


async def until_closed(remote: RemoteVariant) -> None:
    """Wait until a remote variant's servers are watched no more."""
    async with asyncio.timeout(WAIT_S):
        while remote.up:  # noqa: ASYNC110 - it ends on another thread's loop
            await asyncio.sleep(0)


def change_file_of(root: Path, variant: str) -> None:
    """Publish another file of a variant."""
    path = root / "sums" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    next(item for item in manifest["variants"] if item["name"] == variant)["sha256"] = "cd" * 32
    path.write_text(json.dumps(manifest))


def remote_of(site: Site) -> RemoteVariant:
    remote = site.registry.get("sums").remote["full"]
    assert isinstance(remote, RemoteVariant)
    return remote


async def test_a_variant_that_has_changed_has_its_servers_met_anew_and_the_old_ones_let_go(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        await load(site)
        before = remote_of(site)
        change_file_of(tmp_path, "full")
        await load(site)
        assert remote_of(site) is not before
        await until_closed(before)
        assert [state.is_up for state in site.remotes.endpoints()] == [True]


async def test_a_reload_that_fails_leaves_the_servers_of_what_is_served(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        await load(site)
        before = remote_of(site)
        change_file_of(tmp_path, "full")
        site.registry.apply_policy(PolicyFile.model_validate({"models": {"sums": {"variants": ["absent"]}}}))
        for _ in range(2):  # a failure leaves nothing behind that the next load could trip over
            with pytest.raises(ModelNotReady, match="policy allows only absent"):
                await asyncio.to_thread(site.registry.load, "sums")
        assert remote_of(site) is before
        call = before.begin(Call({"x": np.ones((1, 4), dtype=np.float32)}, WAIT_S))
        assert (await asyncio.wrap_future(call))[0].tolist() == [[4.0]]
        assert [state.is_up for state in site.remotes.endpoints()] == [True]


async def test_an_unloaded_model_lets_go_of_its_servers(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        await load(site)
        remote = remote_of(site)
        site.registry.unload("sums")
        await until_closed(remote)
        assert site.remotes.endpoints() == []
        await load(site)
        assert "full" in site.ready()


async def test_a_variant_elsewhere_takes_nothing_of_the_memory_budget(tmp_path: Path) -> None:
    async with serving(tmp_path, "full", budget_bytes=2 * 2**20) as site:
        await load(site)
        assert site.ready() == {"full", "quantized", "distilled"}


async def test_a_server_of_another_interface_leaves_the_variant_out_and_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path, "full", datatype="INT64") as site:
        await load(site)
        assert site.ready() == {"quantized", "distilled"}
        states = {item.variant.name: item.state for item in site.registry.states("sums", time.perf_counter())}
        assert states["full"] == "failed"


async def test_a_variant_that_is_not_there_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path, "huge") as site:
        await load(site)
        assert site.ready() == {"full", "quantized", "distilled"}
    assert "remotes file: model 'sums' has no published variant 'huge'" in caplog.text


async def test_bfloat16_cannot_be_sent_and_the_model_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        path = tmp_path / "sums" / "1" / "manifest.json"
        path.write_text(path.read_text().replace('"FP32"', '"BF16"'))
        await load(site)
        with pytest.raises(ModelNotReady, match="BF16 inputs and outputs cannot be sent"):
            site.registry.get("sums")


def another(file: RemotesFile, calls: int) -> RemotesFile:
    """Return the same file with another number of calls."""
    spec = file.remotes["sums"]["full"].model_copy(update={"calls": calls})
    return file.model_copy(update={"remotes": {"sums": {"full": spec}}})


async def test_another_file_says_which_models_to_load_again_and_they_get_lanes_of_their_own(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        await load(site)
        site.dispatcher.calls.serve_pools(lambda _: None)
        before, model = remote_of(site), site.registry.get("sums")
        file, trust = site.remotes.in_force
        assert site.remotes.go_by(file, trust) == frozenset()
        assert site.remotes.go_by(another(file, 2), trust) == {"sums"}
        await load(site)
        after = remote_of(site)
        assert after is not before
        assert site.dispatcher.desk.pools[after.pool].usable == 2
        await until_closed(before)
        async with asyncio.timeout(WAIT_S):
            while before.pool in site.dispatcher.desk.pools:  # noqa: ASYNC110 - it ends on another thread's loop
                await asyncio.sleep(0)
        # Who still holds the model from before finds what is gone to be away, and nothing worse.
        assert site.dispatcher.calls.away(model) == ["full"]


async def test_a_renewed_certificate_is_another_place_and_the_same_one_is_not(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        file, _ = site.remotes.in_force
        old, same, renewed = (
            {("sums", "full"): Trust(pem, None, None, ssl.create_default_context())} for pem in (b"one", b"one", b"two")
        )
        site.remotes.go_by(file, old)
        assert site.remotes.go_by(file, same) == frozenset()
        assert site.remotes.go_by(file, renewed) == {"sums"}


async def test_threads_of_lanes_that_are_gone_end(tmp_path: Path) -> None:
    async with serving(tmp_path, "full") as site:
        lanes = Lanes(site.dispatcher, [None], site.events)
        lanes.start()
        try:
            await load(site)
            before = {item for item in threading.enumerate() if item.name in ("lane-1", "lane-2", "lane-3", "lane-4")}
            assert len(before) == 4
            file, trust = site.remotes.in_force
            site.remotes.go_by(another(file, 1), trust)
            await load(site)
            async with asyncio.timeout(WAIT_S):
                for thread in before:
                    await asyncio.to_thread(thread.join)
        finally:
            await asyncio.to_thread(lanes.close)

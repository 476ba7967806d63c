"""The remotes file in force, over a registry: what another file does to models that could not be loaded; surprises."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from service.domain.errors import ModelNotReady
from service.engine.remotes_in_force import RemotesInForce
from tests.service.engine.test_remotes import WAIT_S, Site, load, serving

if TYPE_CHECKING:
    from pathlib import Path

    from service.engine.loaded import LoadedModel

pytestmark = pytest.mark.usefixtures("patient_probes")


async def take(site: Site, path: Path, *variants: str) -> RemotesInForce:
    """Have a file taken that names these variants."""
    found = RemotesInForce(path, site.remotes, site.registry, site.events)
    lines = [f"    {name}: {{endpoints: ['grpc://127.0.0.1:{site.port}'], version: '7'}}" for name in variants]
    await asyncio.to_thread(path.write_text, "\n".join(["remotes:", "  sums:", *lines]))
    await asyncio.wait_for(found.look(at_once=True), WAIT_S)
    return found


async def test_a_model_without_a_variant_here_is_loaded_once_a_server_is_named(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    async with serving(root) as site:
        for file in (root / "sums" / "1").glob("*.onnx"):
            file.unlink()
        await load(site)
        with pytest.raises(ModelNotReady, match="no variant can be loaded"):
            site.registry.get("sums")
        in_force = await take(site, tmp_path / "remotes.yaml", "full")
        assert site.ready() == {"full"}
        assert not in_force.is_file_refused


async def test_a_model_that_still_cannot_be_loaded_holds_no_file_up(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    async with serving(root) as site:
        (root / "sums" / "1" / "manifest.json").write_text("{")
        await load(site)
        in_force = await take(site, tmp_path / "remotes.yaml", "full")
        assert not in_force.is_file_refused
        assert "sums" in site.remotes.in_force[0].remotes


async def test_a_surprise_while_a_model_is_loaded_leaves_in_force_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(name: str) -> LoadedModel:
        raise OSError(name)

    async with serving(tmp_path / "repository", "full") as site:
        await load(site)
        before = site.remotes.in_force
        with monkeypatch.context() as patch:
            patch.setattr(site.registry, "load", surprise)
            with pytest.raises(OSError, match="sums"):
                await take(site, tmp_path / "remotes.yaml", "quantized")
        assert site.remotes.in_force == before

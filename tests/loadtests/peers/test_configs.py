from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from loadtests.peer_bench import PEERS
from loadtests.peers import mlserver, triton
from loadtests.peers.environments import (
    SERVICES,
    Environment,
    NotAvailable,
    Pins,
    describe,
    prepare_environment,
    read_pins,
)
from loadtests.peers.gateway import PEERS as OWN
from loadtests.peers.gateway import write_repository
from loadtests.peers.onnx_models import MAX_BATCH, make_models
from variants.manifest import read_manifest

MODELS = make_models()
INSTALLED = triton.Triton(
    Path("/peers/bin/tritonserver"), Path("/peers/backends"), Path("/peers/libs"), Path("/peers/site")
)


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_model_runs_alone_and_in_batches(model: object) -> None:
    assert isinstance(model, type(MODELS["mlp"]))
    session, row = model.session(), model.row.data

    one = session.run(None, {"x": row})[0]
    three = session.run(None, {"x": np.concatenate([row, 2.0 * row, row])})[0]

    assert one.shape == (1, 10)
    np.testing.assert_allclose(three[[0, 2]], np.concatenate([one, one]), rtol=1e-5)
    assert not np.allclose(three[1], one)


def test_models_are_the_same_every_time() -> None:
    assert {name: model.sha256 for name, model in make_models().items()} == {
        name: model.sha256 for name, model in MODELS.items()
    }


def test_triton_config_is_what_triton_reads() -> None:
    config = text_format.Parse(triton.config(MODELS["image"]), model_config_pb2.ModelConfig())

    assert (config.name, config.backend, config.max_batch_size) == ("image", "python", MAX_BATCH)
    assert list(config.input[0].dims) == [3, 224, 224]
    assert config.HasField("dynamic_batching")
    assert config.instance_group[0].count == 1


def test_triton_repository_is_laid_out_as_triton_wants_it(tmp_path: Path) -> None:
    folder = triton.write_model(INSTALLED, tmp_path, MODELS["mlp"])

    code = (folder / "1" / "model.py").read_text()

    assert (folder / "1" / "model.onnx").read_bytes() == MODELS["mlp"].content
    assert (folder / "config.pbtxt").is_file()
    assert repr(["/peers/site", str(SERVICES)]) in code
    compile(code, "model.py", "exec")


def test_triton_listens_on_loopback_alone(tmp_path: Path) -> None:
    command = triton.command(INSTALLED, tmp_path, triton.Ports(1, 2, 3), tmp_path / "log")

    addresses = [argument for argument in command.arguments if "-address=" in argument]

    assert len(addresses) == 3
    assert all(argument.endswith("=127.0.0.1") for argument in addresses)
    assert command.environment["LD_LIBRARY_PATH"].startswith("/peers/libs:")


def test_triton_without_a_stub_for_this_python_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match=f"no stub .* for Python {sys.version_info.major}"):
        triton.lay_out(Environment(tmp_path))


def test_mlserver_settings_keep_requests_out_of_the_log_and_stay_on_loopback() -> None:
    settings = mlserver.settings(1, 2, 3)

    assert (settings["debug"], settings["host"], settings["parallel_workers"]) == (False, "127.0.0.1", 0)
    assert [settings[name] for name in ("http_port", "grpc_port", "metrics_port")] == [1, 2, 3]
    assert json.dumps(mlserver.model_settings(MODELS["mlp"], "a.onnx"))


def test_gateway_repository_is_a_valid_manifest_with_a_measured_profile(tmp_path: Path) -> None:
    root = write_repository(tmp_path, MODELS["mlp"], runs=20)

    manifest = read_manifest(root / "mlp" / "1")
    variant = manifest.variants[0]
    file = root / "mlp" / "1" / variant.file

    assert manifest.max_batch_size == MAX_BATCH
    assert variant.sha256 == MODELS["mlp"].sha256
    assert [row.batch_size for row in variant.latency.rows] == [1, 4, MAX_BATCH]
    assert all(0.0 < row.p50_s <= row.p99_s for row in variant.latency.rows)
    assert ort.InferenceSession(file.read_bytes()).get_inputs()[0].shape == ["rows", 64]


def test_every_peer_is_pinned_to_exact_versions() -> None:
    for peer in PEERS:
        if peer not in OWN:
            pins = read_pins(peer.key)
            assert all("==" in requirement for requirement in (*pins.packages, *pins.alone)), peer.key


def test_prepared_environment_is_found_again_without_an_installation(tmp_path: Path) -> None:
    folder = tmp_path / "litserve"
    folder.mkdir()
    (folder / "prepared.json").write_text(describe(read_pins("litserve")))

    assert prepare_environment("litserve", tmp_path).folder == folder
    assert not (folder / "bin").exists()


def test_changed_pins_make_an_environment_outdated() -> None:
    assert describe(Pins(("a==1",))) != describe(Pins(("a==2",)))
    assert describe(Pins(("a==1",))) != describe(Pins((), ("a==1",)))


def test_versions_name_peers_alone(tmp_path: Path) -> None:
    versions = tmp_path / "versions.yaml"
    versions.write_text(yaml.safe_dump({"one": {"packages": ["a==1"]}}))

    assert read_pins("one", versions) == Pins(("a==1",))
    with pytest.raises(KeyError, match="two"):
        read_pins("two", versions)

"""``tiergate export`` to Triton and KServe: what is written, and what is refused."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service import cli, export_cli
from service.settings import Settings
from tests.builders import ModelPlan, write_model, write_repository

if TYPE_CHECKING:
    from pathlib import Path

KSERVE = ("--to", "kserve", "--storage-uri", "pvc://models/")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


def export(repository: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    export_cli.add_commands(parser.add_subparsers())
    output = () if "--output" in arguments else ("--output", str(repository.parent / "out"))
    parsed = parser.parse_args(["export", "sums", "--repository", str(repository), *output, *arguments])
    status: int = parsed.run(parsed)
    return status


def read_config(path: Path) -> Any:  # noqa: ANN401 - protobuf's
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_published_variant_becomes_a_model_of_triton(repository: Path) -> None:
    assert export(repository, "--to", "triton", "--instances", "3") == 0
    out = repository.parent / "out"
    names = ("full", "quantized", "distilled")
    assert files_under(out) == {f"sums--{name}/{file}" for name in names for file in ("config.pbtxt", "1/model.onnx")}
    config = read_config(out / "sums--full" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("sums--full", "onnxruntime", 8)
    assert [(item.name, item.data_type, list(item.dims)) for item in (*config.input, *config.output)] == [
        ("x", model_config_pb2.TYPE_FP32, [4]),
        ("y", model_config_pb2.TYPE_FP32, [1]),
    ]
    assert config.HasField("dynamic_batching")
    assert [(group.kind, group.count) for group in config.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_CPU, 3)
    ]
    written = (out / "sums--full" / "1" / "model.onnx").read_bytes()
    assert written == (repository / "sums" / "1" / "full.onnx").read_bytes()


def test_triton_is_not_asked_to_batch_what_has_the_batch_alone_as_its_dimension(repository: Path) -> None:
    path = repository / "sums" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["outputs"][0]["shape"] = [-1]
    path.write_text(json.dumps(manifest))
    assert export(repository, "--to", "triton", "--variant", "full") == 0
    config = read_config(repository.parent / "out" / "sums--full" / "config.pbtxt")
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert [list(item.dims) for item in (*config.input, *config.output)] == [[-1, 4], [-1]]


def test_the_python_form_brings_its_code_and_where_its_packages_are(repository: Path) -> None:
    arguments = ("--to", "triton", "--form", "python", "--variant", "full", "--site-packages", "/opt/it's")
    assert export(repository, *arguments) == 0
    folder = repository.parent / "out" / "sums--full"
    assert files_under(folder) == {"config.pbtxt", "1/model.onnx", "1/model.py"}
    config = read_config(folder / "config.pbtxt")
    assert (config.backend, config.default_model_filename) == ("python", "model.py")
    code = (folder / "1" / "model.py").read_text()
    assert 'sys.path.insert(0, "/opt/it\'s")' in code
    compile(code, "model.py", "exec")
    assert code.index("sys.path") < code.index("import numpy")


def test_instances_may_be_on_gpus(repository: Path) -> None:
    assert export(repository, "--to", "triton", "--gpu") == 0
    config = read_config(repository.parent / "out" / "sums--full" / "config.pbtxt")
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_the_version_is_the_builds(tmp_path: Path) -> None:
    write_model(tmp_path / "repository", ModelPlan(version="12"))
    assert export(tmp_path / "repository", "--to", "triton", "--variant", "full") == 0
    assert (tmp_path / "out" / "sums--full" / "12" / "model.onnx").is_file()


@pytest.mark.parametrize("target", [("--to", "triton"), KSERVE])
def test_nothing_is_overwritten_unasked(
    repository: Path, target: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(repository, *target) == 0
    before = files_under(repository.parent / "out")
    first = next((repository.parent / "out").iterdir())
    (first / "mine").write_text("kept")
    assert export(repository, *target) == 2
    assert "already; give --force to replace, or another --output" in capsys.readouterr().err
    assert (first / "mine").read_text() == "kept"
    assert export(repository, *target, "--force") == 0
    assert files_under(repository.parent / "out") == before


def test_a_broken_file_leaves_nothing_behind(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = repository / "sums" / "1" / "distilled.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert export(repository, "--to", "triton") == 2
    assert "distilled.onnx has sha256" in capsys.readouterr().err
    assert not (repository.parent / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository.parent / "file").write_text("")
    assert export(repository, "--to", "triton", "--output", str(repository.parent / "file" / "out")) == 2
    assert "cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--to", "triton", "--variant", "huge"), "has no variant huge; published are full, quantized, distilled"),
        (("--to", "triton", "--instances", "0"), "--instances is 0; at least 1 is allowed"),
        (("--to", "triton", "--gpu", "--form", "python"), "--gpu needs --form onnx"),
        (("--to", "kserve"), "--to kserve needs --storage-uri"),
        ((*KSERVE, "--cpus", "0"), "--cpus is 0; at least 1 is allowed"),
    ],
)
def test_what_cannot_be_done_is_told(
    repository: Path, arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(repository, *arguments) == 2
    assert told in capsys.readouterr().err
    assert not (repository.parent / "out").exists()


def test_the_result_is_printed_as_json(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(repository, "--to", "triton", "--variant", "full", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "repository": str(repository.parent / "out"),
        "models": ["sums--full"],
    }


def test_kserve_gets_a_runtime_that_starts_this_gateway(repository: Path) -> None:
    assert export(repository, *KSERVE, "--image", "registry.example/tiergate:1", "--cpus", "4") == 0
    folder = repository.parent / "out" / "sums"
    runtime = yaml.safe_load((folder / "servingruntime.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert (runtime["kind"], runtime["spec"]["protocolVersions"]) == ("ServingRuntime", ["v2", "grpc-v2"])
    assert (container["name"], container["image"]) == ("kserve-container", "registry.example/tiergate:1")
    parsed = cli.build_parser().parse_args(container["args"])
    settings = Settings(**{name: value for name, value in vars(parsed).items() if name != "run"})
    assert (str(settings.repository), settings.host, settings.lanes) == ("/mnt/models", "0.0.0.0", 4)  # noqa: S104
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    usual = {name: Settings.model_fields[f"{name}_port"].default for name in ("http", "grpc")}  # the chart's, too
    assert ports == {"http": settings.http_port, "grpc": settings.grpc_port} == usual
    probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
    assert {probe["httpGet"]["port"] for probe in probes} <= {*ports.values()}


@pytest.mark.parametrize(
    ("model", "arguments", "name"),
    [
        ("a.b_c--d", (), "a-b-c-d"),
        ("ends_", (), "ends"),
        ("7b", ("--name", "seven"), "seven"),
        ("7b", (), None),
        ("a" * 64, (), None),
        ("sums", ("--name", "Sums"), None),
    ],
)
def test_kserve_gets_a_name_that_it_takes(
    tmp_path: Path, model: str, arguments: tuple[str, ...], name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "repository"
    write_model(root, ModelPlan(name=model))
    ours = ["export", model, "--repository", str(root), "--output", str(tmp_path / "out"), *KSERVE, *arguments]
    assert cli.main(ours) == (2 if name is None else 0)
    if name is None:
        assert "give another with --name" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    else:
        service = yaml.safe_load((tmp_path / "out" / model / "inferenceservice.yaml").read_text())
        assert service["metadata"]["name"] == name


def test_kserve_gets_the_model_with_the_memory_that_was_measured(repository: Path) -> None:
    assert export(repository, *KSERVE) == 0
    service = yaml.safe_load((repository.parent / "out" / "sums" / "inferenceservice.yaml").read_text())
    model = service["spec"]["predictor"]["model"]
    assert (service["metadata"]["name"], model["modelFormat"]["name"]) == ("sums", "tiergate")
    assert (model["storageUri"], model["runtime"]) == ("pvc://models/", "tiergate")
    assert model["resources"]["requests"] == {"cpu": "2", "memory": "259Mi"}  # three variants of 1 MiB each

"""tiergate itself, by each of its frontends, with the model as the one variant of a repository."""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from loadtests.peers.environments import Environment
from loadtests.peers.onnx_models import CLASSES, INPUT, MAX_BATCH, OUTPUT
from loadtests.peers.peer import Peer, Site
from loadtests.processes import Command, free_port
from loadtests.shots import protocol_targets
from variants.evidence import Accuracy, Cost, Hardware, Latency, LatencyRow, Memory, Reference, Size
from variants.machine import describe_machine
from variants.manifest import MANIFEST_FILE, ModelManifest, Routing, Split, TensorInfo, VariantManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadtests.peers.onnx_models import BenchModel
    from loadtests.shots import Target

_VARIANT: Final = "full"
_RUNS: Final = 300
_BATCHES: Final = (1, 4, MAX_BATCH)


def write_repository(root: Path, model: BenchModel, runs: int = _RUNS) -> Path:
    """Write a repository that ``tiergate serve`` can load; return it.

    The latency profile is measured here, over ``runs`` calls for each batch size. The model was not trained: what its
    manifest says of accuracy is a placeholder that routes nothing, since there is one variant.
    """
    folder = root / model.name / "1"
    folder.mkdir(parents=True)
    (folder / f"{_VARIANT}.onnx").write_bytes(model.content)
    rows = tuple(_latency_row(model, size, runs) for size in _BATCHES)
    (folder / MANIFEST_FILE).write_text(_manifest(model, rows).model_dump_json(indent=1), encoding="utf-8")
    return root


def _latency_row(model: BenchModel, rows: int, runs: int) -> LatencyRow:
    times_s = model.measure(rows, runs)
    p50_s, p90_s, p95_s, p99_s = (float(value) for value in np.percentile(times_s, (50, 90, 95, 99)))
    return LatencyRow(
        batch_size=rows,
        threads=1,
        warmups=runs // 10,
        runs=runs,
        mean_s=float(np.mean(times_s)),
        p50_s=p50_s,
        p90_s=p90_s,
        p95_s=p95_s,
        p99_s=p99_s,
    )


def _manifest(model: BenchModel, rows: tuple[LatencyRow, ...]) -> ModelManifest:
    machine = describe_machine()
    return ModelManifest(
        model=model.name,
        version="1",
        task="classification",
        metric="accuracy",
        labels=(),
        inputs=(TensorInfo(name=INPUT, datatype="FP32", shape=(-1, *model.row_shape)),),
        outputs=(TensorInfo(name=OUTPUT, datatype="FP32", shape=(-1, CLASSES)),),
        max_batch_size=MAX_BATCH,
        recipe="bench-peers",
        recipe_parameters={},
        build_key=hashlib.sha256(model.name.encode()).hexdigest(),
        seed=0,
        tools={"onnx": onnx.__version__},
        splits={"test": Split(rows=1, sha256=model.sha256)},
        machine=machine,
        built_at=datetime.now(UTC).isoformat(),
        variants=(_variant(model, rows, machine.cpu, machine.isa),),
    )


def _variant(model: BenchModel, rows: tuple[LatencyRow, ...], cpu: str, isa: tuple[str, ...]) -> VariantManifest:
    size = len(model.content)
    weights = list(onnx.load_from_string(model.content).graph.initializer)
    parameters = sum(int(np.prod(weight.dims)) for weight in weights)
    return VariantManifest(
        name=_VARIANT,
        tier="full",
        file=f"{_VARIANT}.onnx",
        sha256=model.sha256,
        parent=None,
        parent_sha256=None,
        steps=(),
        opset=17,
        size=Size(
            parameters=parameters,
            nonzero_parameters=parameters,
            macs=parameters,
            weight_bytes={"FLOAT": 4 * parameters},
            file_bytes=size,
            compressed_bytes=size,
        ),
        memory=Memory(loaded_bytes=2**20, peak_bytes=2**24),
        latency=Latency(rows=rows, cold_start_s=0.1, load_average=0.0),
        accuracy=Accuracy(
            metric="accuracy",
            dataset="none",
            dataset_sha256=model.sha256,
            rows=1,
            value=1.0,
            low=0.0,
            high=1.0,
            ratio_to_full=1.0,
            flips=0,
            lost=0,
            gained=0,
            mcnemar_p=1.0,
            non_inferiority=(),
            kl_to_full=0.0,
            calibration_error=0.0,
        ),
        parity=None,
        hardware=Hardware(measured_on=cpu, isa=isa, verified_isa=(), proven_isa=()),
        reference=Reference(rows=0, inputs={}),
        cost=Cost(train_s=0.0, build_s=0.0),
        routing=Routing(state="routable", reason="the only variant"),
        targets=(),
    )


def _prepare(cache: Path) -> Environment:
    del cache  # it is what runs this
    return Environment(Path(sys.prefix))


def _start(frontend: str, title: str, environment: Environment, model: BenchModel, site: Site) -> Sequence[Target]:
    repository = write_repository(site.folder / "repository", model)
    http, grpc, admin = (free_port() for _ in range(3))
    arguments = [environment.python, "-m", "service.cli", "serve", str(repository), "--frontend", frontend]
    arguments += ["--http-port", str(http), "--grpc-port", str(grpc), "--admin-port", str(admin)]
    site.run(Command([*arguments, "--log-level", "error"], http, "/v2/health/ready", log=site.folder / "log"))
    return protocol_targets(title, model.name, model.row, (http, grpc if frontend == "python" else http))


def _peer(key: str, title: str, frontend: str) -> Peer:
    return Peer(key, title, f"frontend {frontend}; metrics on", _prepare, partial(_start, frontend, title))


PEERS: Final = (_peer("tiergate", "tiergate", "python"), _peer("tiergate-pyvoy", "tiergate, pyvoy", "pyvoy"))

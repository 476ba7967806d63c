"""What a machine other than the one of the build makes of a repository."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.app import Gateway
from service.domain.inference import Knobs
from service.engine.node import Node, judge
from service.engine.repository import Repository
from service.settings import Settings
from tests.builders import ModelPlan, VariantPlan, make_request, onnx_model, replace_file, write_model
from variants.edge import CLASSES
from variants.evidence import Hardware, Saturation
from variants.manifest import MANIFEST_FILE, ModelManifest

if TYPE_CHECKING:
    from pathlib import Path

    from service.domain.descriptions import VariantState

VNNI = ("avx2", "fma", "avx512f", "avx512_vnni")
AVX2 = ("avx2", "fma")
ARM = ("asimd", "asimddp")
UNPROVEN = Hardware(measured_on="test", isa=VNNI, verified_isa=("avx512_vnni",), proven_isa=())
PROVEN = UNPROVEN.model_copy(update={"proven_isa": ("avx2", "avx512f")})
EMULATED = Saturation(rows=512, agreement=0.9, loss=0.02, verdict="fail")
PLAN = ModelPlan(
    variants=(
        VariantPlan("full", "full", 0.92, 1e-6),
        VariantPlan("quantized", "quantized", 0.93, 1e-6, scale=2.0),
        VariantPlan("small", "distilled-quantized", 0.86, 1e-6, scale=3.0),
    )
)


def write_int8(root: Path, plan: ModelPlan = PLAN, **hardware: Hardware) -> Path:
    """Write a model in which the named variants count as int8, with this evidence; return the repository."""
    path = write_model(root, plan) / MANIFEST_FILE
    manifest = ModelManifest.model_validate_json(path.read_bytes())
    changed = [
        item.model_copy(
            update={"hardware": hardware[item.name], "size": item.size.model_copy(update={"weight_bytes": {"INT8": 4}})}
        )
        if item.name in hardware
        else item
        for item in manifest.variants
    ]
    path.write_text(manifest.model_copy(update={"variants": tuple(changed)}).model_dump_json(), encoding="utf-8")
    return root


async def look(root: Path, isa: tuple[str, ...], **settings: Any) -> tuple[dict[str, VariantState], list[str], str]:  # noqa: ANN401 - any setting
    """Start a gateway on a machine with these instruction sets; return states, who answers without and with a pin."""
    gateway = Gateway(Settings(repository=root, lanes=1, **settings), isa)
    await gateway.start()
    try:
        states = {state.variant.name: state for state in gateway.plane.variants("sums")}
        answered = [
            (await gateway.plane.infer(make_request(knobs=knobs))).answer.variant
            for knobs in (Knobs(budget_s=30.0), Knobs(budget_s=30.0, variant="quantized"))
        ]
        metrics, _ = await gateway.metrics.render("")
    finally:
        await gateway.close()
    return states, answered, metrics.decode()


def gauge(metrics: str, variant: str) -> dict[str, float]:
    lines = [line for line in metrics.splitlines() if line.startswith("tiergate_variant_unproven{")]
    found = [line for line in lines if f'variant="{variant}"' in line]
    return {line.split('treatment="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


async def test_int8_that_may_be_wrong_on_this_processor_is_computed_exactly_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_int8(tmp_path, quantized=UNPROVEN, small=PROVEN)
    states, answered, metrics = await look(root, AVX2)
    assert answered == ["quantized", "quantized"]
    why = "on avx2 sums of its products may be cut off at 16 bits"
    assert states["quantized"].variant.note == f"computed at session.x64quantprecision=1: {why}"
    assert states["small"].variant.note == "as planned"
    assert gauge(metrics, "quantized") == {"precise": 1.0, "avoid": 0.0, "allow": 0.0}
    assert set(gauge(metrics, "small").values()) == set(gauge(metrics, "full").values()) == {0.0}
    (line,) = [item for item in caplog.records if "not known to be right" in item.message]
    assert vars(line)["fields"] == {"model": "sums", "variant": "quantized", "treatment": "precise", "why": why}


@pytest.mark.parametrize(("isa", "settings"), [(ARM, {}), (AVX2, {"unproven_int8": "avoid"})])
async def test_int8_that_cannot_be_made_exact_answers_only_a_pin(
    tmp_path: Path, isa: tuple[str, ...], settings: dict[str, str]
) -> None:
    states, answered, metrics = await look(write_int8(tmp_path, quantized=UNPROVEN, small=PROVEN), isa, **settings)
    assert answered == ["full", "quantized"]
    quantized = states["quantized"].variant
    assert not quantized.is_routable
    assert quantized.note.startswith("unproven on this machine: ")
    assert states["small"].variant.is_routable
    assert gauge(metrics, "quantized") == {"precise": 0.0, "avoid": 1.0, "allow": 0.0}


async def test_the_operator_may_allow_it(tmp_path: Path) -> None:
    states, answered, metrics = await look(write_int8(tmp_path, quantized=UNPROVEN), ARM, unproven_int8="allow")
    assert answered == ["quantized", "quantized"]
    assert states["quantized"].variant.note.startswith("unproven on this machine: ")
    assert gauge(metrics, "quantized") == {"precise": 0.0, "avoid": 0.0, "allow": 1.0}


async def test_where_the_build_ran_and_for_floats_nothing_changes(tmp_path: Path) -> None:
    states, answered, metrics = await look(write_int8(tmp_path / "a", quantized=UNPROVEN), VNNI)
    assert answered[0] == "quantized"
    assert {state.variant.note for state in states.values()} == {"as planned"}
    assert gauge(metrics, "quantized") == {"precise": 0.0, "avoid": 0.0, "allow": 0.0}
    floats = write_int8(tmp_path / "b", PLAN)
    assert Repository(floats, Node(ARM)).find("sums").unproven == ()


def test_the_runtime_is_told_and_the_copy_is_another(tmp_path: Path) -> None:
    root = write_int8(tmp_path, quantized=UNPROVEN)
    for isa, options in ((AVX2, {"session.x64quantprecision": "1"}), (VNNI, {})):
        manifest = Repository(root, Node(isa)).find("sums").manifest
        assert manifest is not None
        assert manifest.variant("quantized").hardware.session_options == options


def test_a_model_never_loses_all_its_variants(tmp_path: Path) -> None:
    root = write_int8(tmp_path, full=UNPROVEN, quantized=UNPROVEN, small=UNPROVEN)
    stored = Repository(root, Node(ARM)).find("sums")
    assert {item.variant: item.treatment for item in stored.unproven} == {
        "full": "avoid",
        "quantized": "allow",
        "small": "avoid",
    }


def test_what_another_server_runs_is_not_judged_by_this_machine(tmp_path: Path) -> None:
    node = Node(ARM, elsewhere=lambda model: {"quantized"} if model == "sums" else ())
    stored = Repository(write_int8(tmp_path, quantized=UNPROVEN, small=UNPROVEN), node).find("sums")
    assert [item.variant for item in stored.unproven] == ["small"]


def test_the_gateway_and_what_clients_are_told_go_by_the_same_rule(tmp_path: Path) -> None:
    evidence = [
        UNPROVEN,
        PROVEN,
        UNPROVEN.model_copy(update={"saturation": EMULATED}),
        UNPROVEN.model_copy(update={"saturation": EMULATED.model_copy(update={"loss": 0.001, "verdict": "pass"})}),
    ]
    for number, hardware in enumerate(evidence):
        manifest = Repository(write_int8(tmp_path / str(number), quantized=hardware)).find("sums").manifest
        assert manifest is not None
        for name, isa in {"server-vnni": VNNI, "server-avx2": AVX2, "arm64": ARM}.items():
            for variant in manifest.variants:
                here = judge(variant, isa)
                assert CLASSES[name](variant, ())[0] is (here is None or here.is_right), (name, variant.name, number)


def slow_onnx() -> bytes:
    """Return a file that sums each row and multiplies long: some milliseconds anywhere, and nothing else differs."""
    width, steps = 256, 600
    weights = [
        helper.make_tensor("ones", TensorProto.FLOAT, [4, 1], [1.0] * 4),
        helper.make_tensor("widen", TensorProto.FLOAT, [4, width], [0.0] * (4 * width)),
        helper.make_tensor("zeros", TensorProto.FLOAT, [width, width], np.zeros(width * width, np.float32)),
        helper.make_tensor("narrow", TensorProto.FLOAT, [width, 1], [0.0] * width),
    ]
    nodes = [helper.make_node("MatMul", ["x", "widen"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{step}", "zeros"], [f"h{step + 1}"]) for step in range(steps)]
    nodes += [
        helper.make_node("MatMul", [f"h{steps}", "narrow"], ["nothing"]),
        helper.make_node("MatMul", ["x", "ones"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    return onnx_model(nodes, weights)


async def test_a_slower_node_predicts_its_first_request_right(tmp_path: Path) -> None:
    """The manifest's times are some hundred times too small; what the pod measures at its start puts them right."""
    full, budget_s = replace(PLAN.variants[0], latency_s=1e-6), 3e-4
    folder = write_model(tmp_path, replace(PLAN, variants=(full, PLAN.variants[2])))
    replace_file(folder, "full", slow_onnx())
    gateway = Gateway(Settings(repository=tmp_path, lanes=1), VNNI)
    await gateway.start()
    try:
        told = gateway.plane.explain("sums", Knobs(budget_s=budget_s))
        first = (await gateway.plane.infer(make_request(knobs=Knobs(budget_s=budget_s)))).answer
        pinned = (await gateway.plane.infer(make_request(knobs=Knobs(budget_s=30.0, variant="full")))).answer
    finally:
        await gateway.close()
    assert (told.chosen, first.variant) == ("small", "small")  # the manifest's word alone would have chosen full
    assert pinned.predicted_s > budget_s

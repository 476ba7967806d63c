"""The measuring half of a build: from six ONNX files to six manifests.

Evaluation and profiling look at the files that will be published, not at the torch models they came from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from variants.domination import PROOF_MARGIN, Contender, decide_routing
from variants.errors import naming_step
from variants.evaluation import Relatives, TestSet, describe_reference, evaluate
from variants.export import OPSET
from variants.gates import check_gates, require_full
from variants.machine import proven_isa, verified_isa
from variants.manifest import Cost, Hardware, VariantManifest
from variants.profiling import describe_latency, measure_footprints, profile_latency, read_load_average
from variants.quantization import fits_int16_pairs
from variants.runtime import run_logits
from variants.sizing import measure_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from variants.making import Made
    from variants.manifest import Accuracy, Gate, Latency, Machine, Memory, Routing, Split
    from variants.progress import Progress
    from variants.recipe import DataParts, Recipe


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, on which data and machine."""

    recipe: Recipe
    parts: DataParts
    splits: Mapping[str, Split]
    machine: Machine
    made: tuple[Made, ...]


def judge_accuracy(subject: Subject) -> tuple[dict[str, Accuracy], dict[str, tuple[Gate, ...]]]:
    """Return the accuracy and the gates of every variant; done before the slow profiling.

    Raises:
        GateFailed: The full variant misses a gate.
    """
    recipe, parts = subject.recipe, subject.parts
    test = TestSet(recipe.metric, recipe.dataset, subject.splits["test"].sha256, parts.test.labels)
    calibration = subject.splits["calibration"].sha256
    logits = {made.tier: run_logits(made.file, parts.test.inputs) for made in subject.made}
    accuracy: dict[str, Accuracy] = {}
    gates: dict[str, tuple[Gate, ...]] = {}
    for made in subject.made:
        own = calibration if is_int8(made) else None
        parent = None if made.parent is None else logits[made.parent.tier]
        relatives = Relatives(logits["full"], parent)
        accuracy[made.tier] = evaluate(logits[made.tier], relatives, test, own)
        gates[made.tier] = check_gates(made.tier, accuracy[made.tier], made.parity, recipe.plan.thresholds)
    require_full(gates["full"], recipe.name)
    return accuracy, gates


def measure_speed(
    subject: Subject, files: Mapping[str, Path], progress: Progress
) -> tuple[dict[str, Latency], dict[str, Memory]]:
    """Return latency and memory of every variant from its file."""
    plan, inputs = subject.recipe.plan.profiling, subject.parts.test.inputs
    loads = [read_load_average()]
    with progress.task("profile memory", plan.memory_repeats * len(files)) as advance:
        footprints = measure_footprints(files, plan.memory_repeats, advance)
    loads.append(read_load_average())
    with progress.task("profile latency", plan.rounds) as advance:
        rows = profile_latency(files, inputs, plan, advance)
    loads.append(read_load_average())
    latency = {name: describe_latency(rows[name], footprints[name], max(loads)) for name in files}
    return latency, {name: footprints[name].memory for name in files}


def describe_variants(subject: Subject, files: Mapping[str, Path], progress: Progress) -> tuple[VariantManifest, ...]:
    """Return the manifest of every variant, in the order made.

    Raises:
        GateFailed: The full variant misses a gate.
    """
    with naming_step("evaluate"):
        accuracy, gates = judge_accuracy(subject)
    with naming_step("profile"):
        latency, memory = measure_speed(subject, files, progress)
    found = {
        made.tier: _Found(accuracy[made.tier], latency[made.tier], memory[made.tier], gates[made.tier])
        for made in subject.made
    }
    routing = decide_routing([_contender(made, found[made.tier]) for made in subject.made])
    with naming_step("describe"):
        return tuple(_describe(subject, made, found[made.tier], routing[made.tier]) for made in subject.made)


def is_int8(made: Made) -> bool:
    """Tell whether the variant computes in 8-bit integers."""
    return made.tier.endswith("quantized")


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured of one variant."""

    accuracy: Accuracy
    latency: Latency
    memory: Memory
    gates: tuple[Gate, ...]


def _contender(made: Made, found: _Found) -> Contender:
    verdicts = found.accuracy.non_inferiority
    return Contender(
        name=made.tier,
        accuracy=found.accuracy.value,
        file_bytes=len(made.file),
        memory_bytes=found.memory.loaded_bytes,
        p50_s={row.batch_size: row.p50_s for row in found.latency.rows if row.threads == 1},
        gates=found.gates,
        is_full=made.parent is None,
        is_proven=any(item.margin <= PROOF_MARGIN and item.verdict == "pass" for item in verdicts),
    )


def _describe(subject: Subject, made: Made, found: _Found, routing: Routing) -> VariantManifest:
    validation = subject.parts.validation.inputs
    logits = run_logits(made.file, validation)
    return VariantManifest(
        name=made.tier,
        tier=made.tier,
        file=f"{made.tier}.onnx",
        sha256=hashlib.sha256(made.file).hexdigest(),
        parent=None if made.parent is None else made.parent.tier,
        parent_sha256=None if made.parent is None else hashlib.sha256(made.parent.file).hexdigest(),
        steps=made.steps,
        opset=_opset(made.file),
        size=measure_size(made.file),
        memory=found.memory,
        latency=found.latency,
        accuracy=found.accuracy,
        parity=made.parity,
        hardware=_hardware(subject.machine, made),
        reference=describe_reference({subject.recipe.input_name: validation}, logits, subject.recipe.labels),
        cost=Cost(train_s=made.train_s, build_s=made.build_s),
        routing=routing,
        targets=(f"onnxruntime {onnxruntime.__version__} cpu",),
    )


def _opset(file: bytes) -> int:
    """Return the version of the standard operator set that the file asks for."""
    imports = onnx.load_from_string(file).opset_import
    return next((entry.version for entry in imports if entry.domain in {"", "ai.onnx"}), OPSET)


def _hardware(machine: Machine, made: Made) -> Hardware:
    return Hardware(
        measured_on=machine.cpu,
        isa=machine.isa,
        verified_isa=verified_isa(machine.isa, is_int8=is_int8(made)),
        proven_isa=proven_isa(fits_int16_pairs=is_int8(made) and fits_int16_pairs(made.file)),
    )

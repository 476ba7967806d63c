"""The measuring half of a build: from six ONNX files to six manifests.

Evaluation and profiling look at the files that will be published, not at the torch models they came from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx
import onnxruntime

from variants.cascading import Answers, find_cascades
from variants.domination import Contender, decide_routing
from variants.downloading import describe_unpacked, keep_back
from variants.drifting import Seen, Truth, describe_drift
from variants.errors import naming_step
from variants.evaluation import Relatives, TestSet, describe_reference, evaluate, is_correct
from variants.evidence import Hardware
from variants.gates import check_gates, require_full
from variants.interface import describe_interface
from variants.machine import proven_isa, verified_isa
from variants.manifest import VariantManifest
from variants.perturbing import perturb
from variants.profiling import measure_speed
from variants.quantization import fits_int16_pairs
from variants.runtime import feed_of, run_logits
from variants.saturation import judge_saturation
from variants.scoring import scoring_of
from variants.sizing import measure_size
from variants.summarising import describe_inputs
from variants.tracing import OPSET
from variants.weight_only import has_four_bits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from variants.drift_reference import InputDrift
    from variants.evidence import Accuracy, Gate, Latency, Memory, Size
    from variants.manifest import CascadeManifest, Machine, Routing, Split
    from variants.progress import Progress
    from variants.recipe import AnyRecipe, DataParts, Floats
    from variants.workshop import Made


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured, on which data and machine."""

    recipe: AnyRecipe
    parts: DataParts
    splits: Mapping[str, Split]
    machine: Machine
    made: tuple[Made, ...]


PERTURBED_FROM: Final = 0
"""The seed of the perturbations; every build of a recipe sees the same."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The first output of one variant's file on two splits, (rows, ...) each, and on perturbed validation rows."""

    validation: Floats
    test: Floats
    perturbed: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """What the manifest says of the variants, in the order made, of pairs of them, and of the inputs."""

    variants: tuple[VariantManifest, ...]
    cascades: tuple[CascadeManifest, ...]
    input_drift: InputDrift | None = None


def judge_accuracy(
    subject: Subject, outputs: Mapping[str, Outputs]
) -> tuple[dict[str, Accuracy], dict[str, tuple[Gate, ...]]]:
    """Return the accuracy and the gates of every variant; done before the slow profiling.

    Raises:
        GateFailed: The full variant misses a gate.
    """
    recipe, parts = subject.recipe, subject.parts
    test = TestSet(recipe.metric, recipe.dataset, subject.splits["test"].sha256, parts.test.labels, scoring_of(recipe))
    calibration = subject.splits["calibration"].sha256
    logits = {tier: found.test for tier, found in outputs.items()}
    accuracy: dict[str, Accuracy] = {}
    gates: dict[str, tuple[Gate, ...]] = {}
    for made in subject.made:
        own = calibration if made.is_calibrated else None
        parent = None if made.parent is None else logits[made.parent.name]
        relatives = Relatives(logits["full"], parent)
        accuracy[made.name] = evaluate(logits[made.name], relatives, test, own)
        gates[made.name] = check_gates(made.tier, accuracy[made.name], made.parity, recipe.plan.thresholds)
    require_full(gates["full"], recipe.name)
    return accuracy, gates


def describe_variants(subject: Subject, files: Mapping[str, Path], progress: Progress) -> Described:
    """Return the manifest of every variant and the useful cascades of them.

    Raises:
        GateFailed: The full variant misses a gate.
    """
    with naming_step("evaluate"):
        outputs = _answer(subject)
        accuracy, gates = judge_accuracy(subject, outputs)
    with naming_step("profile"):
        speed = measure_speed(files, subject.parts.test.inputs, subject.recipe.plan.profiling, progress)
    found = {
        made.name: _Found(outputs[made.name], accuracy[made.name], *speed[made.name], gates[made.name])
        for made in subject.made
    }
    routing = decide_routing([_contender(made, found[made.name]) for made in subject.made if made.packed is None])
    routing |= {made.name: keep_back(made, found[made.name].gates) for made in subject.made if made.packed is not None}
    with naming_step("cascades"):
        routable: dict[str, _Found] = {tier: one for tier, one in found.items() if routing[tier].state == "routable"}
        cascades = _find_cascades(subject, routable)
    progress.note(f"cascades: {len(cascades)} above what single variants give for the same cost")
    with naming_step("describe"):
        full = _seen(found["full"])
        described = tuple(_describe(subject, made, found[made.name], routing[made.name], full) for made in subject.made)
        inputs = describe_inputs(_first_input(subject), subject.parts.validation.inputs)
    return Described(described, cascades, inputs)


def is_int8(made: Made) -> bool:
    """Tell whether the variant computes in 8-bit integers."""
    whole = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    weights = onnx.load_from_string(made.file).graph.initializer
    return any(tensor.data_type in whole and tensor.dims for tensor in weights)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured of one variant."""

    outputs: Outputs
    accuracy: Accuracy
    latency: Latency
    memory: Memory
    gates: tuple[Gate, ...]


def _answer(subject: Subject) -> dict[str, Outputs]:
    """Run every file on validation rows, clean and perturbed, and on test rows."""
    parts = subject.parts
    worse = perturb(parts.validation.inputs, PERTURBED_FROM)
    return {
        made.name: Outputs(
            run_logits(made.file, parts.validation.inputs),
            run_logits(made.file, parts.test.inputs),
            tuple(run_logits(made.file, rows) for rows in worse),
        )
        for made in subject.made
    }


def _seen(found: _Found) -> Seen:
    return Seen(found.outputs.validation, found.outputs.perturbed)


def _classes(subject: Subject) -> tuple[str, ...]:
    """Return the classes that an answer is one of; a detector's are of its boxes."""
    return subject.recipe.labels if scoring_of(subject.recipe).task == "classification" else ()


def _truth(subject: Subject) -> Truth:
    return Truth(subject.parts.validation.labels, scoring_of(subject.recipe))


def _first_input(subject: Subject) -> str:
    return describe_interface(subject.made[0].file)[0][0].name


def _find_cascades(subject: Subject, found: Mapping[str, _Found]) -> tuple[CascadeManifest, ...]:
    """Pair variants that routing may choose: a dominated one answers only where its dominator may not.

    Only classes have a margin to be unsure by.
    """
    if scoring_of(subject.recipe).task != "classification":
        return ()
    return find_cascades(
        [
            Answers(
                name=tier,
                p50_s=min(one.latency.rows, key=lambda row: (row.threads, row.batch_size)).p50_s,
                validation=one.outputs.validation,
                test=one.outputs.test,
                right=is_correct(one.outputs.test, subject.parts.test.labels),
            )
            for tier, one in found.items()
        ]
    )


def _contender(made: Made, found: _Found) -> Contender:
    return Contender.of(made.name, found, found.gates, len(made.file), is_full=made.parent is None)


def _describe(subject: Subject, made: Made, found: _Found, routing: Routing, full: Seen) -> VariantManifest:
    first = describe_interface(made.file)[0][0].name
    inputs = feed_of(first, subject.parts.validation.inputs)
    return VariantManifest(
        name=made.name,
        tier=made.tier,
        file=made.stored_name,
        sha256=hashlib.sha256(made.stored).hexdigest(),
        unpacked=describe_unpacked(made),
        parent=None if made.parent is None else made.parent.name,
        parent_sha256=None if made.parent is None else hashlib.sha256(made.parent.file).hexdigest(),
        steps=made.steps,
        opset=_opset(made.file),
        size=_size(made),
        memory=found.memory,
        latency=found.latency,
        accuracy=found.accuracy,
        parity=made.parity,
        hardware=_hardware(subject, made),
        reference=describe_reference(inputs, found.outputs.validation, _classes(subject)),
        drift=describe_drift(None if made.parent is None else full, _seen(found), _truth(subject)),
        cost=made.cost,
        routing=routing,
        targets=(f"onnxruntime {onnxruntime.__version__} cpu",),
    )


def _size(made: Made) -> Size:
    size = measure_size(made.file)
    stored = len(made.stored)
    return size if made.packed is None else size.model_copy(update={"file_bytes": stored, "compressed_bytes": stored})


def _opset(file: bytes) -> int:
    """Return the version of the standard operator set that the file asks for."""
    imports = onnx.load_from_string(file).opset_import
    return next((entry.version for entry in imports if entry.domain in {"", "ai.onnx"}), OPSET)


def _hardware(subject: Subject, made: Made) -> Hardware:
    isa, int8 = subject.machine.isa, is_int8(made)
    fits = int8 and (fits_int16_pairs(made.file) or has_four_bits(made.file))
    test = subject.parts.test
    return Hardware(
        measured_on=subject.machine.cpu,
        isa=isa,
        verified_isa=verified_isa(isa, is_int8=int8),
        proven_isa=proven_isa(fits_int16_pairs=fits),
        saturation=(
            judge_saturation(made.file, test.inputs, test.labels, scoring_of(subject.recipe))
            if made.is_calibrated and int8 and not fits
            else None
        ),
    )

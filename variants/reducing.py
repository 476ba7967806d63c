"""The forms of lower precision that a float file gets, as far as the recipe's plan asks for them.

Static int8 needs calibration rows; dynamic int8, 4-bit weights and 16-bit floats need none. A file without products of
matrices (trees, say) has nothing to gain and gets no form. Where a recipe brings a file that was trained elsewhere, a
library may fail on an operator that nobody foresaw: such a form is left out with a note, and the others are made all
the same. The packed form, for downloads, is of the full model alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import onnx

from variants.downloading import pack_for_download
from variants.errors import LeftOut, StepFailed, naming_step
from variants.packed import unpack
from variants.parity import compare_files
from variants.plans import Quantization
from variants.precision import halve, quantize_dynamically
from variants.quantization import quantize
from variants.recipe import Ready, brings_files
from variants.weight_only import ACCURACY_LEVEL, BLOCK, pack_weights
from variants.workshop import Made, Order, record_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from variants.manifest import Step, Tier
    from variants.plans import Download
    from variants.workshop import Workshop

CALIBRATED: Final = "quantize"
DOWNLOAD: Final = "download"
PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PACKED: Final = frozenset({"Gemm", "MatMul"})
TIERS: Final[dict[Tier, Tier]] = {
    "full": "quantized",
    "pruned": "pruned-quantized",
    "distilled": "distilled-quantized",
}


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to reduce a file that has nodes of ``kinds``, in ``total`` parts.

    ``run`` returns the new file and what was chosen.
    """

    name: str
    step: str
    total: int
    run: Callable[[bytes, Callable[[], None]], tuple[bytes, dict[str, Any]]]
    kinds: frozenset[str] = PRODUCTS


def order_forms(shop: Workshop, parent: str, tier: Tier) -> Iterator[Order]:
    """Yield an order for each form that the plan asks for of the float variant ``parent``."""
    for form in _forms(shop, tier):
        name = form.name if tier == "full" else f"{parent}-{form.name}"
        yield Order(name, parent, partial(_make, shop, form, name))


def _forms(shop: Workshop, tier: Tier) -> Iterator[_Form]:
    plan, precisions = shop.recipe.plan.quantization, shop.recipe.plan.precisions
    if plan is not None and brings_files(shop.recipe) and tier == "pruned":
        precisions = ()  # cut to be fast, as static int8 is; the other forms are of the whole file
    if plan is not None:
        yield _static(shop, replace(plan, also=()), "quantized")
        for preset in plan.also:
            yield _static(shop, replace(plan, preset=preset, also=()), f"quantized-{preset}")
    if "dynamic" in precisions:
        yield _free("dynamic", "quantize-dynamic", quantize_dynamically, weights="int8", ranges="dynamic")
    if "half" in precisions:
        yield _free("half", "halve", halve, weights="float16")
    if "int4" in precisions:
        numbers = {"block": BLOCK, "accuracy_level": ACCURACY_LEVEL}
        yield replace(_free("int4", "pack-weights", pack_weights, weights="uint4", **numbers), kinds=PACKED)


def _static(shop: Workshop, plan: Quantization, name: str) -> _Form:
    def run(parent: bytes, advance: Callable[[], None]) -> tuple[bytes, dict[str, Any]]:
        rows = shop.parts.calibration.inputs, shop.parts.validation.inputs
        file, chosen = quantize(parent, *rows, plan, advance, shop.scoring.divergence)
        return file, {**asdict(plan), **chosen}

    return _Form(name, CALIBRATED, len(plan.methods), run)


def _free(name: str, step: str, convert: Callable[[bytes], bytes], **chosen: Any) -> _Form:  # noqa: ANN401 - as JSON has them
    """Return a form that needs no data."""
    return _Form(name, step, 1, lambda parent, _: (convert(parent), chosen))


def quantize_rung(shop: Workshop, parent: Made, name: str) -> Made:
    """Return the static int8 form of ``parent``, called ``name``, all of whose nodes stay int8.

    What a node in float would cost is not in the latency that a search chose the tier for; what int8 loses is in its
    accuracy.
    """
    plan = replace(shop.recipe.plan.quantization or Quantization(), also=(), max_float_nodes=0)
    return _reduce(shop, _static(shop, plan, "quantized"), name, parent)


def quantize_tuned(shop: Workshop, parent: Made, file: bytes, name: str) -> Made | None:
    """Return the static int8 form, called ``name``, of ``file``: the network of ``parent``, tuned for it."""
    plan = replace(shop.recipe.plan.quantization or Quantization(), also=())
    if not _has(file, PRODUCTS):
        return None
    return replace(_reduce(shop, _static(shop, plan, "quantized"), name, replace(parent, file=file)), parent=parent)


def _make(shop: Workshop, form: _Form, name: str, parent: Made | None) -> Made | None:
    """Return the form of ``parent``, ``None`` where the file has nothing to gain by it."""
    if parent is None or not _has(parent.file, form.kinds):
        return None
    return _reduce(shop, form, name, parent)


def _reduce(shop: Workshop, form: _Form, name: str, parent: Made) -> Made:
    step = f"{form.step} {name}"

    def make(advance: Callable[[], None]) -> Ready:
        try:
            with naming_step(step):
                file, chosen = form.run(parent.file, advance)
        except StepFailed as error:
            if brings_files(shop.recipe):
                raise LeftOut(str(error)) from error
            raise
        return _compare(shop, parent, file, Ready(file, chosen=chosen), name)

    ready, kept = shop.keep_file(step, form.total, make)
    return Made(
        name=name,
        tier=TIERS[parent.tier],
        file=ready.file,
        parent=parent,
        steps=(record_step(form.step, ready.chosen, shop.seed),),
        parity=ready.parity,
        cost=kept.cost,
        is_calibrated=form.step == CALIBRATED,
    )


def _compare(shop: Workshop, parent: Made, file: bytes, ready: Ready, name: str) -> Ready:
    """Return what is ready with how ``file`` compares with its parent."""
    with naming_step(f"parity {name}"):
        return replace(ready, parity=compare_files(parent.file, file, shop.parts.test.inputs, shop.scoring))


def make_download(shop: Workshop, parent: Made, plan: Download, sparse: tuple[bytes, Step] | None) -> Made:
    """Return the packed form of ``parent``, or of ``sparse``, the same model fitted with zeros and how it was."""
    source, fitted = (parent.file, ()) if sparse is None else (sparse[0], (sparse[1],))

    def make(_: Callable[[], None]) -> Ready:
        file, packed = pack_for_download(source, plan, is_pruned=sparse is not None)
        return _compare(shop, parent, file, Ready(packed, chosen={"unpacked_bytes": len(file)}), DOWNLOAD)

    ready, kept = shop.keep_file(DOWNLOAD, 1, make)
    return Made(
        name=DOWNLOAD,
        tier="pruned-quantized",
        file=unpack(ready.file, ready.chosen["unpacked_bytes"]),
        parent=parent,
        steps=(*fitted, record_step("pack", asdict(plan), shop.seed)),
        parity=ready.parity,
        cost=kept.cost,
        packed=ready.file,
    )


def _has(file: bytes, kinds: frozenset[str]) -> bool:
    return any(node.op_type in kinds for node in onnx.load_from_string(file).graph.node)

"""The forms of lower precision that a float file gets, as far as the recipe's plan asks for them.

Static int8 needs calibration rows; dynamic int8 and 16-bit floats need none. A file without products of matrices
(trees, say) has nothing to gain and gets no form. Where a recipe brings a file that was trained elsewhere, a library
may fail on an operator that nobody foresaw: such a form is left out with a note, and the others are made all the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import onnx

from variants.errors import StepFailed, naming_step
from variants.parity import compare_files
from variants.precision import halve, quantize_dynamically
from variants.quantization import quantize
from variants.recipe import brings_files
from variants.workshop import Made, record_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from variants.manifest import Tier
    from variants.recipe import Quantization
    from variants.workshop import Workshop

CALIBRATED: Final = "quantize"
PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
TIERS: Final[dict[Tier, Tier]] = {
    "full": "quantized",
    "pruned": "pruned-quantized",
    "distilled": "distilled-quantized",
}


def reduce(shop: Workshop, parent: Made) -> list[Made]:
    """Return the forms of ``parent``, a float file; each is kept on disk when it is done."""
    if not _has_products(parent.file):
        return []
    forms = (_attempt(shop, parent, form) for form in _forms(shop, parent))
    return [made for made in forms if made is not None]


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to reduce a file: ``run`` returns the new file and what was chosen, in ``total`` parts."""

    name: str
    step: str
    total: int
    run: Callable[[Callable[[], None]], tuple[bytes, dict[str, Any]]]


def _forms(shop: Workshop, parent: Made) -> Iterator[_Form]:
    plan, parts = shop.recipe.plan.quantization, shop.parts
    if plan is not None:

        def run(advance: Callable[[], None], plan: Quantization = plan) -> tuple[bytes, dict[str, Any]]:
            rows = parts.calibration.inputs, parts.validation.inputs
            file, chosen = quantize(parent.file, *rows, plan, advance, shop.scoring.divergence)
            return file, {**asdict(plan), **chosen}

        yield _Form("quantized", CALIBRATED, len(plan.methods), run)
    if "dynamic" in shop.recipe.plan.precisions:
        chosen = {"weights": "int8", "ranges": "dynamic"}
        yield _Form("dynamic", "quantize-dynamic", 1, lambda _: (quantize_dynamically(parent.file), chosen))
    if "half" in shop.recipe.plan.precisions:
        yield _Form("half", "halve", 1, lambda _: (halve(parent.file), {"weights": "float16"}))


def _attempt(shop: Workshop, parent: Made, form: _Form) -> Made | None:
    try:
        return _make(shop, parent, form)
    except StepFailed as error:
        if not brings_files(shop.recipe):
            raise
        shop.progress.note(f"left out: {error}")
        return None


def _make(shop: Workshop, parent: Made, form: _Form) -> Made:
    name = form.name if parent.tier == "full" else f"{parent.name}-{form.name}"

    def make(advance: Callable[[], None]) -> bytes:
        file, chosen = form.run(advance)
        return json.dumps(chosen).encode() + b"\n" + file

    kept = shop.keep(f"{form.step} {name}", form.total, make)
    head, _, file = kept.payload.partition(b"\n")
    with naming_step(f"parity {name}"):
        parity = compare_files(parent.file, file, shop.parts.test.inputs, shop.scoring)
    return Made(
        name=name,
        tier=TIERS[parent.tier],
        file=file,
        parent=parent,
        steps=(record_step(form.step, json.loads(head), shop.seed),),
        parity=parity,
        train_s=0.0,
        build_s=kept.took_s,
        is_calibrated=form.step == CALIBRATED,
    )


def _has_products(file: bytes) -> bool:
    return any(node.op_type in PRODUCTS for node in onnx.load_from_string(file).graph.node)

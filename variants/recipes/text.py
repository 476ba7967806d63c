"""Which language a name is in: a small BERT on names of 146 languages from Unicode's CLDR.

Country, currency, month, unit and place names (``variants.sources.names``), each of which only one of the languages
has. Names are dealt out to the parts, so that no text of one part is in another: 20,000 test, 3,000 validation and 500
calibration rows, the others for training. Neighbours among the languages (Danish and Norwegian, Malay and Indonesian)
are told apart by a few letters in a few words, which is why full stays far below certainty.

Input is ``tokens`` int64 (rows, 20), character trigrams by ``variants.sources.tokens``; which places are padding, the
model sees for itself. Full has four layers of the width 128; the student one, which computes its first token alone.
Pruned has two of full's layers, with 200 of their 512 feed-forward units, and all heads and widths: narrower than that,
products of matrices take little less time than before.

A share of tokens is hidden anew in every batch, so that no single trigram decides (Srivastava et al. 2014, "Dropout").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from variants.recipe import DataParts, Examples, Plan, Profiling, Pruning, Teaching, Thresholds, Training
from variants.sources.bert import Architecture, TextClassifier
from variants.sources.names import read_names
from variants.sources.tokens import PADDING, START, Trigrams

if TYPE_CHECKING:
    from variants.recipe import ComputePrecision

CODES: Final = (
    "ab af ak am ar as ast az be bew bg blo bn br brx bs ca ccp ce ceb chr ckb cs cv cy da de dsb dz ee el en eo es "
    "et eu fa fi fil fo fr frr fy ga gd gl gsw gu ha he hi hr hsb hu hy ia id ie ig is it ja jv ka kab kea kgp kk km "
    "kn ko kok ks ksh ku kxv ky lb lij lld lo lt lv mai mi mk ml mn mr ms my nb nds ne nl nqo oc om or pa pcm pl ps "
    "pt qu rif rm ro ru sat sc scn sd si sk sl so sq sr sv sw syr szl ta te tg th ti tk to tr tt ug uk ur uz vec vi "
    "wo xh xnr yo yrl yue zh zu"
)
LANGUAGES: Final = tuple(CODES.split())
"""Those with names enough of their own; left out are tables that repeat another's (Haitian, Nynorsk)."""
HELD_OUT: Final = {"calibration": 500, "validation": 3_000, "test": 20_000}
HIDDEN: Final = 0.05
SPREAD: Final = 0.02
"""How far apart embeddings begin, as BERT's. Most triples are seen a few times only: what they begin as must not be
louder than what a few steps can say (at 0.5 the student reaches 50 % where this reaches 66 %)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPlan(Plan):
    """A plan that also records how texts become tokens, for clients to read in the manifest."""

    tokens: Trigrams


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of one network."""

    width: int
    hidden: int
    layers: int
    heads: int


class Reader(nn.Module):
    """A BERT that finds padding in its tokens; numbers that no token has are taken for the nearest that one has.

    Requests of many clients run together, and a number out of range would fail them all.
    """

    def __init__(self, size: Size, tokens: Trigrams, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.net = TextClassifier(
            Architecture(
                words=tokens.buckets,
                positions=tokens.length,
                token_types=0,
                width=size.width,
                hidden=size.hidden,
                layers=size.layers,
                heads=size.heads,
                epsilon=1e-5,
                is_distilled=False,
                labels=labels,
            )
        )
        nn.init.normal_(self.net.word.weight, std=SPREAD)
        nn.init.normal_(self.net.position.weight, std=0.1 * SPREAD)  # what a token is says more than where it is

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token numbers (N, length) to logits (N, languages)."""
        logits: torch.Tensor = self.net(tokens.clamp(0, self.net.word.num_embeddings - 1), tokens != PADDING)
        return logits


def _adamw(steps: int, learning_rate: float, precision: ComputePrecision) -> Training:
    return Training(
        steps,
        batch_size=256,
        learning_rate=learning_rate,
        weight_decay=0.05,
        optimizer="adamw",
        precision=precision,
    )


class Text:
    """The bundled recipe; ``languages`` and ``held_out`` are for smaller copies."""

    name = "text"
    metric = "accuracy"
    dataset = "names in 146 languages, CLDR"
    input_name = "tokens"
    output_name = "logits"
    languages = LANGUAGES
    held_out = HELD_OUT
    full = Size(width=128, hidden=512, layers=4, heads=4)
    student = Size(width=96, hidden=192, layers=1, heads=3)
    plan = TextPlan(
        tokens=Trigrams(length=20, buckets=16_384),
        training=_adamw(2000, 0.003, "bfloat16"),
        teaching=Teaching(copies=1, temperature=2.0, weight=0.8, precision="bfloat16"),
        pruning=Pruning(
            ratio=0.0,
            iterations=1,
            training=_adamw(1500, 0.003, "bfloat16"),
            importance="group-taylor",
            apart=tuple((f"net.layers.{layer}.widen", 1 - 200 / 512) for layer in range(4)),
            blocks=2,
        ),
        distillation=_adamw(2500, 0.005, "float32"),
        thresholds=Thresholds(min_full=0.55, max_loss=0.05, min_agreement=0.9),
        quantization=None,  # static int8 was slower here than dynamic: it converts between every two layers
        precisions=("dynamic",),
        profiling=Profiling(runs=300),
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """The languages' codes."""
        return self.languages

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One row of tokens."""
        return (self.plan.tokens.length,)

    def load(self, seed: int) -> DataParts:
        """Read the names and deal them out; names that make the same tokens count once."""
        names = read_names(self.languages)
        texts = [name for own in names.values() for name in own]
        labels = np.repeat(np.arange(len(names)), [len(own) for own in names.values()])
        rows, first = np.unique(self.plan.tokens.encode(texts), axis=0, return_index=True)
        order = np.random.default_rng(seed).permutation(len(rows))
        inputs, answers = rows[order], labels[first][order]
        ends = np.cumsum(list(self.held_out.values()))
        cut = [Examples(*part) for part in zip(np.split(inputs, ends), np.split(answers, ends), strict=True)]
        return DataParts(train=cut.pop(), **dict(zip(self.held_out, cut, strict=True)))

    def make_model(self) -> nn.Module:
        """Return a network of four layers."""
        return Reader(self.full, self.plan.tokens, self.languages)

    def make_student(self) -> nn.Module:
        """Return a network of one narrower layer."""
        return Reader(self.student, self.plan.tokens, self.languages)

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Hide a share of the tokens, never the start."""
        hidden = (torch.rand(inputs.shape, generator=generator) < HIDDEN) & (inputs != START)
        return inputs.masked_fill(hidden, PADDING)


RECIPE = Text()

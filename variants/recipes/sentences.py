"""A published BERT that learns a task of yours: transfer learning, and the public original of ``text``.

It needs files that do not come with tiergate, so it is no bundled name but a class to fill in, in a file of your own::

    from variants.recipes.sentences import Sentences

    RECIPE = Sentences("./distilbert-base-uncased", "reviews.tsv")

The folder is a Hugging Face folder of a BERT or DistilBERT with its ``vocab.txt``, with or without a head. Texts are
UTF-8 lines, a tab between text and label. The published layers are frozen and the head alone is trained, so that some
hundreds of texts are enough and minutes suffice; ``trains_all`` fine-tunes every layer. The student is a BERT of two
narrow layers that learns from its answers, and every float variant gets dynamic int8.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from variants.errors import RecipeError
from variants.recipe import DataParts, Examples, Plan, Teaching, Thresholds, Training
from variants.sources.bert import TextClassifier, read_architecture, read_classifier
from variants.sources.wordpiece import PADDING, read_texts, read_wordpiece

if TYPE_CHECKING:
    from collections.abc import Iterable

SHARES: Final = {"calibration": 0.05, "validation": 0.1, "test": 0.25}
MOST_TOKENS: Final = 128
LEAST: Final = 3
"""A start, a token, an end."""
FEWEST_TEXTS: Final = 40
HEAD: Final = ("pool", "classifier", "dropout")


class Sentence(torch.nn.Module):
    """A text classifier that finds padding in its tokens, and takes numbers out of range for the nearest in it."""

    def __init__(self, net: TextClassifier, padding: int) -> None:
        super().__init__()
        self.net, self.padding = net, padding

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map token numbers (N, length) to logits (N, classes)."""
        logits: torch.Tensor = self.net(tokens.clamp(0, self.net.word.num_embeddings - 1), tokens != self.padding)
        return logits


class Sentences:
    """A recipe of the protocol: the network in ``folder`` on the labelled lines of ``texts``."""

    name = "sentences"
    metric = "accuracy"
    input_name = "tokens"
    output_name = "logits"

    def __init__(
        self, folder: str | Path, texts: str | Path, length: int | None = None, *, trains_all: bool = False
    ) -> None:
        self._folder, self.dataset = Path(folder), Path(texts).name
        self._texts, marks = read_texts(Path(texts))
        if len(self._texts) < FEWEST_TEXTS or not all(marks):
            raise RecipeError(
                f"'{texts}' has {len(marks)} texts, {sum(map(bool, marks))} of them with a label; expected "
                f"{FEWEST_TEXTS} or more, each with a tab and a label after it"
            )
        self.labels = tuple(sorted(set(marks)))
        self._marks = np.array([self.labels.index(mark) for mark in marks])
        self._shape = read_architecture(self._folder, self.labels)
        self._tokeniser = read_wordpiece(self._folder)
        self.input_shape = (self._length(length),)
        start = read_classifier(self._folder, self.labels)
        body = tuple(f"net.{name}" for name, _ in start.named_children() if name not in HEAD)
        training = replace(PLAN.training, frozen=() if trains_all else body)
        self.plan = replace(PLAN, training=training, starts_from=_digest(start.state_dict()))

    def load(self, seed: int) -> DataParts:
        """Deal the texts out; texts of the same tokens count once."""
        tokens = self._tokeniser.encode(self._texts, self.input_shape[0])
        rows, first = np.unique(tokens, axis=0, return_index=True)
        order = np.random.default_rng(seed).permutation(len(rows))
        inputs, answers = rows[order], self._marks[first][order]
        ends = np.cumsum([max(1, round(share * len(rows))) for share in SHARES.values()])
        cut = [Examples(*part) for part in zip(np.split(inputs, ends), np.split(answers, ends), strict=True)]
        return DataParts(train=cut.pop(), **dict(zip(SHARES, cut, strict=True)))

    def make_model(self) -> torch.nn.Module:
        """Return the network with the published weights, its head fresh where it was for other classes."""
        return self._reader(read_classifier(self._folder, self.labels))

    def make_student(self) -> torch.nn.Module:
        """Return a network of two layers, a third as wide."""
        heads = max(1, self._shape.heads // 3)
        width = 16 * heads * max(1, self._shape.width // (48 * heads))
        return self._reader(TextClassifier(replace(self._shape, width=width, hidden=2 * width, layers=2, heads=heads)))

    def augment(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002 - nothing is drawn
        """Return the rows as they are: a word less may turn a sentence's meaning round."""
        return inputs

    def _reader(self, net: TextClassifier) -> Sentence:
        return Sentence(net, self._tokeniser.vocabulary[PADDING])

    def _length(self, wanted: int | None) -> int:
        if wanted is None:
            longest = _longest(self._tokeniser.tokens(text) for text in self._texts) + 2  # a start and an end
            return min(longest, self._shape.positions, MOST_TOKENS)
        if not LEAST <= wanted <= self._shape.positions:
            raise RecipeError(
                f"length {wanted} is not allowed; '{self._folder}' takes {LEAST} to {self._shape.positions}"
            )
        return wanted


PLAN: Final = Plan(
    training=Training(steps=300, batch_size=32, learning_rate=0.003, weight_decay=0.01, optimizer="adamw", dropout=0.1),
    teaching=Teaching(copies=1, temperature=2.0, weight=0.7),
    pruning=None,
    distillation=Training(steps=600, batch_size=32, learning_rate=0.002, weight_decay=0.05, optimizer="adamw"),
    thresholds=Thresholds(min_full=0.5, max_loss=0.25, min_agreement=0.9),
    quantization=None,
    precisions=("dynamic",),
)


def _longest(rows: Iterable[list[int]]) -> int:
    return max(map(len, rows))


def _digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in state.items():
        if not name.startswith(("pool.", "classifier.")):  # what may be drawn afresh
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()

"""Text classifiers of the BERT family as their authors publish them: config.json beside a file of weights.

The network is tiergate's own, so that no library of models is needed to read two architectures: BERT (Devlin et al.
2019) and DistilBERT (Sanh et al. 2019), which has no token types and another head. They differ in names alone, and the
names of each are mapped to ours. Weights come from ``model.safetensors`` or, read as plain tensors and nothing else,
from ``pytorch_model.bin``.

The attention mask is turned into floats before it is subtracted from one, since torch's exporter fails on that
subtraction of whole numbers. The head reads the first token alone, so the last layer computes that token alone: its
keys and values are of all tokens, its queries and dense layers of one. Answers are the same, and a network of one layer
takes a fraction of the time.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from variants.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

MASKED: Final = -1e4
"""Added to the scores of padding: far below any score, and within 16-bit floats."""
SAFETENSORS: Final = "model.safetensors"
BINARY: Final = "pytorch_model.bin"
DTYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
MOST_HEADER: Final = 100 * 2**20
FAMILY: Final = r"^(?:(?:bert|distilbert)\.)?"
"""Networks without a head are published without their family's name before each weight."""
LAYER: Final = FAMILY + r"(?:encoder|transformer)\.layer\.(\d+)\."
NAMES: Final = {
    FAMILY + r"embeddings\.LayerNorm\.": "norm.",
    FAMILY + r"embeddings\.(word|position|token_type)_embeddings\.": r"\1.",
    LAYER + r"attention\.self\.(query|key|value)\.": r"layers.\1.\2.",
    LAYER + r"attention\.output\.dense\.": r"layers.\1.mix.",
    LAYER + r"attention\.output\.LayerNorm\.": r"layers.\1.norm.",
    LAYER + r"intermediate\.dense\.": r"layers.\1.widen.",
    LAYER + r"output\.dense\.": r"layers.\1.narrow.",
    LAYER + r"output\.LayerNorm\.": r"layers.\1.last_norm.",
    LAYER + r"attention\.q_lin\.": r"layers.\1.query.",
    LAYER + r"attention\.k_lin\.": r"layers.\1.key.",
    LAYER + r"attention\.v_lin\.": r"layers.\1.value.",
    LAYER + r"attention\.out_lin\.": r"layers.\1.mix.",
    LAYER + r"sa_layer_norm\.": r"layers.\1.norm.",
    LAYER + r"ffn\.lin1\.": r"layers.\1.widen.",
    LAYER + r"ffn\.lin2\.": r"layers.\1.narrow.",
    LAYER + r"output_layer_norm\.": r"layers.\1.last_norm.",
    r"^(?:(?:bert\.)?pooler\.dense|pre_classifier)\.": "pool.",
}
"""What both families call a weight, and what it is called here; ``classifier`` is the same."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a network; ``token_types`` is 0 where it has none."""

    words: int
    positions: int
    token_types: int
    width: int
    hidden: int
    layers: int
    heads: int
    epsilon: float
    is_distilled: bool
    labels: tuple[str, ...]


class _Layer(nn.Module):
    """Attention and two dense layers, each with a way around it and a norm after."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.dropout = shape.heads, nn.Dropout(0.0)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.last_norm = (nn.LayerNorm(width, eps=shape.epsilon) for _ in range(2))
        self.widen, self.narrow = nn.Linear(width, shape.hidden), nn.Linear(shape.hidden, width)

    def forward(self, own: torch.Tensor, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Map ``own`` (N, places, width), those of ``x`` (N, length, width) that go on, to the same shape.

        ``bias`` (N, 1, 1, length) is added to scores.
        """
        query, key, value = self._split(self.query(own)), self._split(self.key(x)), self._split(self.value(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) + bias  # (N, heads, places, length)
        read = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)  # (N, places, width)
        own = self.norm(own + self.dropout(self.mix(read)))
        out: torch.Tensor = self.last_norm(own + self.dropout(self.narrow(F.gelu(self.widen(own)))))
        return out

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        split = x.reshape(x.shape[0], x.shape[1], self.heads, -1)  # (N, length, heads, width / heads)
        return split.transpose(1, 2)


class TextClassifier(nn.Module):
    """Embeddings, layers, and a head on the first token."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.word = nn.Embedding(shape.words, shape.width)
        self.position = nn.Embedding(shape.positions, shape.width)
        self.token_type = nn.Embedding(shape.token_types, shape.width) if shape.token_types else None
        self.norm, self.dropout = nn.LayerNorm(shape.width, eps=shape.epsilon), nn.Dropout(0.0)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.pool = nn.Linear(shape.width, shape.width)
        self.activation = F.relu if shape.is_distilled else torch.tanh
        self.classifier = nn.Linear(shape.width, len(shape.labels))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Map token numbers and a mask of ones at tokens and zeros at padding, (N, length) each, to logits."""
        x = self.word(input_ids) + self.position(torch.arange(input_ids.shape[1]))  # (N, length, width)
        if self.token_type is not None:
            x = x + self.token_type(torch.zeros(1, dtype=torch.int64))
        x = self.dropout(self.norm(x))
        bias = (1.0 - attention_mask.float())[:, None, None, :] * MASKED  # (N, 1, 1, length)
        *earlier, last = self.layers
        for layer in earlier:
            x = layer(x, x, bias)
        first = last(x[:, :1], x, bias).flatten(1)  # (N, width)
        logits: torch.Tensor = self.classifier(self.dropout(self.activation(self.pool(first))))  # (N, classes)
        return logits


def read_architecture(folder: Path, labels: tuple[str, ...] | None = None) -> Architecture:
    """Return the sizes in a folder's config.json; with ``labels``, of a network that is to learn those.

    Raises:
        RecipeError: It cannot be read, or is of a network that is not known here.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        family, kind = config.get("model_type"), ", ".join(config.get("architectures") or ["nothing"])
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"cannot read '{path}': {error}") from error
    has_head = labels is not None or kind.endswith("ForSequenceClassification")
    if family not in {"bert", "distilbert"} or not has_head:
        raise RecipeError(
            f"'{path}' is of model_type '{family}' with {kind}; what is read as a folder is bert and distilbert with "
            "...ForSequenceClassification. Export others with: optimum-cli export onnx --model FOLDER OUT, and build "
            "OUT/model.onnx"
        )
    try:
        shape = _distilbert(config) if family == "distilbert" else _bert(config)
    except KeyError as error:
        raise RecipeError(f"'{path}' lacks {error}, without which the network cannot be built") from error
    return shape if labels is None else replace(shape, labels=labels)


def read_classifier(folder: Path, labels: tuple[str, ...] | None = None) -> TextClassifier:
    """Return the network of a folder with its weights, in evaluation mode.

    With ``labels`` it is to learn those: its head stays as it was drawn unless the folder's is for them.

    Raises:
        RecipeError: A file is absent or cannot be read, or weights are not those of the architecture.
    """
    model = TextClassifier(read_architecture(folder, labels))
    weights = {_rename(name): tensor for name, tensor in _read_weights(folder).items()}
    wanted = model.state_dict()
    if labels is not None and not _has_head_for(labels, folder, weights):
        weights |= {name: tensor for name, tensor in wanted.items() if name.startswith("classifier.")}
        weights = {name: tensor for name, tensor in wanted.items() if name.startswith("pool.")} | weights
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        more = len(missing) - 1
        raise RecipeError(f"the weights in '{folder}' lack {missing[0]} and {more} more that config.json asks for")
    for name, tensor in wanted.items():
        if weights[name].shape != tensor.shape:
            raise RecipeError(
                f"weight {name} in '{folder}' has shape {list(weights[name].shape)}; config.json says {[*tensor.shape]}"
            )
    model.load_state_dict({name: weights[name].float() for name in wanted})
    return model.eval()


def _has_head_for(labels: tuple[str, ...], folder: Path, weights: dict[str, torch.Tensor]) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return "classifier.weight" in weights and _labels(config) == labels


def _bert(config: dict[str, Any]) -> Architecture:
    return Architecture(
        words=config["vocab_size"],
        positions=config["max_position_embeddings"],
        token_types=config["type_vocab_size"],
        width=config["hidden_size"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        epsilon=config.get("layer_norm_eps", 1e-12),
        is_distilled=False,
        labels=_labels(config),
    )


def _distilbert(config: dict[str, Any]) -> Architecture:
    return Architecture(
        words=config["vocab_size"],
        positions=config["max_position_embeddings"],
        token_types=0,
        width=config["dim"],
        hidden=config["hidden_dim"],
        layers=config["n_layers"],
        heads=config["n_heads"],
        epsilon=1e-12,
        is_distilled=True,
        labels=_labels(config),
    )


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the classes by number; a config without names has two."""
    names = config.get("id2label") or {"0": "0", "1": "1"}
    return tuple(str(names[number]) for number in sorted(names, key=int))


def _rename(name: str) -> str:
    for pattern, own in NAMES.items():
        renamed, count = re.subn(pattern, own, name)
        if count:
            return renamed
    return name


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / SAFETENSORS).is_file():
        return _read_safetensors(folder / SAFETENSORS)
    path = folder / BINARY
    if not path.is_file():
        raise RecipeError(f"'{folder}' has neither {SAFETENSORS} nor {BINARY}; weights in several files are not read")
    try:
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the file provokes
        raise RecipeError(f"cannot read the weights in '{path}': {str(error).splitlines()[0]}") from error
    return state


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return every tensor: the file is the length of a JSON header in 8 bytes, the header, and the tensors' bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if length > min(MOST_HEADER, len(content)):
        raise RecipeError(f"'{path}' is no safetensors file, or was cut off: its header would have {length} bytes")
    try:
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        return {name: _tensor(memoryview(content)[8 + length :], entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"cannot read the weights in '{path}': {error}") from error


def _tensor(data: memoryview, entry: dict[str, Any]) -> torch.Tensor:
    start, end = entry["data_offsets"]
    array = np.frombuffer(data[start:end], dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return torch.from_numpy(array.copy())

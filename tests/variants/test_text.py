"""The recipe ``text``: its data, its tokens, and a tiny copy of it built from beginning to end."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from variants.build import build_model
from variants.data import load_parts
from variants.recipe import Profiling, Pruning, Thresholds, Training
from variants.recipes.text import LANGUAGES, Size, Text
from variants.runtime import open_session
from variants.sources.names import read_names
from variants.sources.tokens import Trigrams

if TYPE_CHECKING:
    from variants.build import BuildResult


def short(steps: int) -> Training:
    return Training(steps, batch_size=64, learning_rate=0.01, optimizer="adamw")


class TinyText(Text):
    languages = ("ja", "ka", "ru")
    held_out = {"calibration": 20, "validation": 60, "test": 200}  # noqa: RUF012 - as the recipe has it
    full = Size(width=32, hidden=64, layers=2, heads=4)
    student = Size(width=16, hidden=32, layers=1, heads=2)
    plan = replace(
        Text.plan,
        tokens=Trigrams(length=12, buckets=512),
        training=short(40),
        pruning=Pruning(ratio=0.5, iterations=1, training=short(15), importance="group-taylor"),
        distillation=short(30),
        thresholds=Thresholds(min_full=0.6, max_loss=0.4, min_agreement=0.8),
        profiling=Profiling(batch_sizes=(1, 2), threads=(1,), rounds=2, runs=4, cell_s=0.1, memory_repeats=1),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build_model(TinyText(), tmp_path_factory.mktemp("texts"))


def test_tokens_are_what_the_page_says() -> None:
    tokens = Trigrams(length=10, buckets=16_384).encode(["Straße", "  STRASSE  ", "Bahnhofsvorplatz"])
    assert tokens.tolist() == [
        [1, 5814, 2439, 11122, 9296, 13907, 5634, 0, 0, 0],
        [1, 5814, 2439, 11122, 3654, 3370, 13059, 8264, 0, 0],
        [1, 9069, 4832, 8697, 14689, 2976, 10847, 11464, 1086, 6812],
    ]


def test_a_client_makes_the_same_tokens_by_the_page() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "recipes.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*def encode\(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the page's own lines
    texts = ["", "ab", "Straße  nach\u00a0Süden", "Österreichisch-Ungarische Monarchie", "日本標準時"]
    assert [names["encode"](text) for text in texts] == Text.plan.tokens.encode(texts).tolist()


def test_names_belong_to_one_language_each() -> None:
    names = read_names(("da", "nb", "de"))
    everything = [name for own in names.values() for name in own]
    assert len(everything) == len(set(everything)) > 1000
    assert "deutsch" in names["de"]
    assert not any("danmark" in own for own in names.values())  # as Danes and Norwegians both write it


def test_parts_share_no_text_and_have_every_language() -> None:
    parts = load_parts(TinyText(), 0)
    assert [len(part) for part in (parts.calibration, parts.validation, parts.test)] == [20, 60, 200]
    assert parts.train.inputs.dtype == np.int64
    assert set(parts.test.labels.tolist()) == {0, 1, 2}
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 146


def test_a_tiny_copy_is_built_and_answers_whole_numbers(built: BuildResult) -> None:
    manifest = built.manifest
    assert {one.name for one in manifest.variants if one.is_published} >= {"full", "dynamic", "distilled"}
    assert [(item.name, item.datatype, item.shape) for item in manifest.inputs] == [("tokens", "INT64", (-1, 12))]
    assert manifest.recipe_parameters["tokens"] == {
        "length": 12,
        "buckets": 512,
        "scheme": "character trigrams, CRC-32",
    }
    session = open_session(built.folder / "full.onnx")
    test = load_parts(TinyText(), 0).test
    right = session.run(None, {"tokens": test.inputs})[0].argmax(1) == test.labels
    assert right.mean() == pytest.approx(manifest.variants[0].accuracy.value)
    assert right.mean() > 0.7


def test_pruned_text_loses_heads_width_and_embeddings(built: BuildResult) -> None:
    full, pruned = (one.size for one in built.manifest.variants if one.name in {"full", "pruned"})
    assert pruned.parameters < 0.6 * full.parameters


def test_padding_changes_no_answer(built: BuildResult) -> None:
    session = open_session(built.folder / "full.onnx")
    rows = Trigrams(12, 512).encode(["зима"])
    other = rows.copy()
    other[0, -1] = 77
    answers = [session.run(None, {"tokens": one})[0] for one in (rows, rows, other)]
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_tokens_out_of_range_fail_no_request(built: BuildResult) -> None:
    session = open_session(built.folder / "full.onnx")
    rows = np.array([[1, 5, 511, 0] + [0] * 8, [1, 5, 99_999, 0] + [0] * 8], dtype=np.int64)
    logits = session.run(None, {"tokens": rows})[0]
    assert np.allclose(logits[0], logits[1], atol=1e-5)
